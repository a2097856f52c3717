"""A run whose newest checkpoint is damaged goes on from the one before, to the same bits."""

import shutil

import numpy as np
import pytest
from mean_colour import MeanColour, settings
from run_files import arrays, contents, damage, metric_lines

from ctx_flax.training import evaluation, loop, restore
from ctx_flax.training.checkpoint_files import DamagedCheckpoint
from ctx_flax.training.halt import Halt


@pytest.mark.usefixtures('mean_colour_task')
def test_a_run_goes_on_before_the_damage_to_the_same_bits(tmp_path, capsys):
  config, task = settings(steps=4), MeanColour()
  run, whole = tmp_path / 'run', tmp_path / 'whole'
  results = loop.train(config, run, task)
  shutil.copytree(run, whole)
  damage(run / 'checkpoints' / '4')
  before = contents(run)

  config.eval.checkpoint = 'latest'
  message = r'checkpoints/4 is damaged: .*; the newest that is whole is 2: --config\.eval\.checkpoint=2'
  with pytest.raises(Halt, match=message) as refused:
    evaluation.evaluate(config, run, task)
  assert refused.value.status == 2
  with pytest.raises(DamagedCheckpoint, match=f'4 is damaged: .* is 2: {run}/checkpoints/2'):
    restore.read_weights(run)
  assert contents(run) == before

  capsys.readouterr()
  assert loop.train(config, run, task) == results
  assert 'checkpoint 4 is damaged (' in capsys.readouterr().out
  assert {path.name for path in (run / 'checkpoints').iterdir()} == {'2', '4', 'damaged-4'}
  expected, resumed = arrays(whole, 4), arrays(run, 4)
  assert expected.keys() == resumed.keys()
  for name in expected:
    np.testing.assert_array_equal(resumed[name], expected[name], strict=True, err_msg=name)
  assert metric_lines(run) == metric_lines(whole)

  for step in ('2', '4'):
    damage(run / 'checkpoints' / step)
  before = contents(run)
  with pytest.raises(Halt, match=r'no checkpoint in .* can be restored \(4: ') as refused:
    loop.train(config, run, task)
  assert refused.value.status == 2 and contents(run) == before
