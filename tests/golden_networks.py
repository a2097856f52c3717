"""The networks of which there are values of the authors' released code."""

import functools

from ctx_flax.models import create_model

NETWORKS = {
  'd_ctx_convnext_small': (
    'convnext',
    {'depths': (3, 3, 3, 3), 'dims': (16, 32, 64, 128), 'contextual_every': 3},
  ),
  'f_ctx_resnet_small': ('resnet', {'depths': (3, 4, 6, 3), 'dims': (8, 16, 32, 64), 'contextual_every': 2}),
}


@functools.cache
def network(family, selection):
  attributes = next(a for f, a in NETWORKS.values() if f == family)
  return create_model(
    f'ctx_{family}_mini',
    num_classes=20,
    class_counts=(10, 6, 5),
    embed_dim=32,
    class_selection=selection,
    **attributes,
  )


def part(data, prefix):
  return {k.removeprefix(prefix): v for k, v in data.items() if k.startswith(prefix)}
