"""COCO files: which images, objects and labels they are, and what cannot be trained or tested on."""

import json
import pickle
import shutil

import numpy as np
import pytest
from coco_files import SOUND, SOUND_SIZES, open_source, picture, settings_at, square, write_coco
from pycocotools import mask
from pycocotools.coco import COCO

from ctx_flax.data.decode import BadImage, open_image


@pytest.fixture
def data(tmp_path):
  return settings_at(tmp_path)


def ids(source):
  return source.image_ids.tolist()


def masks(source, index):
  objects = source.objects(index)
  return objects.masks(np.arange(len(objects.labels)))


def test_images_and_objects_are_those_of_the_file(data, tmp_path):
  write_coco(tmp_path, SOUND_SIZES, SOUND)
  source = open_source(data)
  assert ids(source) == [1, 2, 3] and source.hw.tolist() == [[40, 50], [50, 40], [60, 60]]
  assert source.class_names == ('cat', 'dog', 'bird') and source.category_ids == (1, 3, 90)
  assert [source.name(i) for i in range(3)] == ['001.png', '002.png', '003.png']
  assert source.object_counts.tolist() == [2, 1, 1] and source.remarks == ()
  objects = source[0]['objects']
  np.testing.assert_array_equal(objects.boxes, np.float32([[5, 6, 25, 16], [10, 10, 40, 30]]), strict=True)
  np.testing.assert_array_equal(objects.labels, np.int32([2, 1]), strict=True)
  np.testing.assert_array_equal(source.objects(1).boxes, np.float32([[1.5, 2.5, 11.5, 12.75]]))
  first, second = masks(source, 0)
  assert first.dtype == np.uint8 and first.shape == (40, 50)
  assert first[6:16, 5:25].all() and first.sum() == 200
  assert second[10:30, 10:40].all() and second.sum() == 600
  np.testing.assert_array_equal(objects.masks(np.array([1])), second[None])
  np.testing.assert_array_equal(np.asarray(open_image(source[1])), picture(2, 50, 40))


def test_sources_pickle_small_and_read_the_same(data, tmp_path):
  """Masks stay in the file: what is sent to a worker process does not grow with them."""
  polygon = np.round(np.random.default_rng(0).uniform(0, 40, 20_000), 2).tolist()
  write_coco(tmp_path, SOUND_SIZES, [*SOUND, square(9, 2, (0, 0, 40, 40), segmentation=[polygon])])
  source = open_source(data)
  pickled = pickle.dumps(source)
  assert len(pickled) < 4000
  copy = pickle.loads(pickled)
  for index in range(3):
    np.testing.assert_array_equal(masks(copy, index), masks(source, index))
    assert copy[index]['encoded'] == source[index]['encoded']


@pytest.mark.parametrize('mark', ['', '\ufeff'])
@pytest.mark.parametrize('spaces', [None, 2])
def test_places_are_right_whatever_the_text_looks_like(data, tmp_path, spaces, mark):
  """Lists in any order, letters of more bytes than one, blanks, and a mark in front."""
  content = write_coco(tmp_path, SOUND_SIZES, [entry | {'note': 'ä€'} for entry in SOUND])
  content = {key: content[key] for key in ('annotations', 'categories', 'info', 'images')}
  text = mark + json.dumps(content, ensure_ascii=False, indent=spaces)
  (tmp_path / 'annotations/instances_train2017.json').write_text(text, encoding='utf-8')
  source = open_source(data)
  assert masks(source, 0).sum(axis=(1, 2)).tolist() == [200, 600] and masks(source, 2).all()


def test_names_of_files_may_be_any(data, tmp_path):
  content = write_coco(tmp_path, SOUND_SIZES[:1], SOUND[:1])
  (tmp_path / 'train2017/ünten').mkdir()
  shutil.move(tmp_path / 'train2017/001.png', tmp_path / 'train2017/ünten/b c.png')
  for name in ('ünten/b c.png', 'ünten//b c.png'):
    content['images'][0]['file_name'] = name
    (tmp_path / 'annotations/instances_train2017.json').write_text(json.dumps(content, ensure_ascii=False))
    source = open_source(data)
    assert open_image(source[0]).size == (50, 40)


def test_training_images_are_those_with_annotations_and_not_small(data, tmp_path):
  """As MMDetection chooses them: crowds are annotations, other categories are not. Tests have all images."""
  sizes = [(40, 50), (31, 200), (200, 32), (40, 40), (40, 40), (40, 40)]
  annotations = [
    *(square(image, image, (2, 2, 20, 20)) for image in (1, 2, 3)),
    square(4, 4, (2, 2, 20, 20), iscrowd=1, segmentation={'size': [40, 40], 'counts': [800, 800]}),
    square(5, 5, (2, 2, 20, 20), category=2),
  ]
  for split in ('train2017', 'val2017'):
    write_coco(tmp_path, sizes, annotations, split)
  source = open_source(data)
  assert ids(source) == [1, 3, 4] and source.object_counts.tolist() == [1, 1, 0]
  file = tmp_path / 'annotations/instances_train2017.json'
  assert list(source.remarks) == [
    f'{file}: left out 1 annotation of categories that it does not list: 5',
    f'{file}: left out 2 images without annotations: 005.png, 006.png',
    f'{file}: left out 1 image below 32 pixels: 002.png',
  ]
  assert ids(open_source(data, 'test')) == [1, 2, 3, 4, 5, 6]


def test_objects_are_left_out_as_mmdetection_does(data, tmp_path):
  """Those that training ignores; a test counts all of them."""
  kept = [square(1, 1, (-5, 30, 10, 20)), square(2, 1, (49, 39, 1, 1)), square(3, 1, (0, 0, 1, 1), area=0.1)]
  left_out = [
    square(4, 1, (5, 5, 9, 9), ignore=1),
    square(5, 1, (-10, 5, 10, 10)),
    square(6, 1, (5, 40, 10, 10)),
    square(7, 1, (5, 5, 0.9, 10)),
    square(8, 1, (5, 5, 10, 0.9)),
    square(9, 1, (5, 5, 10, 10), area=0),
    square(10, 1, (5, 5, 10, 10), iscrowd=1),
  ]
  for split in ('train2017', 'val2017'):
    write_coco(tmp_path, [(40, 50)], [*left_out, *kept], split)
  source = open_source(data)
  assert source.object_counts.tolist() == [3]
  np.testing.assert_array_equal(source.objects(0).boxes[0], np.float32([-5, 30, 5, 50]))
  file = tmp_path / 'annotations/instances_train2017.json'
  assert list(source.remarks) == [
    f'{file}: left out 1 annotation marked to be ignored: 4',
    f'{file}: left out 4 annotations with a box outside the image or below one pixel: 5, 6, 7, 8',
    f'{file}: left out 1 annotation without area: 9',
  ]
  test = open_source(data, 'test')
  assert test.object_counts.tolist() == [10] and test.remarks == ()


def test_many_objects_are_told(data, tmp_path):
  annotations = [square(i + 1, 1, (i / 10, 5, 9, 9)) for i in range(200)]
  write_coco(tmp_path, SOUND_SIZES[:2], [*annotations, square(300, 2, (1, 1, 9, 9))])
  data.max_objects = 100
  source = open_source(data)
  (remark,) = source.remarks
  assert remark.endswith(
    ': 1 image with more than data.max_objects=100 objects, of which so many count: 001.png (200)'
  )
  data.max_objects = 200
  assert open_source(data).remarks == ()


def test_missing_images_are_left_out_and_named(data, tmp_path):
  write_coco(tmp_path, SOUND_SIZES, SOUND, missing=(1, 3))
  source = open_source(data)
  assert ids(source) == [2] and source.objects(0).labels.tolist() == [0]
  folder = tmp_path / 'train2017'
  assert source.remarks[0].endswith(f'left out 2 images that {folder} does not hold: 001.png, 003.png')
  (folder / '002.png').unlink()
  with pytest.raises(
    ValueError, match=r'leaves no image to train on: left out 3 images that .* 001\.png, 002'
  ):
    open_source(data)


def test_images_to_test_on_need_no_annotations(data, tmp_path):
  """As in COCO's file of the test-dev images, which are some of those in test2017."""
  content = write_coco(tmp_path, SOUND_SIZES, [], 'test2017')
  del content['annotations']
  (tmp_path / 'annotations/image_info_test-dev2017.json').write_text(json.dumps(content))
  data.test_split = 'test-dev2017'
  source = open_source(data, 'test')
  assert ids(source) == [1, 2, 3] and source.object_counts.tolist() == [0, 0, 0]
  assert source.root == str(tmp_path / 'test2017')
  data.train_split = 'test-dev2017'
  with pytest.raises(ValueError, match=r'test-dev2017\.json lists no annotations: there is nothing to train'):
    open_source(data)


def test_the_ground_truth_is_what_pycocotools_reads(data, tmp_path):
  """Without what is missing or misleads it: objects of id 0, two of one id, polygons of two points."""
  crowd = {'size': [50, 40], 'counts': [0, 2000]}
  annotations = [
    square(0, 1, (5, 6, 20, 10), segmentation=[[1, 1, 9, 9], [5, 6, 25, 6, 25, 16, 5, 16]]),
    square(0, 2, (5, 6, 20, 10), iscrowd=1, segmentation=crowd, area=2000),
    square(5, 2, (5, 6, 20, 10), segmentation=[[1, 1, float('nan'), 2, 3, 9]]),
    square(6, 3, (5, 6, 20, 10)),
  ]
  del annotations[0]['area']
  write_coco(tmp_path, SOUND_SIZES, annotations, 'val2017', missing=(3,))
  source = open_source(data, 'test')
  truth = source.ground_truth()
  (tmp_path / 'truth.json').write_text(json.dumps(truth))
  read = COCO(tmp_path / 'truth.json')
  assert sorted(read.imgs) == [1, 2] and sorted(read.anns) == [1, 2]
  assert read.loadCats([1, 3, 90]) == [
    {'id': 1, 'name': 'cat'},
    {'id': 3, 'name': 'dog'},
    {'id': 90, 'name': 'bird'},
  ]
  assert [read.anns[i]['area'] for i in (1, 2)] == [200, 2000] and read.anns[2]['iscrowd'] == 1
  for number, index in ((1, 0), (2, 1)):
    rle = read.annToRLE(read.anns[number])
    assert mask.area(rle) == masks(source, index)[0].sum() > 0


def test_an_annotation_file_that_changes_is_noticed(data, tmp_path):
  write_coco(tmp_path, SOUND_SIZES, SOUND)
  source, file = open_source(data), tmp_path / 'annotations/instances_train2017.json'
  content = file.read_bytes()
  for changed in (content[:-1], content.replace(b'"segmentation"', b'"segmentatoin"')):
    file.write_bytes(changed)
    with pytest.raises(BadImage, match=r'instances_train2017\.json was changed after it was read$'):
      masks(source, 0)
  file.unlink()
  with pytest.raises(FileNotFoundError):
    masks(source, 0)
