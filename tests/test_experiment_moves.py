"""The experiment on moves: its arms, and that a network without shift gets half of the axes right."""

import pytest
from clip_runs import clip_run_config

from experiments import moves


@pytest.mark.slow
def test_without_shift_the_direction_is_guessed(tmp_path, capsys):
  """Two videos of opposite motions are the same frames: one is right for each axis that is."""
  videos = tmp_path / 'videos'
  found = moves.run(
    ['plain without shift'],
    1,
    tmp_path / 'runs',
    lambda argument: clip_run_config(videos, argument, segments=8),
  )
  (accuracy,), (axis,) = found['plain without shift'].values()
  assert accuracy == pytest.approx(axis / 2) and axis > 0
  assert '| plain without shift |' in (tmp_path / 'runs' / 'moves.md').read_text()
  assert '0.50 |' in capsys.readouterr().out


def test_arms_differ_in_what_they_say():
  for arm, argument in moves.ARMS.items():
    config = clip_run_config('nowhere', argument)
    assert config.model.temporal_shift == ('without' not in arm)
    assert (config.model.context == 'frame') == ('per frame' in arm)
    assert config.model.name.startswith('ctx_') == ('contextual' in arm)
