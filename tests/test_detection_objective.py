"""The objective of a detector: what is drawn and counted does not depend on how a batch is laid out."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from steps import assert_trees_close, keep_gradients
from toy_detector import ToyDetector, initial_params, random_batch

from ctx_flax.configs.fields import detector_training
from ctx_flax.tasks.detection.objective import objective
from ctx_flax.training import parallel, state, step

MODEL = ToyDetector()
TX = keep_gradients()
PARAMS = initial_params(MODEL)
IMAGES = random_batch()


def settings(seed=3, **changes):
  """Draws of few boxes, so that they leave some out."""
  config = ml_collections.ConfigDict()
  detector_training.add_fields(config)
  config.assignment.update(region_iou=(0.4, 0.5), anchor_iou=(0.2, 0.4), anchor_best=0.2)
  config.sampling.update(anchors=24, anchor_positives=6, regions=10, region_positives=4)
  config.loss.update(stage_weights=(1.0, 0.5), box='giou', box_weight=10.0)
  config.model = {'name': 'cascade_mask_rcnn'}
  config.data = {'mean': (0.5,), 'std': (0.2,)}
  config.seed = seed
  config.train = {'ema_decay': 0.0, 'accumulation': 1, 'on_nan': 'stop'}
  config.train.update(changes)
  return config


@functools.cache
def program(devices, parts):
  """(state, sharded batch) -> the state after a step, with the gradients, and its terms."""
  config = settings(accumulation=parts)
  run = step.make_train_step(objective(config, MODEL), TX, config)
  return parallel.pmap_train_step(run, jax.devices()[:devices])


def gradients(batch, devices=1, parts=1, number=5):
  """(gradients, {name: (sum, count)}) of step `number` on so many devices."""
  chosen = jax.devices()[:devices]
  now = state.create_state({'params': PARAMS}, TX, ema=False).replace(step=jnp.int32(number))
  run = program(devices, parts)
  after, terms = parallel.fetch(run(parallel.replicate(now, chosen), parallel.shard_batch(batch, chosen)))
  return after.opt_state, terms


@pytest.fixture(scope='module')
def whole():
  return gradients(IMAGES)


def test_every_loss_and_parameter_takes_part(whole):
  of_parameters, terms = whole
  metrics = {'accuracy0', 'accuracy1', 'positives0', 'positives1'}
  assert set(terms) == set(objective(settings(), MODEL).weights) | metrics
  for name, (total, count) in terms.items():
    assert np.isfinite(total) and count > 0, name
    assert total > 0 or name.startswith('accuracy'), name
  assert all(np.isfinite(g).all() and g.any() for g in jax.tree.leaves(of_parameters))
  assert terms['class0'][1] == terms['box1'][1] == 4 * 10  # regions of four images


@pytest.mark.slow
def test_devices_neighbours_parts_and_places_change_nothing(whole):
  """Two devices, two parts on each, in another order, with more places for objects."""
  batch = {name: value[np.array([2, 0, 3, 1])] for name, value in IMAGES.items()}
  for name in ('boxes', 'labels', 'masks'):
    places = ((0, 0), (0, 4), *((0, 0),) * (batch[name].ndim - 2))
    batch[name] = np.pad(batch[name], places, constant_values=-1 if name == 'labels' else 0)
  for actual, expected in zip(gradients(batch, devices=2, parts=2), whole, strict=True):
    assert_trees_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_rows_that_only_fill_add_nothing(whole):
  """What is left is the rest: both halves add up to the whole."""
  halves = [
    gradients(IMAGES | {'weight': np.array(weight, np.float32)})[1] for weight in ([1, 0, 1, 0], [0, 1, 0, 1])
  ]
  assert_trees_close(jax.tree.map(jnp.add, *halves), whole[1], rtol=1e-5, atol=1e-5)


def test_what_is_drawn_depends_on_the_step_and_the_image(whole):
  changed = gradients(IMAGES, number=6), gradients(IMAGES | {'index': IMAGES['index'] + 1})
  for name in ('rpn_class', 'class0', 'class1', 'mask0'):
    assert len({float(terms[name][0]) for _, terms in (whole, *changed)}) == 3, name


def test_a_batch_without_objects_learns_what_is_background():
  batch = IMAGES | {'labels': np.full_like(IMAGES['labels'], -1)}
  of_parameters, terms = gradients(batch)
  for name, (total, _) in terms.items():
    background = name.startswith(('rpn_class', 'class'))
    assert (total > 0) == background or name.startswith('accuracy'), name
  assert terms['mask0'] == (0, 0) and terms['rpn_class'][1] == 4 * (1 + 24)
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(of_parameters))


def test_what_does_not_fit_is_named():
  with pytest.raises(
    ValueError, match=r'cascade_mask_rcnn has 1 stages, but loss\.stage_weights=\(1\.0, 0\.5\)'
  ):
    objective(settings(), ToyDetector(stages=1))
  terms = objective(settings(), MODEL).terms
  with pytest.raises(ValueError, match=r"\['index', 'masks'\] is missing"):
    terms(PARAMS, {}, {name: x for name, x in IMAGES.items() if name not in ('index', 'masks')}, None, 0)
  with pytest.raises(ValueError, match=r'boxes has shape \(4, 0, 4\): expected a place'):
    terms(PARAMS, {}, IMAGES | {'boxes': IMAGES['boxes'][:, :0]}, None, 0)
