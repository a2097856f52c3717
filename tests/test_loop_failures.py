"""What goes wrong while a run trains: which step, which image, what is left, in one line."""

import errno

import jax
import numpy as np
import pytest
from mean_colour import MeanColour, settings
from run_files import arrays, metric_lines, on_batch, steps_of
from steps import loss_weights
from tiny import STEPS

from ctx_flax.training import evaluation, loop, parallel, running
from ctx_flax.training.halt import Halt
from ctx_flax.training.step_metrics import fetch_metrics

pytestmark = pytest.mark.usefixtures('mean_colour_task')
WEIGHTS = loss_weights(0.15)
COLOUR = MeanColour()  # for what does not depend on what is learned


def test_loss_that_is_not_finite_names_the_step(tmp_path, monkeypatch):
  def spoil(batch):
    return batch | {'image': batch['image'] * np.nan}

  on_batch(monkeypatch, 5, spoil)
  with pytest.raises(Halt, match='the loss of step 5 is not finite') as stopped:
    loop.train(settings(log_every=6, eval_every=0, checkpoint_every=3), tmp_path, COLOUR)
  assert stopped.value.status == 1
  assert steps_of(tmp_path) == [3]
  assert all(np.isfinite(leaf).all() for leaf in arrays(tmp_path, 3).values())


def test_a_state_that_is_not_finite_is_not_saved(tmp_path, monkeypatch):
  """The loss of a step is that before its update: a bad gradient shows in the weights first."""
  original = parallel.pmap_train_step

  def spoiling(step, devices=None):
    step = original(step, devices)

    def run(state, batch):
      state, metrics = step(state, batch)
      return state.replace(params=jax.tree.map(lambda x: x * np.inf, state.params)), metrics

    return run

  monkeypatch.setattr(parallel, 'pmap_train_step', spoiling)
  with pytest.raises(Halt, match=r"after step 1 .*\['params'\].* is not finite and was not saved"):
    loop.train(settings(eval_every=0, checkpoint_every=1), tmp_path, COLOUR)
  assert steps_of(tmp_path) == []


def test_a_step_that_is_not_finite_can_be_skipped(tmp_path, monkeypatch, capsys):
  with monkeypatch.context() as patch:
    on_batch(patch, 5, lambda batch: batch | {'image': batch['image'] * np.nan})
    loop.train(settings(eval_every=0, on_nan='skip'), tmp_path / 'one', COLOUR)
  assert [line['train/skipped'] for line in metric_lines(tmp_path / 'one')] == [0, 0, 0, 0, 1, 0]
  assert '1 skipped' in capsys.readouterr().out
  checkpoint = arrays(tmp_path / 'one', STEPS)
  assert all(np.isfinite(leaf).all() for leaf in checkpoint.values())
  # Adam took five updates; the schedule is at the sixth step all the same.
  taken = sorted(int(leaf) for name, leaf in checkpoint.items() if name.endswith("['count']"))
  assert taken == [STEPS - 1, STEPS] and checkpoint["['optimizer']['step']"] == STEPS


def test_many_skipped_steps_in_a_row_stop_the_run():
  def step(skipped):
    return {'loss4': (2.0 * (1 - skipped), 1.0 - skipped), 'skipped': (skipped, 1.0)}

  values, in_a_row = fetch_metrics([step(0.0), step(1.0), step(1.0)], 10, WEIGHTS)
  assert (values['skipped'], in_a_row) == (2, 2)
  values, in_a_row = fetch_metrics([step(1.0)] * 47, 57, WEIGHTS, in_a_row)
  assert (values['skipped'], in_a_row) == (47, 49)
  assert fetch_metrics([step(0.0)], 58, WEIGHTS, in_a_row)[1] == 0
  with pytest.raises(Halt, match='every step from 9 to 58 was skipped') as stopped:
    fetch_metrics([step(1.0)], 58, WEIGHTS, in_a_row)
  assert stopped.value.status == 1


def test_what_cannot_be_written_names_the_step(tmp_path, monkeypatch):
  original = running.MetricLog.write

  def write(self, step, line):
    if step == 3:
      raise OSError(errno.ENOSPC, 'No space left on device')
    original(self, step, line)

  monkeypatch.setattr(running.MetricLog, 'write', write)
  with pytest.raises(
    Halt, match=r'failed at step 3: .*No space left on device; its last complete'
  ) as stopped:
    loop.train(settings(eval_every=0), tmp_path, COLOUR)
  assert stopped.value.status == 1 and steps_of(tmp_path) == [2]


def test_an_unreadable_image_can_be_an_error(jpeg_folder, tmp_path):
  config = settings(eval_every=0)
  config.data.update(name='image_folder', path=str(jpeg_folder), on_bad_image='error')
  with pytest.raises(Halt, match=r'train/class05/005\.jpg cannot be read: .*skip goes on without it') as told:
    loop.train(config, tmp_path, COLOUR)
  assert told.value.status == 2
  config.data.on_bad_image = 'skip'
  loop.train(config, tmp_path / 'other', COLOUR)
  config.data.on_bad_image = 'error'
  with pytest.raises(Halt, match=r'validation/class05/005\.jpg cannot be read'):
    evaluation.evaluate(config, tmp_path / 'other', COLOUR)
