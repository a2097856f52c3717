"""Results in COCO's format: what detections become, the file, and what is said about a wrong one."""

import json
import re

import numpy as np
import pytest
from coco_sets import CATEGORIES, annotated, detected

from ctx_flax.tasks.detection.ground_truth import GroundTruth, read_ground_truth
from ctx_flax.tasks.detection.paste import encode_mask, paste_mask
from ctx_flax.tasks.detection.results import image_results, read_results, write_results

HW = 12, 16
IMAGES = {42: HW, 43: HW}
RESULTS = [detected(42, 3, (1, 2, 5, 4), 0.75, HW), detected(43, 90, (0, 0, 16, 12), 0.5, HW)]


@pytest.fixture(scope='module')
def ground_truth():
  return GroundTruth(annotated([(42, 3, (1, 2, 5, 4))], IMAGES))


def detections(**changes):
  rng = np.random.default_rng(0)
  rows = {
    'boxes': np.array([[1, 2, 6.5, 9], [0, 0, 0, 0], [3, 3, 9, 8]], np.float32),
    'scores': np.array([0.9, 0, 0.3], np.float32),
    'labels': np.array([2, 0, 1], np.int32),
    'valid': np.array([True, False, True]),
    'masks': rng.random((3, 28, 28), np.float32),
  }
  return rows | {name: np.array(value, np.float32) for name, value in changes.items()}


def test_detections_become_results():
  rows = detections()
  first, second = image_results(42, HW, rows, tuple(CATEGORIES))
  assert first['bbox'] == [1, 2, 5.5, 7] and second['bbox'] == [3, 3, 6, 5]
  assert (first['image_id'], first['category_id'], second['category_id']) == (42, 90, 7)
  assert first['score'] == float(np.float32(0.9))
  for result, n in ((first, 0), (second, 2)):
    assert result['segmentation'] == encode_mask(paste_mask(rows['masks'][n], rows['boxes'][n], HW))
  json.dumps([first, second])  # of Python's own numbers


def test_detections_without_masks_all_of_them_valid():
  rows = detections()
  del rows['masks'], rows['valid']
  results = image_results(42, HW, rows, tuple(CATEGORIES))
  assert len(results) == 3 and not any('segmentation' in result for result in results)


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'boxes': [[1, 2, np.nan, 9], [0] * 4, [3, 3, 9, 8]]}, r'image 42 has the box \[1.0, 2.0, nan, 9.0\]'),
    ({'scores': [0.9, 0, np.inf]}, 'and the score inf'),
    ({'labels': [0, 0, 3]}, 'image 42 has the label 3, but there are 3 categories'),
  ],
)
def test_wrong_detections_are_named(changes, message):
  with pytest.raises(ValueError, match=message):
    image_results(42, HW, detections(**changes), tuple(CATEGORIES))


@pytest.mark.parametrize('results', [[], RESULTS[:1], RESULTS])
def test_a_file_and_back(tmp_path, ground_truth, results):
  path = tmp_path / 'results.json'
  write_results(path, results)
  assert json.loads(path.read_text()) == read_results(path, ground_truth) == results
  assert [file.name for file in tmp_path.iterdir()] == ['results.json']


@pytest.mark.parametrize('kind, left_out', [('box', 'segmentation'), ('mask', 'bbox')])
def test_a_file_of_boxes_or_of_masks(tmp_path, ground_truth, kind, left_out):
  write_results(tmp_path / 'results.json', RESULTS, kind)
  read = read_results(tmp_path / 'results.json', ground_truth)
  assert read == [{key: value for key, value in result.items() if key != left_out} for result in RESULTS]


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
  path = tmp_path / 'results.json'
  path.write_text('as before')
  with pytest.raises(ValueError, match='JSON'):
    write_results(path, [*RESULTS, {**RESULTS[0], 'score': float('nan')}])
  assert path.read_text() == 'as before' and len(list(tmp_path.iterdir())) == 1


def test_results_of_the_format_pass_pycocotools(tmp_path, ground_truth, capsys):
  """The official reader takes what was written, as it is."""
  from pycocotools.coco import COCO

  (tmp_path / 'annotations.json').write_text(json.dumps(annotated([(42, 3, (1, 2, 5, 4))], IMAGES)))
  write_results(tmp_path / 'results.json', RESULTS, 'mask')
  loaded = COCO(tmp_path / 'annotations.json').loadRes(str(tmp_path / 'results.json'))
  assert [loaded.anns[n]['area'] for n in (1, 2)] == [20, 192]
  assert loaded.anns[1]['bbox'].tolist() == [1, 2, 5, 4]
  capsys.readouterr()


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'image_id': 44}, 'is of image 44, which is not among the 2 to evaluate'),
    ({'image_id': [42]}, r'is of image [42], which is not among the 2 to evaluate'),
    ({'category_id': 4}, 'is of category 4, which is none of the 3 annotated ones'),
    ({'score': 'high'}, "has the score 'high', which is no number"),
    ({'score': True}, 'has the score True, which is no number'),
    ({'bbox': [1, 2, 3]}, 'has the bbox [1, 2, 3], which is not [x, y, width, height]'),
    ({'bbox': [1, 2, 3, '4']}, "has the bbox [1, 2, 3, '4'], which is not"),
    ({'segmentation': [[1, 1, 5, 1, 5, 5]]}, "has a segmentation that is no run-length code {'size'"),
    ({'segmentation': {'size': [12, 16], 'counts': 'ab c'}}, 'has a segmentation that is no run-length code'),
    ({'segmentation': {'size': [12, 16], 'counts': '5'}}, 'has a segmentation that is no run-length code'),
    (
      {'segmentation': {**RESULTS[0]['segmentation'], 'size': [16, 12]}},
      'has a mask of size [16, 12], but its image has [12, 16]',
    ),
    *(
      ({key: None}, f"lacks '{key}'") for key in ('image_id', 'category_id', 'score', 'bbox', 'segmentation')
    ),
  ],
)
def test_a_wrong_result_is_named(tmp_path, ground_truth, changes, message):
  """None stands for a key that is not there."""
  wrong = {key: value for key, value in (RESULTS[1] | changes).items() if value is not None}
  path = tmp_path / 'results.json'
  path.write_text(json.dumps([RESULTS[0], wrong]))
  with pytest.raises(ValueError, match=re.escape(f'results.json: result 1 (from 0) {message}')) as error:
    read_results(path, ground_truth)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'text, message',
  [
    ('[{"image_id": 42, "categ', 'is not a JSON file, or not all of one: '),
    ('', 'is not a JSON file, or not all of one: '),
    ('{"annotations": []}', 'must hold a list of results, but holds an object'),
    ('[42]', r'result 0 \(from 0\) is a number, not an object'),
    ('[{"image_id": 42, "category_id": 3, "score": 1}]', "result 0 .* lacks 'bbox'"),
    ('[{"image_id": 42, "category_id": 3, "score": NaN, "bbox": [0, 0, 1, 1]}]', 'has the score nan'),
  ],
)
def test_a_file_that_holds_no_results(tmp_path, ground_truth, text, message):
  path = tmp_path / 'results.json'
  path.write_text(text)
  with pytest.raises(ValueError, match=f'results.json.* {message}'):
    read_results(path, ground_truth)
  path.write_bytes(b'[\xff]')
  with pytest.raises(ValueError, match='is not a JSON file'):
    read_results(path, ground_truth)
  with pytest.raises(FileNotFoundError):
    read_results(tmp_path / 'none.json', ground_truth)


@pytest.mark.parametrize(
  'text, message',
  [
    ('{"images": [', 'is not a JSON file, or not all of one'),
    ('[]', 'holds no annotations in the format of COCO'),
    ('{"images": []}', "there is no list of 'annotations'"),
  ],
)
def test_an_annotation_file_that_is_none(tmp_path, text, message):
  (tmp_path / 'annotations.json').write_text(text)
  with pytest.raises(ValueError, match=f'annotations.json.* {message}'):
    read_ground_truth(tmp_path / 'annotations.json')


def test_an_annotation_file(tmp_path):
  (tmp_path / 'annotations.json').write_text(json.dumps(annotated([(42, 3, (1, 2, 5, 4))], IMAGES)))
  ground_truth = read_ground_truth(tmp_path / 'annotations.json', [42])
  assert tuple(ground_truth.images) == (42,) and len(ground_truth.annotations) == 1
