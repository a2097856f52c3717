"""Batches for a task of another kind: the machinery knows neither images nor labels."""

import contextlib
import dataclasses
import re

import numpy as np
import pytest

from configs import default
from ctx_flax.data import batches
from ctx_flax.data.decode import BadImage
from ctx_flax.data.elements import EvalElement, TrainElement


@dataclasses.dataclass(frozen=True)
class Colours:
  """Ten coloured images, of which some cannot be read."""

  bad: tuple[int, ...] = ()

  num_classes = 0
  class_names = ()

  def __len__(self):
    return 10

  def __getitem__(self, index):
    if index in self.bad:
      raise BadImage('cut short')
    return {'image': np.full((4, 6, 3), (index, 2 * index, 3 * index), np.uint8)}

  def name(self, index):
    return f'{index}\n.jpg'


# The rows of a task that learns the mean colour of an image from its pixels.


def mean_colour(element, rng=None):
  flip = rng is not None and rng.random() < 0.5
  image = element['image'].astype(np.float32)
  return {'clip': image[None, :, ::-1] if flip else image[None], 'colour': image.mean((0, 1))}


def no_colour():
  return {'clip': np.zeros((1, 4, 6, 3), np.float32), 'colour': np.zeros(3, np.float32)}


@pytest.fixture
def config():
  config = default.get_config()
  config.train.batch_size, config.eval.batch_size = 6, 4
  config.data.threads = 0
  return config


def taken(iterator, number=None):
  with contextlib.closing(iterator):
    return [next(iterator) for _ in range(number)] if number else list(iterator)


def column(made, name):
  return np.concatenate([batch[name] for batch in made])


def test_rows_of_any_kind_in_training(config):
  element = TrainElement(Colours(), mean_colour, 'skip')
  made = taken(batches.train_batches(element, 10, config), 5)
  assert {name: (x.dtype.name, x.shape) for name, x in made[0].items()} == {
    'clip': ('float32', (6, 1, 4, 6, 3)),
    'colour': ('float32', (6, 3)),
    'weight': ('float32', (6,)),
    'bad': ('int32', (6,)),
  }
  epochs = column(made, 'colour')[:, 0].reshape(3, 10)
  np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(10), (3, 1)))
  later = taken(batches.train_batches(element, 10, config, 3), 2)
  np.testing.assert_array_equal(column(later, 'colour'), column(made[3:], 'colour'))
  parts = [taken(batches.train_batches(element, 10, config, 0, part, 2), 1)[0] for part in range(2)]
  np.testing.assert_array_equal(np.concatenate([part['colour'] for part in parts]), made[0]['colour'])


def test_rows_of_any_kind_in_evaluation(config):
  element = EvalElement(Colours(bad=(3,)), mean_colour, no_colour, 'skip')
  made = taken(batches.eval_batches(element, 10, config))
  assert column(made, 'colour')[:, 2].tolist() == [0, 3, 6, 0, 12, 15, 18, 21, 24, 27, 0, 0]
  assert column(made, 'weight').tolist() == [1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 0, 0]
  assert column(made, 'bad').tolist() == [-1] * 3 + [3] + [-1] * 8
  part = taken(batches.eval_batches(element, 10, config, 1, 2, start=1))
  np.testing.assert_array_equal(part[0]['colour'], made[1]['colour'][2:])


def test_a_batch_can_be_mixed(config):
  """By a generator that follows from the step."""
  halve = lambda batch, rng: batch | {'share': rng.random(len(batch['colour']))}
  element = TrainElement(Colours(), mean_colour, 'skip')
  made = taken(batches.train_batches(element, 10, config, mix=halve), 4)
  assert len(np.unique(column(made, 'share'))) == 24
  later = taken(batches.train_batches(element, 10, config, 2, mix=halve), 2)
  np.testing.assert_array_equal(column(later, 'share'), column(made[2:], 'share'))


def test_messages_about_elements_are_one_line(config):
  """Whatever they are called; and they say why the first could not be read."""
  for on_bad_image, bad, message in (
    ('error', (4,), r'4\\n\.jpg cannot be read: cut short; data\.on_bad_image=skip goes on without it'),
    ('skip', range(10), r'10 images in a row from \d\\n\.jpg on .*: check data\.path; the first: cut short'),
  ):
    element = TrainElement(Colours(bad=tuple(bad)), mean_colour, on_bad_image)
    with pytest.raises(BadImage) as caught:
      taken(batches.train_batches(element, 10, config), 2)
    assert re.fullmatch(message, str(caught.value))


@pytest.mark.parametrize('path, value', [('seed', -1), ('data.workers', -1), ('train.batch_size', 0)])
def test_wrong_settings_are_named(config, path, value):
  config.update_from_flattened_dict({path: value})
  with pytest.raises(ValueError, match=f'{path} must be .*, but is {value}'):
    batches.train_batches(TrainElement(Colours(), mean_colour, 'skip'), 10, config)
