"""Analyses and the export say in one line which tasks they serve."""

import types

import pytest

from ctx_flax.analysis import (
  alpha_sweep,
  context_use,
  failures,
  grad_cam,
  offsets,
  predict,
  recall_curves,
  report,
)
from ctx_flax.configs import default, fields
from ctx_flax.downstream import export, linear_probe
from ctx_flax.training.halt import Halt

MODES = (
  *(failures.failures, grad_cam.grad_cam, offsets.offsets, recall_curves.recall_curves, predict.predict),
  *(report.report, alpha_sweep.alpha_sweep, export.export, linear_probe.linear_probe),
  context_use.context_use,
)


@pytest.mark.parametrize('mode', MODES, ids=lambda mode: mode.__name__)
def test_another_task_is_refused(mode, tmp_path, monkeypatch):
  """Its config has none of the groups of fields that these modes read."""
  task = types.SimpleNamespace(add_fields=lambda config: None, RULES={})
  monkeypatch.setitem(fields.TASKS, 'another', task)
  config = default.get_config(task='another')
  with pytest.raises(
    Halt, match=r'serves runs of classification(, video)?, but this is one of another$'
  ) as halted:
    mode(config, tmp_path)
  assert halted.value.status == 2 and not list(tmp_path.iterdir())
