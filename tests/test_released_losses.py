"""Losses of the stages and their gradients, against the values of the released code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from steps import ALPHA, stage_losses, total_loss


def golden_chain(values, group):
  """Scores in natural order, considered classes and columns; the goldens are sorted by the stage before.

  columns[s][i, j] is the class in column j of logits{s}.
  """
  b, n = values[f'{group}/in/logits1'].shape
  out, columns = {}, {}
  classes = np.tile(np.arange(n), (b, 1))
  for stage in (1, 2, 3, 4):
    logits = values[f'{group}/in/logits{stage}']
    classes = classes[:, : logits.shape[1]]
    columns[stage] = classes
    scores, considered = np.zeros((b, n), np.float32), np.zeros((b, n), bool)
    np.put_along_axis(scores, classes, logits, 1)
    np.put_along_axis(considered, classes, True, 1)
    out[f'scores{stage}'], out[f'considered{stage}'] = jnp.asarray(scores), jnp.asarray(considered)
    classes = np.take_along_axis(classes, np.argsort(-logits, axis=1, kind='stable'), 1)
  return out, columns


GOLDEN_CASES = [
  ('hard', 'hard/smooth0.1', 'rerank', 0.1),
  ('hard', 'hard/smooth0', 'rerank', 0.0),
  ('red_hard', 'red_hard', 'reduction', 0.1),
]


@pytest.mark.parametrize(('inputs', 'results', 'selection', 'smoothing'), GOLDEN_CASES)
def test_losses_and_gradients_of_the_released_code(golden, inputs, results, selection, smoothing):
  values = golden('e_losses')
  out, columns = golden_chain(values, inputs)
  labels = jnp.asarray(values[f'{inputs}/in/target'])
  options = {'selection': selection, 'label_smoothing': smoothing}
  scores = {name: value for name, value in out.items() if name.startswith('scores')}

  @jax.jit
  def compute(scores):
    loss = lambda scores: total_loss(out | scores, labels, **options)
    return stage_losses(out | scores, labels, **options), *jax.value_and_grad(loss)(scores)

  parts, loss, gradients = compute(scores)
  # The released losses are already times alpha, and each holds 1e-6.
  for stage, (total, count) in parts.items():
    expected = values[f'{results}/stage_losses'][stage - 1] - 1e-6 * (ALPHA if stage < 4 else 1)
    np.testing.assert_allclose(total / count * (ALPHA if stage < 4 else 1), expected, rtol=2e-6)
  np.testing.assert_allclose(loss, values[f'{results}/loss'], rtol=2e-6)
  for stage in (1, 2, 3, 4):
    mine = np.take_along_axis(np.asarray(gradients[f'scores{stage}']), columns[stage], 1)
    np.testing.assert_allclose(mine, values[f'{results}/grad_logits{stage}'], atol=2e-7)


def test_golden_batch_that_lost_every_label(golden):
  values = golden('e_losses')
  chain = {f'red_hard/in/logits{s}': values[f'red_hard/in/logits{s}'] for s in (2, 3, 4)}
  chain['red_hard/in/logits1'] = values['red_hard_alldropped/in/logits1']
  out, _ = golden_chain(chain, 'red_hard')
  labels = jnp.asarray(values['red_hard/in/target'])
  parts = stage_losses(out, labels, selection='reduction', label_smoothing=0.1)
  np.testing.assert_allclose(
    parts[1][0] / parts[1][1] * ALPHA, values['red_hard_alldropped/stage_losses'][0] - 1.5e-7, rtol=2e-6
  )
  assert [(float(total), float(count)) for total, count in list(parts.values())[1:]] == [(0, 0)] * 3
