"""The set that is made here: what its images show, and its files."""

import json
import types

import numpy as np
import pytest
from PIL import Image

from ctx_flax.data import coco_masks, coco_tiny, coco_tiny_render, prepare
from ctx_flax.data.coco_tiny_outlines import CLASSES, cutouts
from ctx_flax.data.coco_tiny_render import Instance


def settings(path, **changes):
  values = {'name': 'coco_tiny', 'path': str(path), 'train_images': 6, 'test_images': 3, 'split_seed': 0}
  return types.SimpleNamespace(**values | {'max_objects': 9} | changes)


def written(folder):
  return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*.*')}


@pytest.fixture(scope='module')
def examples():
  return [coco_tiny_render.render(0, 'train', index) for index in range(40)]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tiny') / 'set'
  coco_tiny.coco_tiny(settings(folder), 'train')
  return folder


# What the images show.


def test_every_class_has_something_to_cut_out():
  assert [len(cutouts(name)) for name in CLASSES] == [1, 1, 1, 1, 1, 1, 1, 16]
  for name in CLASSES:
    for pixels, mask in cutouts(name):
      assert pixels.shape == (*mask.shape, 3) and set(np.unique(mask)) == {0, 255}
      assert mask.any(axis=0).all() and mask.any(axis=1).all() and (mask > 0).mean() > 0.4
      assert pixels[mask > 0].std() > 15


def test_images_hold_one_to_five_instances_of_all_classes(examples):
  assert {image.shape[:2] for image, _ in examples} == set(coco_tiny_render.SIZES)
  assert {len(instances) for _, instances in examples} == {1, 2, 3, 4, 5}
  assert {instance.label for _, instances in examples for instance in instances} == set(range(8))
  for image, instances in examples:
    assert image.dtype == np.uint8 and image.std() > 10
    masks = np.stack([instance.mask for instance in instances])
    assert masks.sum(axis=0).max() == 1 and masks.sum(axis=(1, 2)).min() >= 80


def test_masks_are_where_the_instances_are(monkeypatch):
  """On a black background, without noise, shading and blending, what is not black is in a mask."""
  monkeypatch.setattr(coco_tiny_render, '_background', lambda rng, h, w: np.zeros((h, w, 3), np.float32))
  monkeypatch.setattr(coco_tiny_render, 'NOISE', 0.0)
  monkeypatch.setattr(coco_tiny_render, 'CONTRAST', (0.0, 0.0))
  monkeypatch.setattr(coco_tiny_render, 'OFFSET', 0.0)
  for index in range(20):
    image, instances = coco_tiny_render.render(3, 'train', index)
    seen = image.max(axis=-1) > 60
    masks = np.any([instance.mask for instance in instances], axis=0)
    assert (seen & masks).sum() > 0.93 * (seen | masks).sum()


def test_images_follow_from_seed_split_and_index(examples):
  image, instances = coco_tiny_render.render(0, 'train', 7)
  np.testing.assert_array_equal(image, examples[7][0])
  assert [instance.label for instance in instances] == [instance.label for instance in examples[7][1]]
  others = [
    coco_tiny_render.render(*place)[0] for place in ((1, 'train', 7), (0, 'test', 7), (0, 'train', 8))
  ]
  assert len({image.tobytes() for image in (image, *others)}) == 4


def test_annotations_say_exactly_what_is_seen(examples):
  """The masks that pycocotools makes of them, parts and holes included; and the boxes."""
  kinds = set()
  for _, instances in examples:
    for instance in instances:
      segmentation = json.loads(json.dumps(instance.segmentation()))
      assert coco_masks.problem(segmentation) == ''
      kinds.add('run lengths' if isinstance(segmentation, dict) else min(len(segmentation), 2))
      mask = coco_masks.decode(segmentation, instance.mask.shape).astype(bool)
      np.testing.assert_array_equal(mask, instance.mask)
      x, y, w, h = instance.box()
      assert instance.mask[y : y + h, x : x + w].sum() == instance.mask.sum()
      part = instance.mask[y : y + h, x : x + w]
      assert part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any()
  assert {1, 2} <= kinds


def test_a_hole_is_written_as_run_lengths():
  mask = np.zeros((20, 20), bool)
  mask[4:16, 4:16] = True
  assert isinstance(Instance(0, mask).segmentation(), list)
  mask[8:10, 8:10] = False
  segmentation = Instance(0, mask).segmentation()
  np.testing.assert_array_equal(coco_masks.decode(segmentation, (20, 20)), mask)
  assert isinstance(segmentation, dict)


# Its files.


def test_the_set_is_read_as_coco_is(root):
  for split, count in (('train', 6), ('test', 3)):
    source = coco_tiny.coco_tiny(settings(root), split)
    assert len(source) == count and source.class_names == CLASSES and source.remarks == ()
    for index in range(count):
      image, instances = coco_tiny_render.render(0, split, index)
      objects = source.objects(index)
      with Image.open(f'{source.root}/{source.name(index)}') as file:
        np.testing.assert_array_equal(np.asarray(file), image)
      assert objects.labels.tolist() == [instance.label for instance in instances]
      masks = objects.masks(np.arange(len(instances)))
      for mask, box, instance in zip(masks, objects.boxes, instances, strict=True):
        x, y, w, h = instance.box()
        np.testing.assert_array_equal(mask, instance.mask)
        assert box.tolist() == [x, y, x + w, y + h]


def test_annotation_ids_count_from_one(root):
  content = json.loads((root / 'annotations/instances_train2017.json').read_text())
  assert [entry['id'] for entry in content['annotations']] == [*range(1, len(content['annotations']) + 1)]
  assert [entry['id'] for entry in content['images']] == [*range(1, 7)]


def test_a_whole_set_is_not_made_again(root, monkeypatch):
  monkeypatch.setattr(coco_tiny_render, 'render', None)
  before = written(root)
  assert len(coco_tiny.coco_tiny(settings(root), 'test')) == 3 and written(root) == before


@pytest.mark.parametrize('moment', ['settings.json', '000003.png', 'instances_train2017.json', '000002.png'])
def test_an_ended_run_is_gone_on_with(root, tmp_path, monkeypatch, moment):
  """Ended when a file is about to get its name; the next run makes the same set and leaves what is there."""
  replace, ended = coco_tiny.os.replace, []

  def end(part, path):
    if path.name == moment and not ended:
      ended.append(path)
      raise KeyboardInterrupt
    replace(part, path)

  monkeypatch.setattr(coco_tiny.os, 'replace', end)
  monkeypatch.setattr(coco_tiny.os, 'cpu_count', lambda: 1)
  with pytest.raises(KeyboardInterrupt):
    coco_tiny.coco_tiny(settings(tmp_path / 'set'), 'train')
  old = {path: path.stat().st_mtime_ns for path in (tmp_path / 'set').rglob('*.png')}
  assert len(coco_tiny.coco_tiny(settings(tmp_path / 'set'), 'train')) == 6
  assert written(tmp_path / 'set') == written(root)
  assert all(path.stat().st_mtime_ns == time for path, time in old.items())


def test_two_runs_at_once_make_the_same_set(root, tmp_path, monkeypatch):
  """The second one starts and ends while the first is about to give a file its name."""
  replace, inner = coco_tiny.os.replace, []

  def replace_later(part, path):
    if path.name == '000002.png' and not inner:
      inner.append(None)
      coco_tiny.coco_tiny(settings(tmp_path / 'set'), 'train')
    replace(part, path)

  monkeypatch.setattr(coco_tiny.os, 'replace', replace_later)
  monkeypatch.setattr(coco_tiny.os, 'cpu_count', lambda: 1)
  coco_tiny.coco_tiny(settings(tmp_path / 'set'), 'train')
  assert written(tmp_path / 'set') == written(root) and inner


def test_the_command_writes_the_same_set(root, tmp_path, capsys):
  prepare.main(['coco_tiny', str(tmp_path / 'a set'), '--train_images=6', '--test_images=3'])
  assert written(tmp_path / 'a set') == written(root)
  assert f"--config.data.name=coco '--config.data.path={tmp_path}/a set'" in capsys.readouterr().out


def test_folders_of_something_else_are_left_alone(root, tmp_path):
  (tmp_path / 'mine.txt').touch()
  with pytest.raises(ValueError, match=r'^data\.path: .* holds other files: give a new or an empty folder$'):
    coco_tiny.coco_tiny(settings(tmp_path), 'train')
  before = written(root)
  for changes in ({'split_seed': 1}, {'train_images': 7}, {'test_images': 1}):
    with pytest.raises(ValueError, match=r'^data\.path: .* holds a set of other settings'):
      coco_tiny.coco_tiny(settings(root, **changes), 'train')
  assert written(root) == before


def test_without_a_path_the_folder_is_in_the_cache_by_its_settings(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  image = np.zeros((64, 64, 3), np.uint8), [Instance(0, np.ones((64, 64), bool))]
  monkeypatch.setattr(coco_tiny_render, 'render', lambda seed, split, index: image)
  roots = {
    coco_tiny.coco_tiny(settings('', **changes), 'train').root
    for changes in ({}, {'split_seed': 1}, {'train_images': 2}, {'test_images': 2})
  }
  monkeypatch.setattr(coco_tiny_render, 'NOISE', 30)
  roots.add(coco_tiny.coco_tiny(settings(''), 'train').root)
  assert len(roots) == 5
  assert all(root.startswith(f'{tmp_path}/.cache/ctx_flax/coco_tiny-') for root in roots)


@pytest.mark.parametrize('option, value', [('train_images', 0), ('test_images', -1)])
def test_wrong_settings_are_told(tmp_path, option, value):
  with pytest.raises(ValueError, match=f'^data.{option} must be 1 or more, but is {value}$'):
    coco_tiny.coco_tiny(settings(tmp_path, **{option: value}), 'train')
  with pytest.raises(SystemExit, match=f'^error: --{option} must be 1 or more, but is {value}$'):
    prepare.main(['coco_tiny', str(tmp_path / 'new'), f'--{option}={value}'])
  assert not list(tmp_path.iterdir())
