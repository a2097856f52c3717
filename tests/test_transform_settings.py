"""Transforms are made of a config, and settings without a meaning are named."""

import pytest

from ctx_flax.configs import default
from ctx_flax.data import transforms


def test_transforms_are_made_of_the_config():
  """A value of its own in every field: none is taken from another."""
  config = default.get_config()
  fields = {
    'image_size': 48,
    'mean': (0.1, 0.2, 0.3),
    'std': (0.4, 0.5, 0.6),
    'crop_scale': (0.25, 0.75),
    'crop_aspect': (0.5, 2.0),
    'flip': 0.11,
    'rotate': 12.0,
    'shift': 0.13,
    'scale': 0.14,
    'erasing': 0.15,
  }
  config.data.update(fields)
  config.data.rand_augment.update(operations=3, magnitude=7.0, magnitude_std=0.25, probability=0.75)
  config.eval.crop_ratio = 0.95
  augment = {'operations': 3, 'magnitude': 7.0, 'magnitude_std': 0.25, 'probability': 0.75}
  made = transforms.train_transform(config)
  assert made == transforms.TrainTransform(**fields, rand_augment=augment)
  assert transforms.eval_transform(config) == transforms.EvalTransform(
    48, 0.95, fields['mean'], fields['std']
  )
  # A config that changes later changes nothing.
  config.data.rand_augment.operations = 0
  assert made.rand_augment['operations'] == 3


def test_default_settings_and_all_that_are_at_the_edge_pass():
  transforms.check_settings(default.get_config())
  config = default.get_config()
  config.data.update(image_size=1, mean=(0.5,), std=(1e-3,), crop_scale=(1.0, 1.0), crop_aspect=(1.0, 1.0))
  config.data.update(flip=1.0, erasing=1.0, mix_probability=0.0, mix_switch=1.0)
  config.data.rand_augment.update(operations=15, magnitude=10.0, magnitude_std=0.0, probability=1.0)
  config.eval.crop_ratio = 1.0
  transforms.check_settings(config)
  config.data.rand_augment.magnitude = 0.0
  transforms.check_settings(config)


PROBABILITIES = ('flip', 'erasing', 'mix_probability', 'mix_switch', 'rand_augment.probability')
AMOUNTS = ('rotate', 'shift', 'scale', 'mixup', 'cutmix', 'rand_augment.magnitude_std')


@pytest.mark.parametrize(
  'field, value, message',
  [
    ('data.image_size', 0, '1 or more, but is 0'),
    ('data.mean', (0.1, 0.2), r'1 or 3 values, but is \(0.1, 0.2\)'),
    ('data.mean', (), r'1 or 3 values, but is \(\)'),
    ('data.std', (0.1,) * 4, '1 or 3 values'),
    ('data.std', (0.1, 0.0, 0.1), r'above 0, but is \(0.1, 0.0, 0.1\)'),
    ('data.crop_scale', (0.5,), r'\(\), or \(least, largest\) share'),
    ('data.crop_scale', (0.0, 1.0), r'\(\), or \(least, largest\) share'),
    ('data.crop_scale', (0.8, 0.5), r'\(\), or \(least, largest\) share, but is \(0.8, 0.5\)'),
    ('data.crop_scale', (0.5, 1.1), r'\(\), or \(least, largest\) share'),
    ('data.crop_aspect', (), r'\(least, largest\) above 0'),
    ('data.crop_aspect', (0.0, 1.0), r'\(least, largest\) above 0'),
    ('data.crop_aspect', (2.0, 1.0), r'\(least, largest\) above 0, but is \(2.0, 1.0\)'),
    ('eval.crop_ratio', 0.0, 'above 0 and at most 1, but is 0.0'),
    ('eval.crop_ratio', 1.01, 'above 0 and at most 1, but is 1.01'),
    ('data.rand_augment.magnitude', -0.5, '0 to 10, but is -0.5'),
    ('data.rand_augment.magnitude', 10.5, '0 to 10, but is 10.5'),
    ('data.rand_augment.operations', -1, r'0 \(off\) or more, but is -1'),
    *(
      (f'data.{name}', value, f'a probability, 0 to 1, but is {value}')
      for name in PROBABILITIES
      for value in (-0.1, 1.1)
    ),
    *((f'data.{name}', -0.1, r'0 \(off\) or more, but is -0.1') for name in AMOUNTS),
  ],
)
def test_settings_without_a_meaning_are_named(field, value, message):
  config = default.get_config()
  config.update_from_flattened_dict({field: value})
  with pytest.raises(ValueError, match=f'^{field} must .*{message}'):
    transforms.check_settings(config)
