"""Damage to COCO files ends in a line that names the entry, or costs that entry alone, counted and named."""

import json

import numpy as np
import pytest
from coco_files import detection_config, opened, square, write_coco

SIZES = [(40, 50), (50, 40)]
SOUND = [square(1, 1, (5, 6, 20, 10)), square(2, 2, (0, 0, 30, 30), category=90)]
BOX = (5, 6, 20, 10)


@pytest.fixture
def config(tmp_path):
  config = detection_config()
  config.data.path = str(tmp_path)
  return config


@pytest.mark.parametrize(
  'annotation, remark',
  [
    (square(7, 5, BOX), 'of images that it does not list'),
    (square(7, 1, BOX, category=2), 'of categories that it does not list'),
    (square(7, 1, (60, 6, 20, 10)), 'with a box outside the image or below one pixel'),
    (square(7, 1, (5, 6, 0, 0), area=4), 'with a box outside the image or below one pixel'),
    (square(7, 1, (5, 6, -9, -9), area=4), 'with a box outside the image or below one pixel'),
    (square(7, 1, BOX, bbox=[5, 6, 20]), 'without a box of four numbers'),
    (square(7, 1, BOX, bbox=None), 'without a box of four numbers'),
    (square(7, 1, BOX, bbox=[5, 6, float('nan'), 10]), 'without a box of four numbers'),
    (square(7, 1, BOX, bbox=[5, 6, '20', 10]), 'without a box of four numbers'),
    (square(7, 1, BOX, bbox=[5, 6, 1e300, 10]), 'without a box of four numbers'),
    (square(7, 1, BOX, segmentation=[[1, 1, 9, 9]]), 'with polygons of fewer than three points alone'),
    (square(7, 1, BOX, segmentation=[]), 'without a mask'),
    (
      square(7, 1, BOX, segmentation=[[1, 1, 9, 9, float('nan'), 5]]),
      'with a polygon that is not of pairs of',
    ),
    (
      square(7, 1, BOX, segmentation={'size': [50, 40], 'counts': [2000]}),
      'with a mask of another size than the image',
    ),
    (
      square(7, 1, BOX, segmentation={'size': [40, 50], 'counts': [1999]}),
      'with run lengths that do not make up an image',
    ),
  ],
)
def test_an_annotation_is_left_out_and_named(config, tmp_path, annotation, remark):
  write_coco(tmp_path, SIZES, [SOUND[0], annotation, SOUND[1]])
  source = opened(config)
  assert source.object_counts.tolist() == [1, 1] and source.objects(1).labels.tolist() == [2]
  assert source.objects(1).masks(np.array([0])).sum() == 900
  (line,) = source.remarks
  assert f'instances_train2017.json: left out 1 annotation {remark}' in line and line.endswith(': 7')


def test_names_of_many_are_not_all_listed(config, tmp_path):
  write_coco(tmp_path, SIZES, [*SOUND, *(square(10 + i, 9, BOX) for i in range(1200))])
  (line,) = opened(config).remarks
  assert line.endswith(
    'left out 1,200 annotations of images that it does not list: 10, 11, 12, 13, 14 and 1,195 more'
  )


@pytest.mark.parametrize('annotation', [{'id': None}, {'id': '7'}, {'iscrowd': None}, {'area': None}])
def test_what_has_a_default_may_be_missing(config, tmp_path, annotation):
  write_coco(tmp_path, SIZES, [SOUND[0], square(7, 2, BOX) | annotation])
  source = opened(config)
  assert source.object_counts.tolist() == [1, 1] and source.remarks == ()
  name = next(iter(annotation))
  missing = square(7, 2, BOX)
  del missing[name]
  write_coco(tmp_path, SIZES, [SOUND[0], missing])
  assert opened(config).object_counts.tolist() == [1, 1]


def test_repeated_ids(config, tmp_path):
  """The same image twice is one; other images of one id are an error; annotations of one id all count."""
  images = write_coco(tmp_path, SIZES, SOUND)['images']
  write_coco(tmp_path, SIZES, [*SOUND, square(1, 2, BOX)], images=[*images, images[0]])
  source = opened(config)
  assert source.image_ids.tolist() == [1, 2] and source.object_counts.tolist() == [1, 2]
  assert [line.partition('.json: ')[2] for line in source.remarks] == [
    'left out 1 image listed once more: 1',
    '1 annotation id of several annotations, all of which count: 1',
  ]
  for changes in ({'file_name': 'other\n.png'}, {'height': 41}):
    write_coco(tmp_path, SIZES, SOUND, images=[*images, images[0] | changes])
    with pytest.raises(ValueError, match=r'001\.png and \S+\.png have the same image id 1$') as raised:
      opened(config)
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
  'name, index, changes, message',
  [
    ('images', 1, {'id': None}, 'image 2 of the list has no id that is a whole number'),
    ('images', 1, {'id': 10**30}, 'image 2 of the list has no id that is a whole number'),
    ('images', 0, {'height': '40'}, 'image 1 of the list has no height that is a whole number'),
    ('images', 0, {'width': 0}, 'image 1 of the list has the size 0 x 40'),
    ('images', 0, {'width': 10**7}, 'image 1 of the list has the size 10000000 x 40'),
    ('images', 0, {'file_name': ''}, 'image 1 of the list has no file_name'),
    ('images', 0, {'file_name': 'a\0'}, 'image 1 of the list has no file_name'),
    ('annotations', 1, {'image_id': '2'}, 'annotation 2 of the list has no image_id that is a whole number'),
    (
      'annotations',
      1,
      {'category_id': 1.0},
      'annotation 2 of the list has no category_id that is a whole num',
    ),
    ('categories', 1, {'id': None}, 'category 2 of the list has no id that is a whole number'),
    ('categories', 1, {'id': 3}, 'the category id 3 stands there twice'),
  ],
)
def test_entries_that_are_none_are_errors(config, tmp_path, name, index, changes, message):
  content = write_coco(tmp_path, SIZES, SOUND)
  entries = content[name]
  for entry in (entries[index] | changes, None) if 'twice' not in message else (entries[index] | changes,):
    broken = [*entries[:index], entry, *entries[index + 1 :]]
    write_coco(tmp_path, SIZES, **{'annotations': SOUND, name: broken})
    expected = message if entry else f'{name[:3]}.* {index + 1} of the list has no '
    with pytest.raises(ValueError, match=f'instances_train2017.json: {expected}'):
      opened(config)


@pytest.mark.parametrize(
  'change, message',
  [
    (lambda text: text[: len(text) // 2], 'is cut short at character'),
    (lambda text: text[: text.index('"bbox"') + 3], 'is cut short at character'),
    (lambda text: text[:-2], 'is cut short at character'),
    (lambda text: '', 'is cut short at character 0 of 0'),
    (lambda text: '   ', 'is cut short at character'),
    (lambda text: text + 'x', 'is no annotation file of COCO: more text after its end at'),
    (lambda text: text.replace(': 90', ': 9x0'), 'is no annotation file of COCO: Expecting|No|no'),
    (lambda text: json.dumps(json.loads(text)['images']), r"is no annotation file of COCO: no '\{' at"),
    (lambda text: text.replace('[{"id": 1, "file', '{"id": [{"id": 1, "file'), r"COCO: no '\[' at"),
    (lambda text: '[' * 100_000, r"COCO: no '\{' at"),
    (lambda text: '{"a": ' + '[' * 100_000, 'its lists are too deep'),
    (lambda text: '{}', 'lists no images and no categories: it is no annotation file of COCO'),
    (lambda text: json.dumps(json.loads(text) | {'categories': []}), 'lists no categories: it is no annot'),
  ],
)
def test_damaged_json_is_told(config, tmp_path, change, message):
  write_coco(tmp_path, SIZES, SOUND)
  file = tmp_path / 'annotations/instances_train2017.json'
  file.write_text(change(file.read_text()))
  with pytest.raises(ValueError, match=message) as raised:
    opened(config)
  assert str(file) in str(raised.value) and '\n' not in str(raised.value)


@pytest.mark.parametrize('annotations', [[], [square(1, 1, BOX, iscrowd=1)], [square(1, 9, BOX)]])
def test_nothing_to_train_on_is_told(config, tmp_path, annotations):
  write_coco(tmp_path, SIZES, annotations)
  with pytest.raises(ValueError, match=r'instances_train2017\.json leaves no (image|object) to train on'):
    opened(config)
