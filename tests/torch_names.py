"""Parameter names of the authors' PyTorch modules -> variables of ours, for tests on their values.

On purpose a second reading of the names beside ctx_flax.torch_weights, which is tested against it; this one
also knows single modules, and goes from their names to ours.
"""

import re

import flax.traverse_util
import numpy as np

# (pattern of a torch name without its last part, path of the module here)
ADAPTIVE = [
  (r'(.*)spatial_offset_layer\.0', r'\1sampling_proj'),
  (r'(.*)spatial_offset_layer\.1', r'\1sampling_norm'),
  (r'(.*)spatial_offset_layer\.3', r'\1sampling_out'),
  (r'(.*)weight_offset_layer\.0', r'\1kernel_proj'),
  (r'(.*)weight_offset_layer\.1', r'\1kernel_norm'),
  (r'(.*)weight_offset_layer\.3', r'\1kernel_out'),
  (r'(.*)conv\.?', r'\1'),  # the main convolution is a submodule there
]
CONTEXTUALIZER = [
  (r'(?:cls\.)?visual_proj_heads\.(\d)\.nonlinear\.0', r'head<\1>.proj'),
  (r'(?:cls\.)?visual_proj_heads\.(\d)\.nonlinear\.1', r'head<\1>.norm'),
  (r'(?:cls\.)?visual_proj_heads\.(\d)\.nonlinear\.3', r'head<\1>.out'),
  (r'(?:cls\.)?class_mergers\.(\d)\.in_nonlinear\.0', r'merger<\1>.inner'),
  (r'(?:cls\.)?class_mergers\.(\d)\.in_nonlinear\.1', r'merger<\1>.inner_norm'),
  (r'(?:cls\.)?class_mergers\.(\d)\.out_nonlinear\.0', r'merger<\1>.outer'),
  (r'(?:cls\.)?class_mergers\.(\d)\.out_nonlinear\.1', r'merger<\1>.outer_norm'),
  (r'(?:cls\.)?class_token_embedding', r''),
]
BLOCK = r'stage\1_block\2.'
CONVNEXT = [
  (r'downsample_layers\.0\.0', 'stem_conv'),
  (r'downsample_layers\.0\.1', 'stem_norm'),
  (r'downsample_layers\.(\d)\.0', r'downsample<\1>_norm'),
  (r'downsample_layers\.(\d)\.1', r'downsample<\1>_conv'),
  (r'stages\.(\d)\.(\d+)\.dwconv\.conv', r'stage<\1>_block\2.dwconv'),
  (r'stages\.(\d)\.(\d+)\.(dwconv\..*)', r'stage<\1>_block\2.\3'),
  (r'stages\.(\d)\.(\d+)\.(norm|pwconv1|pwconv2)', r'stage<\1>_block\2.\3'),
]
RESNET = [
  (r'(conv1|bn1)', r'\1'),
  (r'layer(\d)\.(\d+)\.conv2\.conv', r'stage\1_block\2.conv2'),
  (r'layer(\d)\.(\d+)\.(conv2\..*|conv\d|bn\d)', r'stage\1_block\2.\3'),
  (r'layer(\d)\.(\d+)\.downsample\.0', r'stage\1_block\2.downsample_conv'),
  (r'layer(\d)\.(\d+)\.downsample\.1', r'stage\1_block\2.downsample_bn'),
]


def _module(name, rules):
  for pattern, path in rules:
    match = re.fullmatch(pattern, name)
    if match:
      path = match.expand(path)
      return re.sub(r'<(\d)>', lambda m: str(int(m[1]) + 1), path)  # stages count from one here
  raise KeyError(f'no rule for {name}')


def variables_from_torch(arrays, family):
  """{torch name: array} -> {'params': ..., 'batch_stats': ...}, every name accounted for."""
  flat = {}
  for name, value in arrays.items():
    if name.endswith('num_batches_tracked'):
      continue
    (collection, *path), value = variable_from_torch(name, value, family)
    assert (collection, *path) not in flat, name
    flat[(collection, *path)] = value
  return flax.traverse_util.unflatten_dict(flat)


def variable_from_torch(name, value, family):
  """One torch name and array -> (path with its collection, array in our layout)."""
  value = np.asarray(value)
  head, _, last = name.rpartition('.')
  if name in ('logit_scale', 'cls.logit_scale'):
    return ('params', *_prefix(name), 'logit_scale'), value
  if 'class_token_embedding' in name:
    return ('params', *_prefix(name), 'class_embedding'), value
  if last == 'gamma':
    path = _module(f'{head}.norm', CONVNEXT).rpartition('.')[0]
    return ('params', path, 'layer_scale', 'gamma'), value
  if 'visual_proj_heads' in name or 'class_mergers' in name:
    path = [*_prefix(name), *_module(head, CONTEXTUALIZER).split('.')]
  else:
    rules = {'conv': ADAPTIVE, 'convnext': CONVNEXT, 'resnet': RESNET}[family]
    path = _module(head, rules)
    if family != 'conv' and re.search(r'(spatial|weight)_offset_layer', path):
      path = _module(path, ADAPTIVE)
    path = [part for part in path.split('.') if part]
  if last in ('running_mean', 'running_var'):
    return ('batch_stats', *path, last.removeprefix('running_')), value
  if last == 'weight' and value.ndim == 1:
    return ('params', *path, 'scale'), value
  if last == 'bias':
    return ('params', *path, 'bias'), value
  if value.ndim == 4:
    value = value.transpose(2, 3, 1, 0)
    if path[-1:] == ['sampling_proj']:
      value = value[0, 0]
  else:
    value = value.T
  return ('params', *path, 'kernel'), value


def _prefix(name):
  return ('contextualizer',) if name.startswith('cls.') else ()
