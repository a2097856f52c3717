"""How much contexts can differ: python -m experiments.context_variance

Merges random sets of 1,000 classes into contexts, with the parameters that a network starts with, and prints
the variance of the contexts over the sets as a share of their mean squared norm, for the paper's mean and for
`merge_contrast`. Takes a second or two.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ctx_flax.layers import Contextualizer

CLASSES = 1000
COUNTS = 660, 500, 200, 50, 5
SETS = 200
DIMS = 64  # of the context


def variance(count: int, contrast: bool, seed: int = 0) -> float:
  """The variance of contexts over random sets of `count` classes, as a share of their mean squared norm."""
  layers = Contextualizer(CLASSES, (count,), (8, 8), (DIMS,), merge_contrast=contrast)
  variables = layers.init(jax.random.key(seed), [jnp.zeros((1, 8))] * 2)
  rng = np.random.default_rng(seed)
  sets = np.stack([rng.permutation(CLASSES) < count for _ in range(SETS)])
  contexts = np.asarray(layers.apply(variables, sets, 2, method='context'), np.float64)
  return float(contexts.var(0).sum() / np.square(contexts).sum(1).mean())


def main() -> None:
  print('| considered of 1,000 | mean, as the paper % | merge_contrast % |\n|---|---|---|')
  for count in COUNTS:
    print(f'| {count} | {100 * variance(count, False):.2f} | {100 * variance(count, True):.0f} |')


if __name__ == '__main__':
  main()
