"""Two processes of two devices each are one process of four, also stopped in between."""

import contextlib
import signal

import numpy as np
import pytest
from program import RESNET_TINY, TINY, free_address, read_until, start
from run_files import arrays, metric_lines

# A large eps keeps Adam's first steps from being the sign of gradients that are rounding alone.
STEPS = 8
ARGUMENTS = (
  *TINY,
  *RESNET_TINY,
  f'--config.train.steps={STEPS}',
  '--config.optimizer.eps=0.01',
  '--config.train.ema_decay=0.5',
  '--config.data.workers=0',  # they would be started anew for every test: a third of the time here
)


def start_two(*arguments):
  """Both processes of a run."""
  joined = f'--coordinator_address={free_address()}', '--num_processes=2'
  return [start(*arguments, *joined, f'--process_id={i}', devices=2) for i in (0, 1)]


@pytest.mark.slow
def test_the_number_of_processes_does_not_matter(jpeg_folder, tmp_path):
  """BatchNorm over all, a selection that counts another number of images on each, an uneven test set.

  A signal to one of the two stops both at the same step, and they go on from there.
  """
  recipe = '--config=configs/resnet50.py:folder,float32', f'--config.data.path={jpeg_folder}', *ARGUMENTS
  with contextlib.ExitStack() as stack:
    stopped = start_two(*recipe, f'--workdir={tmp_path / "two"}')
    for process in stopped:
      stack.callback(process.kill)
    read_until(stopped[0], f'step 2/{STEPS}')
    stopped[1].send_signal(signal.SIGTERM)
    errors = [process.communicate()[1] for process in stopped]
    assert [process.returncode for process in stopped] == [143, 143], errors
    assert errors[0] == errors[1] and errors[0].startswith('error: stopped by SIGTERM at step ')

    two = start_two(*recipe, f'--workdir={tmp_path / "two"}')
    for process in two:
      stack.callback(process.kill)
    ended = [process.communicate() for process in two]
  one = start(*recipe, f'--workdir={tmp_path / "one"}', devices=4)
  written, errors = one.communicate()
  assert [(one.returncode, errors), *((p.returncode, e) for p, (_, e) in zip(two, ended, strict=True))] == [
    (0, '')
  ] * 3
  # The first process tells; the other one only what it alone has seen.
  assert 'resumed at step' in ended[0][0]
  assert ended[0][0].splitlines()[-1].split(';')[0] == written.splitlines()[-1].split(';')[0]
  assert not any(told in ended[1][0] for told in ('step ', 'accuracy', 'resumed', '│')), ended[1][0]
  assert len(list((tmp_path / 'two' / 'events').iterdir())) == 2

  expected, found = arrays(tmp_path / 'one'), arrays(tmp_path / 'two')
  assert expected.keys() == found.keys() and any('batch_stats' in name for name in expected)
  for name in expected:
    np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5, err_msg=name)
  for alone, together in zip(metric_lines(tmp_path / 'one'), metric_lines(tmp_path / 'two'), strict=True):
    assert alone.keys() == together.keys()
    for name, value in alone.items():
      np.testing.assert_allclose(together[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
