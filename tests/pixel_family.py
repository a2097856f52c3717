"""A family of contextual networks without convolutions: a run of classification that compiles in no time."""

import flax.linen as nn

from ctx_flax.models import Network


class Pixels(Network):
  """Three stages that look at every eighth pixel of an image, each at the context before it too."""

  depths: tuple[int, ...] = (1, 1, 1)
  dims: tuple[int, ...] = (4, 4, 4)

  default_contextual_every = 1
  contextual_conv = 'look'
  class_head = 'answer/kernel', 'answer/bias'

  @property
  def strides(self):
    return 8, 8, 8

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
    features_only=False,
    valid_hw=None,
    class_counts=None,
  ):
    self.check_images(images)
    funnel = self.class_funnel(images.shape[0], class_counts=class_counts, add=add)
    x = images[:, ::8, ::8]
    for stage, dim in enumerate(self.dims, 1):
      x = nn.Dense(dim, name=f'stage{stage}_block0')(x)
      if funnel.context is not None:
        x = x + nn.Dense(dim, name=f'context{stage}')(funnel.context)[:, None, None]
      x = funnel.out.record(f'stage{stage}', nn.tanh(x))
      logits = funnel.narrow(x, stage, train=train)
    return logits, funnel.out.finish()


MODELS = {'ctx_pixels': (Pixels, {'contextual': True})}
