"""Schedule, weight decay, clipping: hand values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optimizer_settings import settings

from configs import convnext_t
from ctx_flax.models import create_model
from ctx_flax.training import optimizer


def test_schedule_corners():
  """10 epochs of 5 steps, 2 of them warm-up: the cosine counts from step 0 and ends at step 50."""
  rate = optimizer.learning_rate_schedule(settings(), 5)
  span = 1e-3 - 1e-6
  corners = {
    0: 1e-7,
    1: 1e-7 + (1e-3 - 1e-7) / 10,
    9: 1e-7 + (1e-3 - 1e-7) * 0.9,
    10: 1e-6 + span * (1 + np.cos(np.pi / 5)) / 2,  # joins the cosine a fifth of the way: 0.9045 of the span
    25: 1e-6 + span / 2,
    50: 1e-6,
    80: 1e-6,
  }
  for step, expected in corners.items():
    np.testing.assert_allclose(rate(step), expected, rtol=1e-5, err_msg=f'step {step}')
  assert jax.jit(rate)(jnp.int32(25)).dtype == jnp.float32


def test_schedule_without_warmup_starts_at_the_full_rate():
  rate = optimizer.learning_rate_schedule(settings(warmup_epochs=0), 5)
  np.testing.assert_allclose(rate(0), 1e-3, rtol=1e-6)


def test_given_steps_replace_the_epochs():
  assert optimizer.total_steps(settings(), 5) == 50
  assert optimizer.total_steps(settings(steps=20), 5) == 20
  rate = optimizer.learning_rate_schedule(settings(steps=20), 5)
  np.testing.assert_allclose(rate(20), 1e-6, rtol=1e-5)
  assert rate(19) > 5e-6


def test_the_rate_is_linear_in_the_batch_and_its_ends_are_not():
  small = optimizer.learning_rate_schedule(settings(reference_batch=256, batch_size=64), 5)
  large = optimizer.learning_rate_schedule(settings(reference_batch=256, batch_size=1024), 5)
  assert optimizer.peak_learning_rate(settings(reference_batch=256, batch_size=64)) == 2.5e-4
  for rate, peak in ((small, 2.5e-4), (large, 4e-3)):
    np.testing.assert_allclose(rate(0), 1e-7, rtol=1e-5)
    np.testing.assert_allclose(rate(5), 1e-7 + (peak - 1e-7) / 2, rtol=1e-5)
    np.testing.assert_allclose(rate(25), 1e-6 + (peak - 1e-6) / 2, rtol=1e-5)
    np.testing.assert_allclose(rate(50), 1e-6, rtol=1e-5)


def test_the_imagenet_schedule_at_its_corners():
  """300 epochs of 1,281,167 images in batches of 4096, 20 of them warm-up to 4e-3 (supplementary Table 2)."""
  config = convnext_t.get_config()
  per_epoch = 1281167 / 4096
  rate = optimizer.learning_rate_schedule(config, per_epoch)
  total, warmup = optimizer.total_steps(config, per_epoch), optimizer.warmup_steps(config, per_epoch)
  assert (total, warmup) == (93835, 6256)
  np.testing.assert_allclose(rate(0), 1e-7, rtol=1e-5)
  np.testing.assert_allclose(rate(warmup - 1), 4e-3 * (warmup - 1) / warmup, rtol=1e-4)
  np.testing.assert_allclose(rate(warmup), 2e-3 * (1 + np.cos(np.pi * 20 / 300)), rtol=1e-4)
  np.testing.assert_allclose(rate(total // 2), 2e-3, rtol=1e-3)
  np.testing.assert_allclose(rate(total), 1e-7, rtol=1e-3)
  config.train.batch_size = 1024
  np.testing.assert_allclose(optimizer.learning_rate_schedule(config, per_epoch)(total // 2), 5e-4, rtol=1e-3)


def test_groups_by_hand():
  """The dense layer at a tenth of the rate 0.5 with thrice the decay, the rest frozen."""
  groups = (('dense/.*', 0.1, 3.0), ('.*embedding|.*scale', 0.0, 1.0))
  update = first_update(settings(groups=groups))
  np.testing.assert_allclose(update['dense']['kernel'], [[-0.05 * (1 + 0.3), -0.05 * (1 - 0.6)]], atol=1e-6)
  np.testing.assert_allclose(update['dense']['bias'], 0)
  assert update['contextualizer']['logit_scale'] == 0
  # Without decay in the group, and with the rest as it is.
  update = first_update(settings(groups=(('dense/kernel', 2.0, 0.0), ('(?!dense/kernel).*', 1.0, 1.0))))
  np.testing.assert_allclose(update['dense']['kernel'], [[-1.0, -1.0]], rtol=1e-5)
  np.testing.assert_allclose(update['contextualizer']['logit_scale'], -0.5, rtol=1e-5)


def test_one_group_of_all_is_none():
  for a, b in zip(
    jax.tree.leaves(first_update(settings(groups=(('.*', 1.0, 1.0),)))),
    jax.tree.leaves(first_update(settings())),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)


def test_parameters_that_match_no_group_or_several_are_listed():
  groups = (('dense/.*', 1.0, 1.0), ('.*/kernel', 1.0, 1.0))
  with pytest.raises(ValueError) as refused:
    first_update(settings(groups=groups))
  message = str(refused.value)
  assert 'in no group: contextualizer/class_embedding, contextualizer/logit_scale' in message
  assert "in several: dense/kernel ('dense/.*', '.*/kernel')" in message
  # A regex must match a whole name.
  with pytest.raises(ValueError, match=r'in no group: .*dense/bias'):
    first_update(settings(groups=(('dense', 1.0, 1.0),)))


@pytest.mark.parametrize(
  'group', ['dense', ('(', 1.0, 1.0), ('.*', -1.0, 1.0), ('.*', 1.0), ('.*', 'x', 1.0)]
)
def test_bad_groups_are_shown(group):
  with pytest.raises(ValueError, match=r'optimizer\.groups holds .*: expected \(regex'):
    optimizer.make_optimizer(settings(groups=(group,)), 1.0)


def test_bad_settings_are_named():
  with pytest.raises(ValueError, match=r'optimizer\.reference_batch .* -1'):
    optimizer.learning_rate_schedule(settings(reference_batch=-1), 5)
  with pytest.raises(ValueError, match='at least one step'):
    optimizer.learning_rate_schedule(settings(epochs=0), 5)
  with pytest.raises(ValueError, match=r'optimizer\.floor .* -1'):
    optimizer.learning_rate_schedule(settings(floor=-1), 5)
  with pytest.raises(ValueError, match=r'optimizer\.clip_norm .* -1'):
    optimizer.make_optimizer(settings(clip_norm=-1), lambda step: 1.0)


PARAMETERS = {
  'dense': {'kernel': jnp.array([[1.0, -2.0]]), 'bias': jnp.array([3.0, 4.0])},
  'contextualizer': {'class_embedding': jnp.array([[1.0, -2.0]]), 'logit_scale': jnp.array(2.0)},
}
GRADIENTS = {
  'dense': {'kernel': jnp.array([[3.0, 4.0]]), 'bias': jnp.array([0.0, 0.0])},
  'contextualizer': {'class_embedding': jnp.array([[0.0, 0.0]]), 'logit_scale': jnp.array(12.0)},
}


def first_update(config):
  tx = optimizer.make_optimizer(config, lambda step: 0.5)
  return tx.update(GRADIENTS, tx.init(PARAMETERS), PARAMETERS)[0]


def test_first_update_by_hand():
  """Adam's first step is the gradient's sign; the decay is decoupled, times the rate, for kernels alone."""
  update = first_update(settings())
  np.testing.assert_allclose(update['dense']['kernel'], [[-0.5 * (1 + 0.1), -0.5 * (1 - 0.2)]], rtol=1e-5)
  np.testing.assert_allclose(update['dense']['bias'], 0)
  np.testing.assert_allclose(update['contextualizer']['class_embedding'], 0)
  np.testing.assert_allclose(update['contextualizer']['logit_scale'], -0.5, rtol=1e-5)


def test_betas_and_eps_come_from_the_config():
  """eps is outside the root: g / (|g| + eps). The second step shows both betas."""
  update = first_update(settings(eps=4.0, weight_decay=0.0))
  np.testing.assert_allclose(update['dense']['kernel'], [[-0.5 * 3 / 7, -0.5 * 4 / 8]], rtol=1e-5)
  tx = optimizer.make_optimizer(settings(beta1=0.5, beta2=0.75, weight_decay=0.0), lambda step: 0.5)
  _, state = tx.update(GRADIENTS, tx.init(PARAMETERS), PARAMETERS)
  doubled = jax.tree.map(lambda g: 2 * g, GRADIENTS)
  update, _ = tx.update(doubled, state, PARAMETERS)
  first = (0.25 * 3 + 0.5 * 6) / (1 - 0.25)
  second = (0.75 * 0.25 * 9 + 0.25 * 36) / (1 - 0.5625)
  np.testing.assert_allclose(update['dense']['kernel'][0, 0], -0.5 * first / np.sqrt(second), rtol=1e-5)


def test_clipping_is_off_by_default_and_by_the_global_norm():
  """The gradients' norm is 13. A large eps makes the update nearly proportional to the gradient."""
  plain = first_update(settings(eps=1e4, weight_decay=0.0))
  clipped = first_update(settings(eps=1e4, weight_decay=0.0, clip_norm=1.3))
  above = first_update(settings(eps=1e4, weight_decay=0.0, clip_norm=14.0))
  for name in ('dense', 'contextualizer'):
    for leaf, value in plain[name].items():
      np.testing.assert_allclose(clipped[name][leaf], value / 10, rtol=2e-3)
      np.testing.assert_allclose(above[name][leaf], value, rtol=1e-6)
  np.testing.assert_allclose(plain['contextualizer']['logit_scale'], -0.5 * 12 / (12 + 1e4), rtol=1e-5)


@pytest.mark.parametrize('name', ['ctx_convnext_mini', 'ctx_resnet_mini'])
def test_parameters_without_weight_decay_by_name(name):
  model = create_model(name, num_classes=10)
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)['params']
  )
  mask = jax.tree_util.tree_leaves_with_path(optimizer.decay_mask(shapes))
  free = {path[-1].key for path, decays in mask if not decays}
  decayed = {path[-1].key for path, decays in mask if decays}
  expected = {'bias', 'scale', 'class_embedding', 'logit_scale'}
  assert free == (expected | {'gamma'} if 'convnext' in name else expected)
  assert decayed == {'kernel'}


def test_the_schedule_of_the_released_code():
  """Once an epoch of 8 steps, and two epochs more at the floor: the cosine runs over the first ten."""
  config = settings(epochs=10, cooldown_epochs=2, per_epoch=True, warmup_epochs=0)
  rate = optimizer.learning_rate_schedule(config, 8)
  assert optimizer.total_steps(config, 8) == 96
  rates = np.array([float(rate(step)) for step in range(96)]).reshape(12, 8)
  expected = 1e-6 + 0.5 * (1e-3 - 1e-6) * (1 + np.cos(np.pi * np.minimum(np.arange(12), 10) / 10))
  np.testing.assert_allclose(rates, np.repeat(expected[:, None], 8, 1), rtol=1e-5)
  with pytest.raises(ValueError, match='cooldown_epochs=2 leaves none of the 16 steps'):
    optimizer.learning_rate_schedule(settings(steps=16, cooldown_epochs=2), 8)
