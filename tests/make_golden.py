"""Writes golden.npz: contextual convolutions and contextualizing layers in float64 NumPy.

    python tests/make_golden.py

Derived from the definitions with the operations of reference.py; shares nothing with ctx_flax. The same
derivation reproduces the authors' released modules. Parameters carry the names of our layers, joined by '/'.
"""

import pathlib

import numpy as np
import reference

PATH = pathlib.Path(__file__).parent / 'golden.npz'


def random_tree(rng, shapes):
  return {name: (0.5 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}


def linear(p, name, x):
  return x @ p[f'{name}/kernel'].astype(np.float64) + p[f'{name}/bias']


def layer_norm(p, name, x, eps):
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
  return x * p[f'{name}/scale'] + p[f'{name}/bias']


def batch_norm(p, name, x, train, after):
  """Over all axes but the last; `after` receives the running statistics after this batch."""
  rows = x.reshape(-1, x.shape[-1])
  mean, var = (p[f'{name}/{key}'].astype(np.float64) for key in ('mean', 'var'))
  if train:
    after[f'{name}/mean'] = 0.9 * mean + 0.1 * rows.mean(0)
    after[f'{name}/var'] = 0.9 * var + 0.1 * rows.var(0, ddof=1)
    mean, var = rows.mean(0), rows.var(0)
  return (x - mean) / np.sqrt(var + 1e-5) * p[f'{name}/scale'] + p[f'{name}/bias']


def contextual_conv(p, x, context, *, depthwise, k, strides, norm, train=False):
  after = {}

  def branch_norm(name, z, eps):
    return layer_norm(p, name, z, eps) if norm == 'layer' else batch_norm(p, name, z, train, after)

  b, h, w, c = x.shape
  everywhere = np.broadcast_to(context[:, None, None], (b, h, w, context.shape[-1]))
  z = linear(p, 'sampling_proj', np.concatenate([everywhere, x], -1))
  z = np.maximum(branch_norm('sampling_norm', z, 1e-6), 0)
  u, v = -(-h // strides), -(-w // strides)
  z = reference.deform_conv(
    z,
    p['sampling_out/kernel'].astype(np.float64),
    np.zeros((b, u, v, k * k, 2)),
    strides=strides,
    padding=k // 2,
    bias=p['sampling_out/bias'],
  )
  offsets = np.stack([z[..., 0 : 2 * k * k : 2], z[..., 1 : 2 * k * k : 2]], -1)
  mask = 1 / (1 + np.exp(-z[..., 2 * k * k :]))
  z = linear(p, 'kernel_proj', np.concatenate([context, x.mean((1, 2))], -1))
  z = linear(p, 'kernel_out', np.maximum(branch_norm('kernel_norm', z, 1e-5), 0))
  delta = np.moveaxis(z.reshape(b, c, k, k), 1, -1)
  op = reference.contextual_depthwise_conv if depthwise else reference.contextual_conv
  y = op(x, p['kernel'].astype(np.float64), delta, offsets, mask, strides=strides, padding=k // 2)
  y = y + p.get('bias', 0)
  return {'y': y, 'offsets': offsets, 'mask': mask, 'kernel_delta': delta} | {
    f'after/{name}': value for name, value in after.items()
  }


def conv_shapes(c, d, k, e, hidden, depthwise, norm, bias):
  shapes = {
    'kernel': (k, k, 1 if depthwise else c, d),
    'sampling_proj/kernel': (e + c, hidden),
    'sampling_proj/bias': (hidden,),
    'sampling_out/kernel': (k, k, hidden, 3 * k * k),
    'sampling_out/bias': (3 * k * k,),
    'kernel_proj/kernel': (e + c, hidden),
    'kernel_proj/bias': (hidden,),
    'kernel_out/kernel': (hidden, c * k * k),
    'kernel_out/bias': (c * k * k,),
  }
  for name in ('sampling_norm', 'kernel_norm'):
    for leaf in ('scale', 'bias', *(('mean', 'var') if norm == 'batch' else ())):
      shapes[f'{name}/{leaf}'] = (hidden,)
  return shapes | ({'bias': (d,)} if bias else {})


def contextualizing(p, features, counts, selection):
  """Scores of every stage, which classes it considers, and the contexts of stages 2-4."""
  out, n = {}, p['class_embedding'].shape[0]
  table = p['class_embedding'].astype(np.float64)
  considered = np.ones((features[0].shape[0], n), bool)
  for stage, x in enumerate(features, 1):
    z = np.maximum(
      layer_norm(p, f'head{stage}/norm', linear(p, f'head{stage}/proj', x.mean((1, 2))), 1e-5), 0
    )
    u = linear(p, f'head{stage}/out', z)
    lengths = np.linalg.norm(u, axis=-1)[:, None] * np.linalg.norm(table, axis=-1)[None]
    scores = np.exp(np.float64(p['logit_scale'])) * (u @ table.T) / lengths
    out |= {f'scores{stage}': scores, f'considered{stage}': considered}
    if stage == len(features):
      return out
    contexts, kept = [], np.zeros_like(considered)
    for i, row in enumerate(np.where(considered | (selection == 'rerank'), scores, -np.inf)):
      best = np.argsort(-row, kind='stable')[: counts[stage - 1]]
      kept[i, best] = True
      name = f'merger{stage + 1}'
      inner = np.maximum(
        layer_norm(p, f'{name}/inner_norm', linear(p, f'{name}/inner', table[best]), 1e-5), 0
      )
      merged = layer_norm(p, f'{name}/outer_norm', linear(p, f'{name}/outer', inner.mean(0)), 1e-5)
      contexts.append(np.maximum(merged, 0))
    considered, out[f'context{stage + 1}'] = kept, np.stack(contexts)


def contextualizing_shapes(n, e, dims):
  shapes = {'class_embedding': (n, e), 'logit_scale': ()}
  for stage, dim in enumerate(dims, 1):
    for name, i, o in (('proj', dim, dim), ('out', dim, e)):
      shapes |= {f'head{stage}/{name}/kernel': (i, o), f'head{stage}/{name}/bias': (o,)}
    shapes |= {f'head{stage}/norm/scale': (dim,), f'head{stage}/norm/bias': (dim,)}
  for stage, dim in enumerate(dims[:-1], 2):
    for name, i, o in (('inner', e, 128), ('outer', 128, dim)):
      shapes |= {f'merger{stage}/{name}/kernel': (i, o), f'merger{stage}/{name}/bias': (o,)}
      shapes |= {f'merger{stage}/{name}_norm/scale': (o,), f'merger{stage}/{name}_norm/bias': (o,)}
  return shapes


def main():
  rng = np.random.default_rng(0)
  data = {}

  def add(case, part, arrays):
    for name, value in arrays.items():
      kept = np.asarray(value) if np.asarray(value).dtype == bool else np.asarray(value, np.float32)
      data[f'{case}/{part}/{name}'] = kept

  for case, c, d, k, strides, norm in (('depthwise', 6, 6, 5, 1, 'layer'), ('dense', 4, 5, 3, 2, 'batch')):
    depthwise = case == 'depthwise'
    p = random_tree(rng, conv_shapes(c, d, k, 3, 4, depthwise, norm, depthwise))
    for name in p:
      if name.endswith('/var'):
        p[name] = np.abs(p[name]) + 0.5
    x = rng.standard_normal((3, 6, 5, c)).astype(np.float32)
    context = rng.standard_normal((3, 3)).astype(np.float32)
    add(case, 'param', p)
    add(case, 'in', {'x': x, 'context': context})
    options = {'depthwise': depthwise, 'k': k, 'strides': strides, 'norm': norm}
    wide = x.astype(np.float64), context.astype(np.float64)
    add(case, 'eval', contextual_conv(p, *wide, **options))
    if norm == 'batch':
      add(case, 'train', contextual_conv(p, *wide, **options, train=True))

  dims, counts = (4, 5, 6, 7), (8, 5, 3)
  p = random_tree(rng, contextualizing_shapes(12, 8, dims))
  features = [rng.standard_normal((4, 3, 3, dim)).astype(np.float32) for dim in dims]
  add('classes', 'param', p)
  add('classes', 'in', {f'x{stage}': x for stage, x in enumerate(features, 1)})
  for selection in ('reduction', 'rerank'):
    wide = [x.astype(np.float64) for x in features]
    add('classes', selection, contextualizing(p, wide, counts, selection))
  np.savez_compressed(PATH, **data)
  print(f'{PATH.name}: {len(data)} arrays, {PATH.stat().st_size / 1024:.0f} KiB')


if __name__ == '__main__':
  main()
