"""One change at a time to an arm of the experiments on emoji, to see what its accuracy depends on.

Each variation has the steps, the learning rate and the seeds of its arm, and is compared with it.
"""

from typing import Any

FAST_EMBEDDINGS = (
  ('contextualizer/class_embedding', 5.0, 1.0),
  ('(?!contextualizer/class_embedding$).*', 1.0, 1.0),
)
# Name -> (arm, {field: value}, in words).
VARIATIONS: dict[str, tuple[str, dict[str, Any], str]] = {
  'naive-embeddings-5': (
    'naive',
    {'optimizer.groups': FAST_EMBEDDINGS},
    'five times the learning rate for the class embeddings',
  ),
  'naive-branches-24': ('naive', {'model.branch_dim': 24}, 'branches of 24 channels instead of 2, 4, 8'),
  'naive-gain-2': ('naive', {'model.mask_gain': 2.0}, 'a mask that starts at 1 instead of one half'),
  'rerank-contrast': (
    'rerank',
    {'model.merge_contrast': True},
    'contexts of what sets the considered classes apart',
  ),
  'rerank-branches-24': ('rerank', {'model.branch_dim': 24}, 'branches of 24 channels'),
  'rerank-contrast-branches-24': (
    'rerank',
    {'model.merge_contrast': True, 'model.branch_dim': 24},
    'both',
  ),
  'rerank-alpha-0.5': ('rerank', {'loss.alpha': 0.5}, 'alpha 0.5 instead of 0.15'),
  'rerank-embed-64': ('rerank', {'model.embed_dim': 64}, 'class embeddings of 64 values instead of 256'),
}


def varied(name: str, config: Any) -> Any:
  """The config of an arm -> that of its variation."""
  config = config.copy_and_resolve_references()
  for path, value in VARIATIONS[name][1].items():
    group, field = path.split('.')
    config[group][field] = value
  return config
