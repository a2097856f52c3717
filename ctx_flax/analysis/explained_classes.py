"""Which classes of an image are explained, and what a network says about them."""

import difflib
import unicodedata

import jax
import numpy as np

from ctx_flax.models.network import stages_of

AT_ONCE = 8  # images of a gradient: a folder of files may hold more than fit into memory


def class_number(given, class_names):
  """The number of a class by its name, or by its number if no class has such a name.

  Names that differ by their Unicode normal form alone are the same.

  Raises:
    ValueError: there is none; the nearest name is told.
  """
  name, names = normal(given), [normal(known) for known in class_names]
  if name in names:
    return names.index(name)
  number = name.isdecimal()
  if number and int(given) < len(class_names):
    return int(given)
  hint = f'they are numbered 0 to {len(class_names) - 1}'
  if not number:
    hint = f'the nearest name is {difflib.get_close_matches(name, names, 1, cutoff=0)[0]!r}'
  raise ValueError(f'grad_cam.classes holds {given!r}, which is no class of this run: {hint}')


def normal(name):
  """A class name in the Unicode normal form NFC."""
  return unicodedata.normalize('NFC', str(name))


def outputs(run, images):
  """{'probabilities', 'scores': float32 (m, n), 'dropped': int (m, n)} of the last stage.

  'dropped' is the first stage that does not consider the class any more; 0 for classes that have a
  probability, with class_selection 'rerank' all.
  """

  def said(some):
    logits, out = run.apply(run.variables, some)
    last = stages_of(out)[-1]
    kept = {name: value for name, value in out.items() if name.startswith('considered')}
    return {'logits': logits, 'scores': out[f'scores{last}'], **kept}

  found = a_few_at_a_time(said, images.arrays)
  dropped = np.zeros(found['logits'].shape, np.int32)
  for stage in range(len(run.model.dims), 1, -1) if run.model.contextual else ():
    dropped = np.where(found[f'considered{stage}'], dropped, stage)
  return {
    'probabilities': np.asarray(jax.nn.softmax(found['logits'])),
    'scores': found['scores'].astype(np.float32),
    'dropped': np.where(np.isneginf(found['logits']), dropped, 0),
  }


def chosen_classes(images, said, classes=()):
  """Which classes are explained: int (m, k).

  Args:
    images: Images; a label of -1 is not known, the first network's answer then takes its place.
    said: {network: what `outputs` returned}.
    classes: numbers of classes; () for the true one and its strongest rival: the other class to which any
      network gives the highest probability, and among equal ones (of probability 0) the highest score.
  """
  m = len(images)
  if classes:
    return np.tile(np.asarray(classes, np.int64), (m, 1))
  first = next(iter(said.values()))
  true = np.where(images.labels >= 0, images.labels, first['probabilities'].argmax(-1)).astype(np.int64)
  probabilities = np.max([one['probabilities'] for one in said.values()], axis=0)
  scores = np.max([one['scores'] for one in said.values()], axis=0)
  rows = np.arange(m)
  probabilities[rows, true], scores[rows, true] = -1, -np.inf
  tied = probabilities == probabilities.max(-1, keepdims=True)
  return np.stack([true, np.where(tied, scores, -np.inf).argmax(-1)], 1)


def a_few_at_a_time(function, *arrays):
  """function(*arrays), with a row per image, of AT_ONCE images at a time: one shape, compiled once."""
  m = len(arrays[0])
  size = min(m, AT_ONCE)
  parts = []
  for start in range(0, m, size):
    rows = np.minimum(np.arange(start, start + size), m - 1)  # the last batch is filled up with its last
    parts.append(jax.tree.map(np.asarray, function(*(array[rows] for array in arrays))))
  return jax.tree.map(lambda *part: np.concatenate(part)[:m], *parts)
