"""Which part of a network a launch comes from, by jax's path of names."""

import collections
import re

from benchmarks.gpu_program.launches import Launch

# The first that fits.
CAUSES = (
  ('optimizer', r'/optimizer/'),
  ('contextual convolutions', r'jit\(_contextual_sum\)'),
  ('their branches', r'\._(sampling|kernel)_branch/'),
  ('classes and contexts', r'/contextualizer'),
  ('convolutions', r'/(dwconv|conv\d?|stem_conv|downsample\w*_conv)/'),
  ('norms', r'/\w*(norm|bn\d?)/'),
  ('pointwise layers', r'/pwconv\d/'),
  ('activations, scales, residuals', r'/stage\d+_block\d+/'),
)


def by_cause(launches: list[Launch]) -> dict[str, int]:
  """{cause: number of launches}, most first; what XLA gives no origin, or another, is 'other'."""
  counts: collections.Counter[str] = collections.Counter()
  for launch in launches:
    cause = next((name for name, pattern in CAUSES if re.search(pattern, launch.origin)), 'other')
    counts[cause] += launch.times
  return dict(counts.most_common())


def largest(launches: list[Launch], number: int = 3) -> list[str]:
  """The largest results of launches, as 'MB shape, origin'."""
  distinct = {(launch.bytes, launch.shape, _end(launch.origin)): None for launch in launches}
  chosen = sorted(distinct, reverse=True)[:number]
  return [f'{size / 1e6:,.1f} MB {_short(shape)} {origin}'.rstrip() for size, shape, origin in chosen]


def _short(shape: str) -> str:
  shape = re.sub(r'\{[^}]*\}', '', re.sub(r'/\*.*?\*/', '', shape))
  return shape if len(shape) <= 60 else f'{shape[:57]}...'


def _end(origin: str) -> str:
  return '/'.join(origin.split('/')[-2:])
