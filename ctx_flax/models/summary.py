"""What a network is made of: output shapes, parameters and multiply-accumulates, layer by layer.

Everything is derived from shapes; nothing is computed. Multiply-accumulates (MACs) are those of one image, or
of all frames of one clip:
convolutions, matrix products and the weighted sums of samples. Not counted: bilinear interpolation, norms and
activations. As in the paper's tables a contextual convolution counts as the plain one of its size plus its
two branches, a branch as if it read the context at every pixel, and a merger by the rows of the considered
classes. (What runs is a little cheaper at the branches; the mergers make a table of all classes once a step.)
The heads of a detector count for all proposals and detections of a test, the sampling of their features not.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctx_flax.layers.contextualizer import ClassMerger
from ctx_flax.models.detection import Detector
from ctx_flax.models.detection.mask_head import Upsampling
from ctx_flax.models.network import Network


@dataclasses.dataclass(frozen=True)
class Layer:
  """A module with parameters of its own.

  Attributes:
    path: names from the outside in, 'stage2_block0/dwconv'.
    kind: the module's class.
    shape: of its output for one image, frame or region, without the batch; of the finest map if it serves
      several; () where it is not one array.
    parameters: how many are its own.
    macs: of one image or clip.
  """

  path: str
  kind: str
  shape: tuple[int, ...]
  parameters: int
  macs: int


def summarise(model: Network | Detector, image_shape: Sequence[int], depth: int = 0) -> list[Layer]:
  """The layers of a network in the order in which they run.

  Args:
    model: a network or a detector of ctx_flax.models.
    image_shape: (h, w, c), or (t, h, w, c) of a network of clips.
    depth: how many names of a path to keep: 1 puts the layers of each block together; 0 keeps all apart.

  Returns:
    [Layer, ...], whose parameters add up to the network's and whose MACs to those of one image.
  """
  # path -> (kind, shape, MACs) of every module that ran.
  seen: dict[str, tuple[str, tuple[int, ...], int]] = {}

  def watch(call: Callable[..., Any], args: Any, keywords: Any, context: nn.module.InterceptorContext) -> Any:
    y = call(*args, **keywords)
    module = context.module
    path = '/'.join(module.path)
    if context.method_name == 'score':  # of the contextualizing layers, once per stage
      _, _, macs = seen.get(path, ('', (), 0))
      seen[path] = type(module).__name__, (), macs + len(y) * module.num_classes * module.embed_dim
    elif context.method_name == '__call__':
      first = y[0] if isinstance(y, tuple) else y
      rows, *shape = first.shape if hasattr(first, 'shape') else (1,)
      new = type(module).__name__, tuple(shape), _macs(module, rows, shape)
      kind, of_first, before = seen.get(path, (*new[:2], 0))
      seen[path] = kind, of_first, before + new[2]  # the head of proposals serves several maps
      if isinstance(module, ClassMerger):  # the table is one, but every context merges its own classes
        kind, shape, macs = seen[f'{path}/inner']
        seen[f'{path}/inner'] = kind, shape, rows * macs
    return y

  def run(images: jax.Array) -> Any:
    variables = model.init(jax.random.key(0), images, train=False)
    seen.clear()  # init has been watched too
    with nn.intercept_methods(watch):
      model.apply(variables, images, train=False)
    return variables['params']

  params = jax.eval_shape(run, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
  sizes: dict[str, int] = {}
  for keys, leaf in jax.tree_util.tree_leaves_with_path(params):
    name = '/'.join(key.key for key in keys[:-1])
    sizes[name] = sizes.get(name, 0) + leaf.size
  unknown: tuple[str, tuple[int, ...], int] = '', (), 0
  layers: dict[str, Layer] = {}
  for path in sorted(sizes, key=[*seen, *sizes].index):
    name = '/'.join(path.split('/')[:depth]) if depth else path
    kind, shape, _ = seen.get(name, unknown)
    before = layers.get(name, Layer(name, kind, shape, 0, 0))
    macs = before.macs + seen.get(path, unknown)[2]
    layers[name] = Layer(name, kind, shape, before.parameters + sizes[path], macs)
  return list(layers.values())


def _macs(module: nn.Module, rows: int, shape: Sequence[int]) -> int:
  """Every value of a kernel is used once at every position of the output."""
  if not module.has_variable('params', 'kernel'):
    return 0
  positions = rows * math.prod(shape[:-1])
  if isinstance(module, Upsampling):
    positions //= 4  # it is used at those of the input
  if isinstance(module.parent, ClassMerger) and module.name == 'inner':
    # It runs on the table of all classes; those that are considered count.
    positions = _class_counts(module.parent)
  return module.get_variable('params', 'kernel').size * positions


def _class_counts(merger: nn.Module) -> int:
  """How many classes the merger of a stage merges."""
  contextualizer: Any = merger.parent
  return contextualizer.class_counts[int(str(merger.name).removeprefix('merger')) - 2]
