"""The table of schedules, warm-ups in steps and relative to the rate, and contradictions between fields."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optimizer_settings import settings

from ctx_flax.training import check, schedules


def rates(config, steps_per_epoch, steps):
  """The rates of many steps, computed at once."""
  return np.asarray(schedules.learning_rate_schedule(config, steps_per_epoch)(np.asarray(steps)))


def test_drops_as_temporal_shift_networks_have_them():
  """50 epochs at 0.02, a tenth from the first step after 20 epochs and again after 40."""
  config = settings(
    epochs=50, schedule='steps', drops=(20, 40), learning_rate=0.02, warmup_epochs=0, floor=1.0
  )
  steps = [0, 99, 199, 200, 399, 400, 499, 600]
  expected = [0.02] * 3 + [0.002] * 2 + [0.0002] * 3  # also behind the end; a floor does not apply
  np.testing.assert_allclose(rates(config, 10, steps), expected, rtol=1e-6)
  assert schedules.drop_steps(config, 10) == (200, 400)
  assert schedules.drop_steps(settings(), 10) == ()
  rate = schedules.learning_rate_schedule(config, 10)
  value = jax.jit(rate)(jnp.int32(400))
  assert value.dtype == jnp.float32 and value.shape == ()
  np.testing.assert_allclose(value, 0.0002, rtol=1e-6)


def test_drops_after_a_warmup_as_detectors_have_them():
  """MMDetection's: 500 steps from a thousandth of the rate, then the full rate for 27 epochs."""
  config = settings(
    epochs=36, schedule='steps', drops=(27, 33), learning_rate=1e-4, warmup_epochs=0, warmup_steps=500
  )
  config.optimizer.warmup_factor = 0.001
  k = np.array([0, 1, 250, 499])
  np.testing.assert_allclose(rates(config, 7330, k), 1e-4 * (1 - (1 - k / 500) * 0.999), rtol=1e-5)
  steps = [500, 27 * 7330 - 1, 27 * 7330, 33 * 7330 - 1, 33 * 7330]
  np.testing.assert_allclose(rates(config, 7330, steps), [1e-4, 1e-4, 1e-5, 1e-5, 1e-6], rtol=1e-5)


def test_the_schedule_of_mmdetection(golden):
  """Its own rates over a run of 36 epochs, warm-up and drops included."""
  arrays = golden('coco/pipeline')
  config = settings(
    epochs=36, schedule='steps', drops=(27, 33), learning_rate=1e-4, warmup_epochs=0, warmup_steps=500
  )
  config.optimizer.warmup_factor = 0.001
  steps_per_epoch = int(arrays['lr_iters_per_epoch'])
  np.testing.assert_allclose(rates(config, steps_per_epoch, arrays['lr_iters']), arrays['lr'], rtol=2e-5)


def test_check_reports_both_sides_of_every_drop():
  config = settings(epochs=50, schedule='steps', drops=(20, 40), learning_rate=1.0, warmup_epochs=0)
  plan = types.SimpleNamespace(
    config=config,
    task=types.SimpleNamespace(milestones=lambda config, model, last: (set(), lambda step: {})),
    model=None,
    schedule=schedules.learning_rate_schedule(config, 10),
    steps_per_epoch=10,
    last_step=500,
  )
  reported = {row['step']: row['learning_rate'] for row in check.corners(plan)}
  assert {199, 200, 399, 400} <= reported.keys()
  np.testing.assert_allclose([reported[step] for step in (199, 200, 399, 400)], [1, 0.1, 0.1, 0.01])


def test_drop_factor_and_drops_within_an_epoch():
  config = settings(schedule='steps', drops=(1.5, 2), drop_factor=0.5, learning_rate=1.0, warmup_epochs=0)
  np.testing.assert_allclose(rates(config, 10, [14, 15, 19, 20]), [1, 0.5, 0.5, 0.25])


def test_holding_an_epochs_rate_delays_no_drop():
  """With 312.78 steps per epoch the held step of epoch 20 is 6255, and the drop comes at 6256."""
  config = settings(
    epochs=50, schedule='steps', drops=(20,), per_epoch=True, learning_rate=1.0, warmup_epochs=0
  )
  np.testing.assert_allclose(rates(config, 312.78, [6255, 6256]), [1, 0.1], rtol=1e-6)


def test_a_constant_rate_after_the_warmup():
  config = settings(schedule='constant', warmup_epochs=1, warmup_factor=0.5, learning_rate=2.0, floor=1.0)
  np.testing.assert_allclose(rates(config, 4, [0, 1, 2, 3, 4, 39, 99]), [1, 1.25, 1.5, 1.75, 2, 2, 2])


def test_a_warmup_in_steps_joins_the_cosine():
  config = settings(warmup_epochs=0, warmup_steps=3, warmup_factor=0.1, floor=0.0, learning_rate=1.0)
  cosine = 0.5 * (1 + np.cos(np.pi * 3 / 50))
  np.testing.assert_allclose(rates(config, 5, [0, 1, 2, 3]), [0.1, 0.4, 0.7, cosine], rtol=1e-5)
  assert schedules.warmup_steps(config, 5) == 3


def test_a_warmup_in_steps_is_not_held_for_an_epoch():
  """It would be over with the first epoch, all of which had the first step's rate."""
  config = settings(warmup_epochs=0, warmup_steps=4, warmup_factor=0.25, per_epoch=True, learning_rate=1.0)
  np.testing.assert_allclose(rates(config, 10, [0, 1, 2, 3, 4]), [0.25, 0.4375, 0.625, 0.8125, 1], rtol=1e-5)


def test_the_first_rate_is_relative_to_the_scaled_peak():
  config = settings(reference_batch=256, batch_size=64, warmup_factor=0.01, warmup_start=5.0)
  np.testing.assert_allclose(rates(config, 5, [0]), [0.01 * 2.5e-4], rtol=1e-5)
  config.optimizer.learning_rate = 0.0  # and zero if that is zero
  assert rates(config, 5, [0]) == 0


def test_a_run_cut_short_may_end_before_its_drops():
  config = settings(steps=5, schedule='steps', drops=(20, 40), warmup_epochs=0)
  np.testing.assert_allclose(rates(config, 5, [0, 4]), 1e-3, rtol=1e-6)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'schedule': 'step'}, r"optimizer\.schedule is 'step': .*cosine, steps, constant.*'steps'"),
    ({'schedule': 'steps'}, r"optimizer\.schedule='steps' needs optimizer\.drops"),
    ({'drops': (5,)}, r"optimizer\.drops=\(5,\) needs optimizer\.schedule='steps'"),
    ({'drops': (5,), 'schedule': 'constant'}, r"optimizer\.drops=\(5,\) needs optimizer\.schedule='steps'"),
    ({'drops': (5, 5)}, r'must be ascending .* \(5, 5\)'),
    ({'drops': (6, 5)}, r'must be ascending .* \(6, 5\)'),
    ({'drops': (0, 5)}, r'must be ascending .* above 0'),
    ({'drops': ('5',)}, r'must be ascending numbers'),
    ({'drops': (float('nan'),)}, r'must be ascending numbers'),
    ({'drops': (5, 10)}, r'must lie within the run, but train\.epochs is 10'),
    ({'drops': (1,)}, r'begins inside the warm-up: epoch 1 is step 5, and the warm-up takes 10'),
    ({'drops': (5,), 'drop_factor': 0.0}, r'optimizer\.drop_factor must be between 0 and 1, but is 0'),
    ({'drops': (5,), 'drop_factor': 1.5}, r'optimizer\.drop_factor .* 1\.5'),
    ({'drops': (5,), 'cooldown_epochs': 2}, r'optimizer\.cooldown_epochs=2 belongs to .*cosine'),
    ({'schedule': 'constant', 'cooldown_epochs': 2}, r'optimizer\.cooldown_epochs=2 belongs to .*cosine'),
    ({'warmup_steps': 5}, r'optimizer\.warmup_steps=5 and optimizer\.warmup_epochs=2 both'),
    ({'warmup_steps': -5, 'warmup_epochs': 0}, r'optimizer\.warmup_steps must be 0 or more, but is -5'),
    ({'warmup_factor': 1.5}, r'optimizer\.warmup_factor .* 1\.5'),
    ({'warmup_factor': -0.5}, r'optimizer\.warmup_factor .* -0\.5'),
    ({'floor': float('nan')}, r'optimizer\.floor must be 0 or more, but is nan'),
    ({'learning_rate': float('inf')}, r'optimizer\.learning_rate must be 0 or more, but is inf'),
  ],
)
def test_contradictions_are_named(changes, message):
  if 'drops' in changes and message.startswith(('must', 'begins', r'optimizer\.drop_', r'optimizer\.cool')):
    changes = {'schedule': 'steps'} | changes
  with pytest.raises(ValueError, match=message) as refused:
    schedules.learning_rate_schedule(settings(**changes), 5)
  assert '\n' not in str(refused.value)
