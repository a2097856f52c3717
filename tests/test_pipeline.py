"""Batches follow from the seed and the step alone, use every image equally often, and survive bad files."""

import contextlib
import dataclasses
import errno
import multiprocessing
import os
import signal
import subprocess
import sys
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest
from PIL import Image

from ctx_flax.configs import default
from ctx_flax.data import elements, pipeline, sources, transforms
from ctx_flax.data.decode import BadImage
from ctx_flax.data.digits import ArraySource

IMAGES = 50  # in the folder of JPEGs; grain takes milliseconds to shuffle much fewer


@dataclasses.dataclass(frozen=True)
class Numbered:
  """Images that show their index, which is their label too; `bad` ones cannot be read, for two reasons."""

  length: int = 10
  bad: tuple[int, ...] = ()

  def __len__(self):
    return self.length

  def __getitem__(self, index):
    if index in self.bad:
      raise BadImage('cut short') if index % 2 else OSError(errno.EIO, os.strerror(errno.EIO))
    return {'image': np.full((4, 4, 1), index, np.uint8), 'label': index}

  def name(self, index):
    return f'{index}.png'


@pytest.fixture
def config():
  """Pixels keep their values, 0 to 255; no thread but the main one, so that nothing is made ahead."""
  config = default.get_config()
  config.train.batch_size = 6
  config.eval.update(batch_size=4, crop_ratio=1.0)
  config.data.update(image_size=4, mean=(0.0,), std=(1 / 255,), threads=0)
  return config


@pytest.fixture(scope='module')
def jpegs(tmp_path_factory):
  """A folder as ImageNet's: two classes of JPEGs of different sizes, gray ones among them."""
  root, rng = tmp_path_factory.mktemp('jpegs'), np.random.default_rng(0)
  for i in range(IMAGES):
    folder = root / 'train' / f'n{i % 2}'
    folder.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (5 + i % 3, 6, 3), np.uint8)
    image = Image.fromarray(pixels).resize((40 + i % 14, 30 + 2 * (i % 14)), Image.Resampling.BICUBIC)
    (image.convert('L') if i % 5 == 4 else image).save(folder / f'{i}.jpg')
  (root / 'val').symlink_to('train')
  return root


@pytest.fixture
def full(config, jpegs):
  """The whole augmentation of the ConvNeXt recipe, in batches of 12 of the 50 JPEGs."""
  config.train.batch_size = 12
  config.data.update(name='image_folder', path=str(jpegs), image_size=24)
  config.data.update(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
  config.data.update(crop_scale=(0.08, 1.0), flip=0.5, erasing=0.25, mixup=0.8, cutmix=1.0)
  config.data.rand_augment.operations = 2
  return config


def train(source, config, n, *place):
  with contextlib.closing(pipeline.train_batches(source, config, *place)) as batches:
    return [next(batches) for _ in range(n)]


def evaluate(source, config, *place):
  with contextlib.closing(pipeline.eval_batches(source, config, *place)) as batches:
    return list(batches)


def opened(config, split='train'):
  return sources.open_source(config.data, split)


def assert_same(found, expected):
  assert len(found) == len(expected)
  for a, b in zip(found, expected, strict=True):
    assert a.keys() == b.keys()
    for name in a:
      np.testing.assert_array_equal(a[name], b[name], strict=True, err_msg=name)


def column(batches, name):
  return np.concatenate([batch[name] for batch in batches])


def have_ended(workers):
  """Those that were told to; a killed process takes a moment to go."""
  workers = list(workers)
  for worker in workers:
    worker.join(10)
  return not any(worker.is_alive() for worker in workers)


def joined(parts):
  """Batches of which several processes made a part each."""
  return [
    {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    for batches in zip(*parts, strict=True)
  ]


def test_every_epoch_has_every_image_once_in_an_order_of_its_own(config):
  """Six epochs of ten images in ten batches: most hold the end of one and the start of the next."""
  batches = train(Numbered(), config, 10)
  epochs = column(batches, 'label').reshape(6, 10)
  np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(10), (6, 1)))
  assert len({tuple(epoch) for epoch in epochs}) == 6
  np.testing.assert_array_equal(column(batches, 'image')[:, 0, 0, 0], epochs.ravel())
  config.seed = 1
  assert not np.array_equal(column(train(Numbered(), config, 10), 'label').reshape(6, 10), epochs)


def test_types_and_shapes_are_those_that_are_documented(full):
  (batch,) = train(opened(full), full, 1)
  assert {name: (x.dtype.name, x.shape) for name, x in batch.items()} == {
    'image': ('float32', (12, 24, 24, 3)),
    'label': ('int32', (12,)),
    'weight': ('float32', (12,)),
    'bad': ('int32', (12,)),
    'other_label': ('int32', (12,)),
    'lam': ('float32', (12,)),
  }
  assert batch['weight'].tolist() == [1] * 12 and batch['bad'].tolist() == [-1] * 12
  full.data.update(mixup=0.0, cutmix=0.0)
  (batch,) = train(opened(full), full, 1)
  assert sorted(batch) == ['bad', 'image', 'label', 'weight']


def test_the_whole_augmentation_follows_from_seed_and_step(full):
  batches = train(opened(full), full, 4)
  assert_same(train(opened(full), full, 4), batches)
  assert len({batch['image'].tobytes() for batch in batches}) == 4
  full.seed = 1
  for batch, other in zip(batches, train(opened(full), full, 4), strict=True):
    assert not np.array_equal(batch['image'], other['image'])
    assert not np.array_equal(batch['lam'], other['lam'])


@pytest.mark.parametrize(
  'change',
  [
    {'crop_scale': ()},
    {'flip': 0.0},
    {'rotate': 10.0},
    {'rand_augment.operations': 0},
    {'erasing': 0.0},
    {'mixup': 0.0},
    {'cutmix': 0.0},
    {'mix_probability': 0.0},
    {'mix_switch': 0.0},
    {'mix_switch': 1.0},
    {'crop_aspect': (1.0, 1.0)},
    {'rand_augment.magnitude': 1.0},
    {'rand_augment.magnitude_std': 0.0},
    {'rand_augment.probability': 1.0},
    {'mean': (0.5,)},
  ],
  ids=lambda change: next(iter(change)),
)
def test_every_setting_of_the_augmentation_changes_batches(full, change):
  """Ten of them: some are mixed by mixup and some by cutmix."""
  full.train.batch_size = 4
  source = opened(full)
  before = column(train(source, full, 10), 'image')
  full.data.update_from_flattened_dict(change)
  assert not np.array_equal(column(train(source, full, 10), 'image'), before)


def test_augmentation_differs_between_epochs_and_images(full):
  """Ten epochs of six times the same image: no two of 60 crops are the same."""
  full.train.batch_size = 6
  full.data.update(mixup=0.0, cutmix=0.0)
  image = np.random.default_rng(0).integers(0, 256, (1, 40, 40, 3), np.uint8)
  same = ArraySource(image.repeat(6, 0), np.arange(6), tuple('012345'))
  images = column(train(same, full, 10), 'image')
  assert len({image.tobytes() for image in images}) == 60


@pytest.mark.parametrize('threads', [1, 3])
def test_batches_do_not_depend_on_the_number_of_threads(full, threads):
  source = opened(full)
  batches, tests = train(source, full, 5), evaluate(source, full)
  full.data.threads = threads
  assert_same(train(source, full, 5), batches)
  assert_same(evaluate(source, full), tests)


@pytest.mark.parametrize('workers', [1, 2])
def test_batches_do_not_depend_on_worker_processes(full, workers):
  """From a step other than 0; in memory of their own, through signals to workers, which end when closed."""
  source = opened(full)
  batches = train(source, full, 7, 2)
  full.data.update(threads=1, workers=workers)
  before = set(multiprocessing.active_children())
  found = pipeline.train_batches(source, full, 2)
  # One batch of each: only then have all of them started.
  taken = [next(found) for _ in range(workers)]
  started = set(multiprocessing.active_children()) - before
  assert len(started) == workers
  for worker in started:
    os.kill(worker.pid, signal.SIGINT)
    os.kill(worker.pid, signal.SIGTERM)
  taken += [next(found) for _ in range(7 - workers)]
  assert_same(taken, batches)
  assert all(x.flags.owndata for batch in taken for x in batch.values())
  found.close()
  assert have_ended(started)
  for index in range(100):
    with pytest.raises(FileNotFoundError):
      SharedMemory(f'{found._prefix}-{index}')


def test_evaluation_in_worker_processes_sees_every_image_once_too(full):
  """Their number does not divide that of the batches."""
  source = opened(full)
  tests = evaluate(source, full)
  full.data.workers = 2
  assert len(tests) == 13
  assert_same(evaluate(source, full), tests)


def test_a_worker_ends_with_its_parent(jpegs):
  """The pipe to a killed process stays open as long as a child has it."""
  program = f"""
import os, signal
from ctx_flax.configs import default
from ctx_flax.data import pipeline, sources
if __name__ == '__main__':
  config = default.get_config()
  config.data.update(name='image_folder', path={str(jpegs)!r}, workers=1, image_size=8)
  config.train.batch_size = 2
  batches = pipeline.train_batches(sources.open_source(config.data, 'train'), config)
  next(batches)
  print('started', flush=True)
  os.kill(os.getpid(), signal.SIGKILL)
"""
  root = os.path.dirname(os.path.dirname(os.path.abspath(pipeline.__file__)))
  environment = os.environ | {'PYTHONPATH': os.pathsep.join([os.path.dirname(root), *sys.path])}
  run = subprocess.run(
    [sys.executable, '-c', program], env=environment, capture_output=True, text=True, timeout=100
  )
  assert (run.stdout, run.returncode) == ('started\n', -signal.SIGKILL), run.stderr


def test_batches_from_a_step_are_those_of_the_whole_run(full):
  """The fifth and the ninth hold the end of an epoch and the start of the next."""
  source = opened(full)
  whole = train(source, full, 9)
  for start in (1, 4, 5, 8):
    assert_same(train(source, full, 9 - start, start), whole[start:])


@pytest.mark.parametrize('processes', [2, 3])
def test_processes_make_the_rows_of_one_batch(full, processes):
  """Mixed as the whole would have been: the parts are even."""
  source = opened(full)
  parts = [train(source, full, 5, 3, process, processes) for process in range(processes)]
  whole = train(source, full, 5, 3)
  assert_same(joined(parts), whole)
  assert len(np.unique(column(whole, 'lam'))) == 5


@pytest.mark.parametrize('length', [8, 9, 12])
def test_processes_make_the_rows_of_one_test(config, length):
  """As many batches each, also where the last one of a process only fills up."""
  parts = [evaluate(Numbered(length), config, process, 2) for process in range(2)]
  assert_same(joined(parts), evaluate(Numbered(length), config))


@pytest.mark.parametrize(
  ('make', 'field'), [(pipeline.train_batches, 'train'), (pipeline.eval_batches, 'eval')]
)
def test_processes_that_cannot_share_a_batch_are_refused(config, make, field):
  size = config[field].batch_size
  with pytest.raises(ValueError, match=f'{field}.batch_size is {size}: it must be a multiple of the 5 proc'):
    make(Numbered(), config, process=0, processes=5)
  with pytest.raises(ValueError, match='process must be between 0 and 1, but is 2'):
    make(Numbered(), config, process=2, processes=2)


def test_mixing_refuses_odd_parts(full):
  with pytest.raises(ValueError, match='a process has 3 of a batch'):
    train(opened(full), full, 1, 0, 0, 4)


@pytest.mark.parametrize('threads', [0, 2])
def test_evaluation_sees_every_image_once_and_fills_up(config, threads):
  config.data.threads = threads
  batches = evaluate(Numbered(10), config)
  assert [batch['image'].shape for batch in batches] == [(4, 4, 4, 3)] * 3
  assert column(batches, 'weight').tolist() == [1] * 10 + [0] * 2
  assert column(batches, 'label').tolist() == [*range(10), 0, 0]
  assert column(batches, 'image')[:, 1, 2, 1].tolist() == [*range(10), 0, 0]
  assert column(batches, 'bad').tolist() == [-1] * 12


def test_evaluation_is_the_eval_transform_of_every_image(full):
  source = opened(full, 'test')
  batches, transform = evaluate(source, full), transforms.eval_transform(full)
  for i in range(IMAGES):
    np.testing.assert_array_equal(column(batches, 'image')[i], transform(source[i]))
    assert column(batches, 'label')[i] == source[i]['label'] == i // 25


def test_evaluation_of_fewer_images_than_a_batch(config):
  (batch,) = evaluate(Numbered(3), config)
  assert batch['label'].tolist() == [0, 1, 2, 0] and batch['weight'].tolist() == [1, 1, 1, 0]


def test_a_bad_image_is_replaced_by_the_next_good_one_and_marked(config):
  """3 and 4 by 5, and the last by the first; all others stand in their places as if nothing were wrong."""
  stands_in = {3: 5, 4: 5, 9: 0}
  good, found = train(Numbered(), config, 10), train(Numbered(bad=tuple(stands_in)), config, 10)
  wanted, label, bad = column(good, 'label'), column(found, 'label'), column(found, 'bad')
  assert label.tolist() == [stands_in.get(index, index) for index in wanted]
  assert bad.tolist() == [index if index in stands_in else -1 for index in wanted]
  np.testing.assert_array_equal(column(found, 'image')[:, 0, 0, 0], label)
  assert column(found, 'weight').min() == 1


@pytest.mark.parametrize('batch_size', [4, 12])
def test_evaluation_leaves_bad_images_out(config, batch_size):
  config.eval.batch_size = batch_size
  batches = evaluate(Numbered(10, bad=(3, 4)), config)
  assert column(batches, 'weight').tolist() == [1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 0, 0]
  assert column(batches, 'bad').tolist() == [-1, -1, -1, 3, 4, -1, -1, -1, -1, -1, -1, -1]
  np.testing.assert_array_equal(column(batches, 'image')[3:5], np.zeros((2, 4, 4, 3), np.float32))


@pytest.mark.parametrize('run', [lambda *a: train(*a, 10), lambda *a: evaluate(*a)], ids=['train', 'eval'])
@pytest.mark.parametrize(('index', 'reason'), [(3, 'cut short'), (4, os.strerror(errno.EIO))])
@pytest.mark.parametrize('threads', [0, 2])
def test_a_bad_image_can_be_an_error(config, run, index, reason, threads):
  config.data.update(on_bad_image='error', threads=threads)
  with pytest.raises(BadImage) as caught:
    run(Numbered(bad=(index,)), config)
  message = f'{index}.png cannot be read: {reason}; data.on_bad_image=skip goes on without it'
  assert str(caught.value) == message


def test_many_bad_images_in_a_row_are_an_error(config, monkeypatch):
  with pytest.raises(BadImage, match=r'10 images in a row from \d\.png on cannot be read: check data.path'):
    train(Numbered(bad=tuple(range(10))), config, 1)
  monkeypatch.setattr(elements, 'BAD_IN_A_ROW', 3)
  assert 6 in column(train(Numbered(bad=(4, 5)), config, 10), 'label')
  with pytest.raises(BadImage, match=r'3 images in a row from 4\.png on'):
    train(Numbered(bad=(4, 5, 6)), config, 10)
  # A test counts what it has.
  assert column(evaluate(Numbered(bad=tuple(range(9))), config), 'weight').sum() == 1


def test_a_file_that_is_deleted_or_damaged_meanwhile_is_a_bad_image(config, tmp_path):
  config.data.update(name='image_folder', path=str(tmp_path))
  for i in range(6):
    (tmp_path / 'train' / 'a').mkdir(parents=True, exist_ok=True)
    # Steep enough that JPEG keeps it.
    image = Image.linear_gradient('L').resize((40 + i, 40))
    image.save(tmp_path / 'train' / 'a' / f'{i}.jpg')
  source = opened(config)
  with contextlib.closing(pipeline.train_batches(source, config)) as batches:
    assert next(batches)['bad'].tolist() == [-1] * 6
    gone, cut = tmp_path / 'train' / 'a' / '2.jpg', tmp_path / 'train' / 'a' / '4.jpg'
    content, whole = gone.read_bytes(), cut.read_bytes()
    gone.unlink()
    cut.write_bytes(whole[: len(whole) - 40])
    for _ in range(3):
      batch = next(batches)
      assert sorted(batch['bad']) == [-1, -1, -1, -1, 2, 4] and batch['weight'].min() == 1
  assert column(evaluate(source, config), 'weight').tolist() == [1, 1, 0, 1, 0, 1, 0, 0]
  name = os.path.join('train', 'a', '2.jpg')
  assert pipeline.describe_bad(source, 2, config) == f'{name}: {os.strerror(errno.ENOENT)}'
  assert 'truncated' in pipeline.describe_bad(source, 4, config)
  gone.write_bytes(content)
  assert pipeline.describe_bad(source, 2, config) == f'{name}: can be read now'


def test_a_bad_image_in_a_worker_process_is_told_by_name(full, tmp_path):
  (tmp_path / 'train' / 'a').mkdir(parents=True)
  (tmp_path / 'train' / 'a' / 'empty.jpg').touch()
  full.data.update(path=str(tmp_path), workers=1, on_bad_image='error')
  with pytest.raises(BadImage, match=r'empty\.jpg cannot be read: .*data.on_bad_image=skip'):
    evaluate(opened(full), full)
  assert have_ended(child for child in multiprocessing.active_children() if 'grain' in child.name)


@pytest.mark.parametrize(
  ('path', 'value', 'message'),
  [
    ('train.batch_size', 0, 'train.batch_size must be 1 or more, but is 0'),
    ('eval.batch_size', -4, 'eval.batch_size must be 1 or more, but is -4'),
    ('data.threads', -1, 'data.threads must be 0 or more, but is -1'),
    ('data.workers', -2, 'data.workers must be 0 or more, but is -2'),
    ('data.prefetch', -1, 'data.prefetch must be 0 or more, but is -1'),
    ('data.on_bad_image', 'ignore', "data.on_bad_image must be one of .*'skip', 'error'.* is 'ignore'"),
    ('seed', -1, r'seed must be between 0 and 2\*\*32 - 1, but is -1'),
    ('seed', 2**32, r'seed must be between 0 and 2\*\*32 - 1, but is 4294967296'),
    ('data.mean', (0.1, 0.2), 'data.mean must hold 1 or 3 values'),
  ],
)
@pytest.mark.parametrize('make', [pipeline.train_batches, pipeline.eval_batches])
def test_wrong_settings_are_named(config, make, path, value, message):
  config.update_from_flattened_dict({path: value})
  with pytest.raises(ValueError, match=message):
    make(Numbered(), config)
