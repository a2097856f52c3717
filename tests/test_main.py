"""The program as it is typed: it trains, survives a kill, resumes, evaluates, tells mistakes in one line."""

import pathlib
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
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


def start(*arguments):
  command = [sys.executable, 'main.py', *arguments]
  return subprocess.Popen(
    command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding='utf-8'
  )


def run(*arguments):
  process = start(*arguments)
  written, errors = process.communicate()
  return process.returncode, written, errors


def read_until(process, wanted):
  for line in process.stdout:
    if wanted in line:
      return line
  raise AssertionError(f'ended without {wanted!r}: {process.stderr.read()}')


def test_killed_resumed_stopped_and_evaluated(tmp_path):
  workdir = f'--workdir={tmp_path / "run"}'
  killed = start(*TINY, ENDLESS, workdir)
  read_until(killed, 'test accuracy')
  killed.kill()
  killed.communicate()

  stopped = start(*TINY, ENDLESS, workdir)
  resumed_at = int(read_until(stopped, 'resumed at step').split()[-1])
  assert resumed_at >= 2
  read_until(stopped, 'test accuracy')
  stopped.send_signal(signal.SIGTERM)
  _, errors = stopped.communicate()
  assert stopped.returncode == 128 + signal.SIGTERM
  (line,) = errors.splitlines()
  assert line.startswith('error: stopped by SIGTERM at step') and str(tmp_path / 'run') in line
  step = int(line.split('at step ')[1].split(',')[0])
  assert step >= resumed_at + 2

  status, written, errors = run('--mode=evaluate', workdir, '--config.eval.batch_size=100')
  assert (status, errors) == (0, '')
  assert all(weights in written for weights in ('raw', 'EMA')) and f'step {step} of' in written


def test_output_to_a_file_is_plain_lines_and_the_last_tells_all(tmp_path):
  status, written, errors = run(*TINY, '--config.train.steps=5', f'--workdir={tmp_path / "run"}')
  assert (status, errors) == (0, '')
  assert all(character.isprintable() or character == '\n' for character in written)
  final = written.splitlines()[-1]
  assert final.startswith('test accuracy by stage raw: ') and ', EMA: ' in final
  assert final.endswith(f'step 5, saved in {tmp_path / "run"}')
  assert 'step 5/5  loss' in written and ' images/s  0:00 left' in written


@pytest.mark.parametrize(
  'arguments, message',
  [
    (('--config.train.stepz=3', TINY[0]), "unknown config field 'train.stepz'; did you mean 'train.steps'"),
    ((*TINY, '--config.model.name=convnext_mny'), "unknown model 'convnext_mny'"),
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
