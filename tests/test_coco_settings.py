"""Where COCO's files are said to be, what a run is told of them, and what is refused."""

import shutil
import sys

import pytest
from coco_files import CATEGORIES, SOUND, SOUND_SIZES, open_source, settings_at, write_coco

from ctx_flax.data import detection_sources


@pytest.fixture
def data(tmp_path):
  return settings_at(tmp_path)


def test_files_elsewhere_are_named_by_fields(data, tmp_path):
  write_coco(tmp_path, SOUND_SIZES, SOUND, 'mine')
  shutil.move(tmp_path / 'annotations/instances_mine.json', tmp_path / 'labels.json')
  data.update(train_split='mine', train_annotations='labels.json')
  assert len(open_source(data)) == 3
  data.train_annotations = str(tmp_path / 'labels.json')
  assert len(open_source(data)) == 3
  data.train_annotations = 'gone.json'
  with pytest.raises(FileNotFoundError, match=r'gone\.json is not a file; data\.train_annotations names it$'):
    open_source(data)


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'path': ''}, r'^data\.path is empty: coco needs a folder with annotations/instances_train2017\.json'),
    ({'path': '/none'}, r'^data\.path is /none, which is not a folder'),
    ({'train_split': 'train2071'}, r"train2071\.json is not a file; data\.train_split or .* 'train2017'\?$"),
    ({'train_annotations': 'annotations/instances_train2017.json', 'train_split': 'images'}, r'not a folder'),
    ({'name': 'coko'}, r"^unknown data\.name 'coko'; known: coco, coco_tiny; did you mean 'coco'\?$"),
    ({'name': 'digits'}, r"^unknown data\.name 'digits'; .*; it has no boxes and masks$"),
  ],
)
def test_what_is_not_there_is_told(data, tmp_path, changes, message):
  write_coco(tmp_path, SOUND_SIZES, SOUND)
  data.update(changes)
  with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
    open_source(data)
  assert '\n' not in str(raised.value)


def test_other_categories_are_refused(data, tmp_path):
  write_coco(tmp_path, SOUND_SIZES, SOUND)
  write_coco(tmp_path, SOUND_SIZES, SOUND, 'val2017')
  detection_sources.check_categories(open_source(data), open_source(data, 'test'))
  others = [{'id': number, 'name': name} for number, name in CATEGORIES if number != 3]
  write_coco(tmp_path, SOUND_SIZES, SOUND[:1], 'val2017', categories=others)
  with pytest.raises(
    ValueError, match=r'^category 3 is dog in .*train2017\.json and none in .*val2017\.json'
  ):
    detection_sources.check_categories(open_source(data), open_source(data, 'test'))


def test_a_run_is_told_what_it_learns_from(data, tmp_path):
  write_coco(tmp_path, SOUND_SIZES, SOUND)
  write_coco(tmp_path, SOUND_SIZES, SOUND, 'val2017', missing=(3,))
  lines = detection_sources.describe(open_source(data), open_source(data, 'test'))
  assert lines[0] == '3 training images, 2 test images, 3 classes, 4 objects to train on' and len(lines) == 2


def test_pycocotools_is_asked_for(data, tmp_path, monkeypatch):
  write_coco(tmp_path, SOUND_SIZES, SOUND)
  monkeypatch.setitem(sys.modules, 'pycocotools', None)
  message = r'^COCO masks need pycocotools, which is not installed: pip install "ctx-flax\[detection\]"$'
  with pytest.raises(ImportError, match=message):
    open_source(data)
