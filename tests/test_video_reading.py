"""What stages decide about clips: several decisions together, their losses, and tests of several views."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clip_runs import clip_run_config
from initial_values import initial_values, moved

from ctx_flax.data import transforms
from ctx_flax.models import create_model
from ctx_flax.tasks.classification import metrics
from ctx_flax.tasks.classification.networks import model_keywords
from ctx_flax.tasks.video import reading
from ctx_flax.tasks.video.task import TASK

LABELS, WEIGHTS = np.array([0, 2]), np.ones(2, np.float32)


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def decisions(alive):
  """Of two clips, three decisions each between three classes; one stage."""
  scores = np.random.default_rng(0).normal(size=(2, 3, 3)).astype(np.float32)
  logits = np.where(alive, scores, -np.inf)
  return {'scores1': scores, 'logits1': logits, 'alive1': alive, 'considered1': alive}


def test_probabilities_are_averaged_and_what_all_exclude_stays_out():
  alive = np.ones((2, 3, 3), bool)
  alive[0, 0, 1] = False  # one decision excludes a class, and counts as probability 0
  alive[1, :, 0] = False
  out = decisions(alive)
  together = reading.together(out)
  expected = softmax(out['logits1']).mean(1)
  np.testing.assert_allclose(np.exp(together['scores1']), expected, rtol=1e-5)
  np.testing.assert_array_equal(together['alive1'], [[True] * 3, [False, True, True]])
  scores = reading.together(out, 'scores')['scores1']
  np.testing.assert_allclose(scores, out['scores1'].mean(1), rtol=1e-6)


def test_recall_is_a_share_of_decisions():
  alive = np.ones((2, 3, 3), bool)
  out = decisions(alive) | {name.replace('1', '2'): v for name, v in decisions(alive).items()}
  out['considered2'] = alive.copy()
  out['considered2'][0, 0, 0] = False  # the label of the first clip, in one of three decisions
  _, measured = reading.decided(out, jnp.asarray(LABELS), jnp.asarray(WEIGHTS))
  total, count = measured['recall2']
  assert float(total / count) == pytest.approx(5 / 6) and float(count) == pytest.approx(2)


def test_labels_of_frames_are_those_of_their_clips():
  batch = {'label': jnp.asarray(LABELS), 'weight': jnp.asarray([1.0, 0.0]), 'image': None}
  out, rows = reading.each_frame(decisions(np.ones((2, 3, 3), bool)), batch, 3)
  assert out['scores1'].shape == (6, 3)
  np.testing.assert_array_equal(rows['label'], [0, 0, 0, 2, 2, 2])
  np.testing.assert_array_equal(rows['weight'], [1, 1, 1, 0, 0, 0])


def test_bytes_are_normalised_as_images_are():
  pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4, 3), dtype=np.uint8)
  mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
  found = reading.normalised(jnp.asarray(pixels), mean, std)
  np.testing.assert_allclose(found, transforms.normalise(pixels, mean, std), rtol=1e-5, atol=1e-6)
  floats = jnp.ones((1, 2, 4, 4, 3))
  assert reading.normalised(floats, mean, std) is floats


@functools.cache
def network(argument):
  """(config, model, variables, compiled model.apply of two clips)."""
  config = clip_run_config('nowhere', argument)
  model = create_model(**model_keywords(config, 8))
  variables = moved(initial_values(model, model.example_shape(32)), 0.1)
  return config, model, variables, jax.jit(lambda clips: model.apply(variables, clips, train=False))


@pytest.mark.parametrize('argument', [pytest.param('', marks=pytest.mark.slow), 'frame', 'plain'])
def test_views_by_hand(argument):
  config, model, variables, apply = network(argument)
  config = config.copy_and_resolve_references()
  views = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 32, 32, 3), dtype=np.uint8)
  batch = {'image': views, 'label': LABELS, 'weight': WEIGHTS}
  outputs = jax.jit(TASK.evaluator(config, model, None).outputs)
  measured, rows = outputs(variables, batch)
  assert rows == {}
  data = config.data
  each = [apply(transforms.normalise(views[:, v], data.mean, data.std)) for v in range(3)]
  probabilities = np.mean([softmax(np.asarray(logits)) for logits, _ in each], 0)
  at_label = probabilities[[0, 1], LABELS]
  kept = at_label > 0
  total, count = measured['loss4']
  assert float(count) == kept.sum()
  np.testing.assert_allclose(total, -np.log(at_label[kept]).sum(), rtol=1e-4)
  hits = (probabilities.argmax(-1) == LABELS).sum()
  assert float(measured['accuracy'][0]) == hits
  if argument == 'plain':
    config.eval.average = 'scores'
    (total, _), _ = jax.jit(TASK.evaluator(config, model, None).outputs)(variables, batch)[0]['loss4'], None
    scores = np.mean([np.asarray(logits) for logits, _ in each], 0)
    np.testing.assert_allclose(total, -np.log(softmax(scores)[[0, 1], LABELS]).sum(), rtol=1e-4)


def test_the_loss_of_frames_is_that_of_so_many_images():
  """And of clips that of their mean scores; by the metrics of what training sees."""
  config, model, _, apply = network('frame')
  clips = np.random.default_rng(0).normal(size=(2, 4, 32, 32, 3)).astype(np.float32)
  _, out = apply(clips)
  read = reading.reading(config, model)
  deciding, rows = read.decisions(out, {'label': LABELS, 'weight': WEIGHTS})
  expected = metrics.stage_metrics(deciding, rows['label'], rows['weight'])
  found = read.metrics(out, LABELS, WEIGHTS)
  for name in ('recall2', 'recall4'):
    np.testing.assert_allclose(found[name][0] * 4, expected[name][0], rtol=1e-6)
  np.testing.assert_array_equal(deciding['alive4'].sum(-1), [6] * 8)


def test_settings_that_clips_cannot_have():
  config = clip_run_config('nowhere')
  for changes, message in (
    ({'model.segments': 1}, r'model\.segments is 1: clips have 2 frames or more'),
    ({'eval.average': 'scores'}, r'eval\.average is scores, but ctx_resnet_mini excludes'),
  ):
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=message):
      TASK.check_settings(changed)
