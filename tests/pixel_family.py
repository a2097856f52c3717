"""A family of contextual networks without convolutions: a run of classification that compiles in no time."""

import contextlib

import flax.linen as nn
import pytest
from tiny import tiny_config

from ctx_flax.layers.pooling import global_average_pool
from ctx_flax.models import MODELS as ALL_MODELS
from ctx_flax.models import Network


class Pixels(Network):
  """Stages, three by default, that look at every eighth pixel of an image and at the context before them."""

  depths: tuple[int, ...] = (1, 1, 1)
  dims: tuple[int, ...] = (4, 4, 4)

  default_contextual_every = 1
  contextual_conv = 'look'
  class_head = 'answer/kernel', 'answer/bias'

  @property
  def strides(self):
    return (8,) * len(self.dims)

  @nn.nowrap
  def first_centre(self, scale):
    return 0.0

  @nn.compact
  def __call__(
    self,
    images,
    *,
    train=False,
    train_norm=None,
    add=None,
    replace=None,
    features_only=False,
    valid_hw=None,
    class_counts=None,
  ):
    self.check_images(images)
    funnel = self.class_funnel(images.shape[0], class_counts=class_counts, add=add, replace=replace)
    x = images[:, ::8, ::8]
    for stage, dim in enumerate(self.dims, 1):
      x = nn.Dense(dim, name=f'stage{stage}_block0')(x)
      if funnel.context is not None:
        x = x + nn.Dense(dim, name=f'context{stage}')(funnel.context)[:, None, None]
      x = funnel.out.record(f'stage{stage}', nn.tanh(x))
      if stage < len(self.dims):
        funnel.narrow(x, stage, train=train)
    if features_only:
      return None, funnel.out.finish()
    pooled = funnel.out.record('pre_logits', global_average_pool(x))
    logits = funnel.narrow(pooled, stage, train=train)
    if logits is None:
      logits = funnel.classify(nn.Dense(self.num_classes, name='answer')(pooled), stage)
    return logits, funnel.out.finish()


class FourPixels(Pixels):
  """With as many stages as the usual networks have."""

  depths: tuple[int, ...] = (1, 1, 1, 1)
  dims: tuple[int, ...] = (4, 4, 4, 4)


MODELS = {
  'ctx_pixels': (Pixels, {'contextual': True}),
  'ctx_four_pixels': (FourPixels, {'contextual': True}),
  'four_pixels': (FourPixels, {}),
}


@contextlib.contextmanager
def known():
  """The family is one of those that configs and files name."""
  with pytest.MonkeyPatch.context() as patch:
    for name, entry in MODELS.items():
      patch.setitem(ALL_MODELS, name, entry)
    yield


def four_stages(config=None):
  """The run of tiny.py, or of a config, with a network of four stages."""
  config = config or tiny_config()
  config.model.update(name='ctx_four_pixels', depths=(1, 1, 1, 1), dims=(4, 4, 4, 4), embed_dim=8)
  config.model.drop_path_rate = 0.0
  return config


def make_plain(config):
  """The config with the plain network of the same stages."""
  config.model.name, config.model.class_counts = 'four_pixels', ()
  return config
