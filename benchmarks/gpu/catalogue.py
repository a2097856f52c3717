"""All rows, the most important first: a call of some minutes has what matters."""

from benchmarks.gpu import card, correctness, networks, operations, peers
from benchmarks.gpu.rows import Row
from benchmarks.gpu.sizes import Sizes

DETERMINISTIC = ' deterministic'


def all_rows(sizes: Sizes) -> list[Row]:
  """Correctness, then times in bfloat16, then networks, then everything beside it; defaults first."""
  first, *other_batches = sizes.batches
  other_paths = operations.CONTEXTUAL_PATHS[1:]
  return [
    *card.rows(sizes),
    *correctness.rows(sizes, forced=False),
    *operations.contextual(sizes, first, 'bfloat16', (None,)),
    *correctness.rows(sizes, forced=True),
    *networks.rows(sizes, sizes.network_batches[0], 'bfloat16'),
    *peers.networks(sizes),
    *operations.plain(sizes, first, 'bfloat16'),
    *peers.operations(sizes),
    *operations.contextual(sizes, first, 'bfloat16', other_paths),
    *operations.contextual(sizes, first, 'float32', (None,)),
    *[row for b in sizes.network_batches[1:] for row in networks.rows(sizes, b, 'bfloat16')],
    *operations.plain(sizes, first, 'float32'),
    *[
      row
      for b in other_batches
      for dtype in ('bfloat16', 'float32')
      for row in operations.contextual(sizes, b, dtype, operations.CONTEXTUAL_PATHS)
    ],
    *operations.contextual(sizes, first, 'float32', other_paths),
    *[row for b in sizes.network_batches for row in networks.rows(sizes, b, 'float32')],
  ]


def deterministic_rows(sizes: Sizes) -> list[Row]:
  """What scatters in its gradients: the price of the same bits in every run is a ratio to the rows above."""
  return [
    *card.rows(sizes)[:1],
    *operations.contextual(sizes, sizes.batches[0], 'bfloat16', (None,), ('gradients',), DETERMINISTIC),
    *networks.rows(
      sizes, sizes.network_batches[0], 'bfloat16', ('training',), 'ctx_convnext_t', DETERMINISTIC
    ),
  ]
