"""SGD against PyTorch's rule in NumPy, AdamW against its own bits; frozen parameters and skipped steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization
from optimizer_settings import settings

from ctx_flax.training import optimizer

SHAPES = {
  'body': {'kernel': (4, 3), 'bias': (3,)},
  'head': {'kernel': (3, 2), 'logit_scale': ()},
  'frozen': {'kernel': (2, 2)},
}
# The head at five times the rate with half the decay, the rest of what learns at twice the decay.
GROUPS = (('head/.*', 5.0, 0.5), ('body/.*', 1.0, 2.0), ('frozen/.*', 0.0, 1.0))
RATES, DECAYS = {'head': 5.0, 'body': 1.0, 'frozen': 0.0}, {'head': 0.5, 'body': 2.0, 'frozen': 1.0}


def random_tree(seed):
  rng = np.random.default_rng(seed)
  return {
    module: {name: rng.normal(size=shape).astype(np.float32) for name, shape in arrays.items()}
    for module, arrays in SHAPES.items()
  }


def run(tx, gradients):
  """The parameters after each update, and the last state; one array operation at a time."""
  params, history = jax.tree.map(jnp.asarray, random_tree(0)), []
  state = tx.init(params)
  for gradient in gradients:
    updates, state = tx.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
    history.append(params)
  return history, state


def torch_sgd(gradients, rates, *, momentum, nesterov, weight_decay, clip_norm):
  """torch.nn.utils.clip_grad_norm_ and torch.optim.SGD as their documentation states them, in float64.

  https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html, with dampening 0; the parameter groups
  above, decay for kernels alone. Returns the parameters after each update.
  """
  params = {(m, n): np.float64(x) for m, arrays in random_tree(0).items() for n, x in arrays.items()}
  buffers, history = {}, []
  for rate, tree in zip(rates, gradients, strict=True):
    norm = np.sqrt(sum((np.float64(x) ** 2).sum() for arrays in tree.values() for x in arrays.values()))
    for (module, name), p in params.items():
      if not RATES[module]:
        continue
      g = np.float64(tree[module][name]) * min(1.0, clip_norm / (norm + 1e-6))
      if name == 'kernel':
        g = g + weight_decay * DECAYS[module] * p
      if momentum:
        buffer = momentum * buffers[module, name] + g if (module, name) in buffers else g
        buffers[module, name] = buffer
        g = g + momentum * buffer if nesterov else buffer
      params[module, name] = p - rate * RATES[module] * g
    history.append(dict(params))
  return history


@pytest.mark.parametrize(('momentum', 'nesterov'), [(0.9, False), (0.9, True), (0.0, False)])
def test_sgd_is_pytorchs(momentum, nesterov):
  """Five updates over a warm-up and a drop: the momentum keeps gradients, not steps of an earlier rate."""
  config = settings(
    name='sgd', momentum=momentum, nesterov=nesterov, clip_norm=2.0, groups=GROUPS, learning_rate=0.1
  )
  config.optimizer.schedule, config.optimizer.drops = 'steps', (3,)
  config.optimizer.warmup_epochs, config.optimizer.warmup_factor = 2, 0.1
  gradients = [random_tree(seed) for seed in range(1, 6)]
  gradients[1] = jax.tree.map(lambda x: 0.1 * x, gradients[1])  # below the norm at which they are clipped
  history, _ = run(optimizer.make_optimizer(config, optimizer.learning_rate_schedule(config, 1)), gradients)
  expected = torch_sgd(
    gradients,
    [0.01, 0.055, 0.1, 0.01, 0.01],
    momentum=momentum,
    nesterov=nesterov,
    weight_decay=0.1,
    clip_norm=2.0,
  )
  for number, (params, after) in enumerate(zip(history, expected, strict=True)):
    for (module, name), value in after.items():
      np.testing.assert_allclose(
        params[module][name], value, rtol=2e-5, atol=1e-6, err_msg=f'{number} {module} {name}'
      )


def test_adamw_has_the_bits_and_the_state_that_it_always_had():
  """The chain of optax written out: three updates with a warm-up, clipping and groups."""
  config = settings(clip_norm=2.0, groups=GROUPS)
  schedule = optimizer.learning_rate_schedule(config, 1)

  def decay_and_scale(updates, state, params):
    def change(path, update, parameter):
      module, name = path[0].key, path[-1].key
      if not RATES[module]:
        return jnp.zeros_like(update)
      if name == 'kernel':
        update = update + 0.1 * DECAYS[module] * parameter
      return RATES[module] * update

    return jax.tree_util.tree_map_with_path(change, updates, params), state

  before = optax.chain(
    optax.clip_by_global_norm(2.0),
    optax.scale_by_adam(0.9, 0.999, 1e-8),
    optax.GradientTransformation(lambda params: optax.EmptyState(), decay_and_scale),
    optax.scale_by_learning_rate(schedule),
  )
  gradients = [random_tree(seed) for seed in range(1, 4)]
  expected, _ = run(before, gradients)
  history, state = run(optimizer.make_optimizer(config, schedule), gradients)
  for a, b in zip(jax.tree.leaves(history), jax.tree.leaves(expected), strict=True):
    np.testing.assert_array_equal(a, b)

  # The names under which checkpoints hold it; () is a state without arrays.
  saved = serialization.to_state_dict(state)
  assert {name: set(part) for name, part in saved.items()} == {
    '0': set(),
    '1': {'count', 'mu', 'nu'},
    '2': set(),
    '3': {'count'},
  }
  plain = optimizer.make_optimizer(settings(), schedule).init(random_tree(0))
  saved = serialization.to_state_dict(plain)
  assert {name: set(part) for name, part in saved.items()} == {
    '0': {'count', 'mu', 'nu'},
    '1': set(),
    '2': {'count'},
  }


@pytest.mark.parametrize('name', ['adamw', 'sgd'])
def test_frozen_parameters_and_their_moments_stay(name):
  """Whatever their gradients are, also if those are not finite; what learns is not touched by them."""
  config = settings(name=name, groups=GROUPS)
  gradients = [random_tree(seed) for seed in (1, 2)]
  gradients[1]['frozen']['kernel'][0, 0] = np.nan
  history, state = run(optimizer.make_optimizer(config, 0.5), gradients)
  np.testing.assert_array_equal(history[-1]['frozen']['kernel'], random_tree(0)['frozen']['kernel'])
  moments = [x for path, x in jax.tree_util.tree_leaves_with_path(state) if 'frozen' in str(path)]
  assert len(moments) == {'adamw': 2, 'sgd': 1}[name]
  assert not any(np.any(moment) for moment in moments)  # NaN is true
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(history[-1]))
  # `factor`, which is where init.freeze arrives, does the same.
  tx = optimizer.make_optimizer(
    settings(name=name), 0.5, lambda parameter: 0.0 if parameter.startswith('frozen') else 1.0
  )
  history, _ = run(tx, gradients)
  np.testing.assert_array_equal(history[-1]['frozen']['kernel'], random_tree(0)['frozen']['kernel'])
  assert np.any(history[-1]['body']['kernel'] != random_tree(0)['body']['kernel'])


@pytest.mark.parametrize('name', ['adamw', 'sgd'])
def test_a_skipped_step_advances_the_schedule_alone(name):
  config = settings(name=name, clip_norm=1.0)
  tx = optimizer.make_optimizer(config, optimizer.learning_rate_schedule(config, 5))
  params = random_tree(0)
  _, old = tx.update(random_tree(1), tx.init(params), params)
  _, new = tx.update(jax.tree.map(lambda x: x * np.nan, params), old, params)
  advanced = optimizer.advance_schedule(old, new)
  assert (old[-1].count, advanced[-1].count) == (1, 2)
  assert jax.tree.structure(advanced) == jax.tree.structure(old)
  for a, b in zip(jax.tree.leaves(advanced[:-1]), jax.tree.leaves(old[:-1]), strict=True):
    np.testing.assert_array_equal(a, b)
  constant = optimizer.make_optimizer(config, 0.5).init(params)
  with pytest.raises(ValueError, match=r'no optax\.ScaleByScheduleState.*give make_optimizer a schedule'):
    optimizer.advance_schedule(constant, constant)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'name': 'sdg'}, r"optimizer\.name is 'sdg': expected one of adamw, sgd; did you mean 'sgd'\?"),
    ({'momentum': 1.0}, r'optimizer\.momentum must be at least 0 \(off\) and below 1, but is 1\.0'),
    ({'momentum': float('nan')}, r'optimizer\.momentum .* nan'),
    ({'momentum': 0.0, 'nesterov': True}, r'optimizer\.nesterov needs a momentum'),
    ({'weight_decay': float('nan')}, r'optimizer\.weight_decay .* nan'),
    ({'clip_norm': float('inf')}, r'optimizer\.clip_norm .* inf'),
    ({'groups': (('.*', float('nan'), 1.0),)}, r'optimizer\.groups holds .*nan'),
  ],
)
def test_settings_without_a_meaning_are_named(changes, message):
  with pytest.raises(ValueError, match=message):
    optimizer.make_optimizer(settings(**{'name': 'sgd'} | changes), 0.5)
