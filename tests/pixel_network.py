"""A contextual network without convolutions, for what a step does whatever the network is."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from steps import CLASSES, deciding

from ctx_flax.layers.blocks import DropPath
from ctx_flax.layers.contextualizer import Contextualizer

SHAPE = (2, 2, 1)  # of an image


class PixelNetwork(nn.Module):
  """Four contextualizing layers on the pixels of a tiny image."""

  class_selection: str = 'reduction'
  class_counts: tuple[int, ...] = (8, 6, 4)
  num_classes: int = CLASSES
  contextual: bool = True
  drop_path_rate: float = 0.0
  dims: tuple[int, ...] = (4, 4, 4, 4)
  axis_name: Any = None

  @nn.compact
  def __call__(self, images, *, train=False, class_counts=None):
    layers = Contextualizer(
      self.num_classes, self.class_counts, (8,) * 4, (8,) * 3, embed_dim=8, selection=self.class_selection
    )
    x = images.reshape(images.shape[0], -1)
    considered, out = jnp.ones((images.shape[0], self.num_classes), bool), {}
    for stage in (1, 2, 3, 4):
      x = x + DropPath(self.drop_path_rate)(nn.tanh(nn.Dense(4, name=f'stage{stage}')(x)), train=train)
      scores = layers.score(x, stage)
      out |= {f'scores{stage}': scores, f'considered{stage}': considered}
      if stage < 4:
        count = None if class_counts is None else class_counts[stage - 1]
        considered = layers.select(scores, considered, stage, count)
        x = x + nn.Dense(4, name=f'merge{stage}')(layers.context(considered, stage + 1))
    return scores, deciding(out, self.class_selection)
