"""A config of the optimizer's fields alone, for tests that build no network."""

import types


def settings(steps=0, epochs=10, batch_size=32, **changes):
  """AdamW at 1e-3, a cosine over 10 epochs, 2 of them warm-up; `changes` are fields of optimizer."""
  values = {
    'name': 'adamw',
    'learning_rate': 1e-3,
    'reference_batch': 0,
    'weight_decay': 0.1,
    'no_decay': ('standard',),
    'beta1': 0.9,
    'beta2': 0.999,
    'eps': 1e-8,
    'momentum': 0.9,
    'nesterov': False,
    'clip_norm': 0.0,
    'schedule': 'cosine',
    'drops': (),
    'drop_factor': 0.1,
    'floor': 1e-6,
    'cooldown_epochs': 0,
    'per_epoch': False,
    'warmup_epochs': 2,
    'warmup_steps': 0,
    'warmup_start': 1e-7,
    'warmup_factor': 0.0,
    'groups': (),
    'layer_decay': 1.0,
  }
  assert changes.keys() <= values.keys(), changes
  return types.SimpleNamespace(
    optimizer=types.SimpleNamespace(**values | changes),
    train=types.SimpleNamespace(steps=steps, epochs=epochs, batch_size=batch_size),
  )
