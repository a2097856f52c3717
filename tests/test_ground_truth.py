"""The annotated objects that detections are compared with: what counts, what is left out, what is refused."""

import pytest
from coco_sets import IMAGES, OBJECTS, annotated, corners

from ctx_flax.tasks.detection.ground_truth import GroundTruth


@pytest.fixture(scope='module')
def ground_truth():
  return GroundTruth(annotated(OBJECTS, IMAGES))


def test_images_and_categories_are_in_order(ground_truth):
  assert tuple(ground_truth.images) == (2, 5) and ground_truth.category_ids == (3, 7, 90)
  assert ground_truth.class_names == ('cat', 'dog', 'kite')
  assert [record['iscrowd'] for record in ground_truth.annotations] == [0, 0, 1, 0]
  assert ground_truth.remarks == []


def test_what_has_no_mask_is_left_out_and_said():
  dataset = annotated(OBJECTS, IMAGES)
  dataset['annotations'][0]['segmentation'] = []
  dataset['annotations'][1]['segmentation'] = [[1, 1, 5, 5]]  # no polygon, but four numbers
  dataset['annotations'][2]['segmentation']['size'] = [80, 60]
  del dataset['annotations'][3]['bbox']
  with pytest.raises(ValueError, match='no annotation has a mask: the boxes alone can be evaluated'):
    GroundTruth(dataset)
  dataset['annotations'].append(
    {
      'id': 7,
      'image_id': 2,
      'category_id': 3,
      'bbox': [1, 1, 2, 2],
      'segmentation': [corners((1, 1, 2, 2))],
    }
  )
  left = GroundTruth(dataset)
  assert [(record['id'], record['area'], record['iscrowd']) for record in left.annotations] == [(1, 4, 0)]
  assert left.remarks == [
    '1 annotation without a proper box does not count: 40',
    '3 annotations without a proper mask do not count: 10, 20, 30',
  ]


def test_annotations_of_what_is_not_listed_do_not_count():
  objects = [*OBJECTS, (9, 3, (1, 1, 5, 5)), (2, 4, (1, 1, 5, 5))]
  assert len(GroundTruth(annotated(objects, IMAGES)).annotations) == len(OBJECTS)


@pytest.mark.parametrize(
  'change, message',
  [
    (lambda d: d.pop('annotations'), "there is no list of 'annotations'"),
    (lambda d: d['images'][1].pop('width'), r"record 1 \(from 0\) of 'images' lacks 'width'"),
    (lambda d: d['categories'][0].pop('id'), r"record 0 \(from 0\) of 'categories' lacks 'id'"),
    (lambda d: d['images'][1].update(width='x'), "record 1 .* has 'width': 'x', expected an integer"),
    (lambda d: d['images'][1].update(id=d['images'][0]['id']), 'record 1 .* has the id .* of another one'),
    (lambda d: d['images'].append(5), "record 2 .* of 'images' is 5: expected an object"),
    (lambda d: d['annotations'].append(5), "of 'annotations' is 5: expected an object"),
  ],
)
def test_what_is_no_annotation_file(change, message):
  dataset = annotated(OBJECTS, IMAGES)
  change(dataset)
  with pytest.raises(ValueError, match=message):
    GroundTruth(dataset)


def test_an_annotation_of_a_list_of_images_does_not_count():
  dataset = annotated(OBJECTS, IMAGES)
  dataset['annotations'].append(dataset['annotations'][0] | {'image_id': [1]})
  assert len(GroundTruth(dataset).annotations) == len(OBJECTS)


def test_an_image_that_is_not_annotated():
  with pytest.raises(ValueError, match='image 3 is not among the 2 that are annotated'):
    GroundTruth(annotated(OBJECTS, IMAGES), [2, 3])
