"""The program as it is typed: it trains, survives a kill, resumes, evaluates, tells mistakes in one line."""

import signal

import numpy as np
import pytest
from program import read_until, run, start
from run_files import arrays, metric_lines

TINY = (
  '--config=configs/digits.py:plain',
  '--config.model.dims=(8,16,24,32)',
  '--config.model.depths=(1,1,1,1)',
  '--config.train.batch_size=16',
  '--config.train.checkpoint_every=2',
  '--config.train.eval_every=4',
)
# More than can be done before the signal comes: the test waits for a line of output, never for a time.
ENDLESS = '--config.train.steps=1000000'


@pytest.mark.slow
def test_stopped_by_a_signal_and_evaluated(tmp_path):
  workdir = f'--workdir={tmp_path / "run"}'
  stopped = start(*TINY, ENDLESS, workdir)
  read_until(stopped, 'test accuracy')
  stopped.send_signal(signal.SIGTERM)
  _, errors = stopped.communicate()
  assert stopped.returncode == 128 + signal.SIGTERM
  (line,) = errors.splitlines()
  assert line.startswith('error: stopped by SIGTERM at step') and str(tmp_path / 'run') in line
  step = int(line.split('at step ')[1].split(',')[0])
  assert step >= 4

  status, written, errors = run('--mode=evaluate', workdir, '--config.eval.batch_size=100')
  assert (status, errors) == (0, '')
  assert all(weights in written for weights in ('raw', 'EMA')) and f'step {step} of' in written


@pytest.mark.slow
def test_killed_again_and_again_it_ends_as_if_never(tmp_path):
  """kill -9 while a checkpoint may be half written, in a program that was resumed too; bit for bit."""
  twelve = *TINY, '--config.train.steps=12', '--config.train.log_every=1', '--config.model.drop_path_rate=0.2'
  assert run(*twelve, f'--workdir={tmp_path / "whole"}')[0] == 0
  workdir = f'--workdir={tmp_path / "killed"}'
  for line, workers in (('step 3/12', 0), ('step 7/12', 1), ('step 10/12', 0)):
    killed = start(*twelve, workdir, f'--config.data.workers={workers}')
    read_until(killed, line)
    killed.kill()
    killed.communicate()
  status, written, errors = run(*twelve, workdir)
  assert (status, errors) == (0, '') and 'resumed at step' in written
  expected, found = arrays(tmp_path / 'whole'), arrays(tmp_path / 'killed')
  assert expected.keys() == found.keys() and expected["['optimizer']['step']"] == 12
  for name, array in expected.items():
    np.testing.assert_array_equal(found[name], array, strict=True, err_msg=name)
  assert metric_lines(tmp_path / 'killed') == metric_lines(tmp_path / 'whole')


@pytest.mark.slow
def test_check_tells_the_run_and_trains_nothing(tmp_path):
  status, written, errors = run('--mode=check', *TINY, f'--workdir={tmp_path / "run"}')
  assert (status, errors) == (0, '') and not (tmp_path / 'run').exists()
  assert '26,090 parameters' in written and 'memory of a device' in written


def test_a_workdir_that_cannot_be_is_told(tmp_path):
  (tmp_path / 'file').write_text('')
  status, _, errors = run(*TINY, f'--workdir={tmp_path / "file" / "run"}')
  (line,) = errors.splitlines()
  assert status == 2 and line.startswith('error: ') and str(tmp_path / 'file') in line


@pytest.mark.slow
def test_output_to_a_file_is_plain_lines_and_the_last_tells_all(tmp_path):
  status, written, errors = run(*TINY, '--config.train.steps=5', f'--workdir={tmp_path / "run"}')
  assert (status, errors) == (0, '')
  assert all(character.isprintable() or character == '\n' for character in written)
  final = written.splitlines()[-1]
  assert final.startswith('test accuracy by stage raw: ') and ', EMA: ' in final
  assert final.endswith(f'step 5, saved in {tmp_path / "run"}')
  assert 'step 5/5  loss' in written and ' images/s  ' in written and '  0:00 left' in written


@pytest.mark.parametrize(
  'arguments, message',
  [
    (('--config.train.stepz=3', TINY[0]), "unknown config field 'train.stepz'; did you mean 'train.steps'"),
    pytest.param(
      *((*TINY, '--config.model.name=convnext_mny'), "unknown model 'convnext_mny'"), marks=pytest.mark.slow
    ),
    ((), 'give --config=configs/RECIPE.py, or --workdir=RUN'),
  ],
)
def test_mistakes_end_with_status_2_and_one_line(tmp_path, arguments, message):
  workdir = (f'--workdir={tmp_path / "run"}',) if arguments else ()
  status, written, errors = run(*arguments, *workdir)
  assert (status, written) == (2, '')
  (line,) = errors.splitlines()
  assert line.startswith('error: ') and message in line
  assert not (tmp_path / 'run').exists()
