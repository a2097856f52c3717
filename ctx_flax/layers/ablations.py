"""The parts that contextual convolutions can leave out, to measure their worth; ours, not the paper's."""

from typing import Any

from ctx_flax.nearest import nearest

# The three ways in which a layer adapts to an image. Without any of them a block has a plain convolution.
ADAPTATIONS = 'offsets', 'mask', 'kernel_delta'
# Without 'context' a layer adapts to the image alone: both branches get a context of zeros.
ABLATIONS = *ADAPTATIONS, 'context'


def check_ablate(ablate: Any) -> None:
  """ValueError, one line with the nearest name, unless `ablate` is a tuple of names of ABLATIONS."""
  if not isinstance(ablate, tuple):
    raise ValueError(f'ablate={ablate!r}: expected a tuple of names of {ABLATIONS}')
  for name in ablate:
    if name not in ABLATIONS:
      raise ValueError(f'ablate={ablate}: expected names of {ABLATIONS}{nearest(name, ABLATIONS)}')
