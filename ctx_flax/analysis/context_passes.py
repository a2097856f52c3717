"""What a network decides with other contexts than its own, and without an adaptation: two passes.

The first pass looks at all test images as they are and with parts of the convolutions left out, and keeps the
sets of classes that the contexts were made of. The second gives each image other contexts. These replace the
context vectors alone: the classes that a stage decides between follow from scores, as usual.

Axes: m images, b those of a batch, t frames of a clip that have contexts of their own, n classes, e context.
Sets of classes are packed, 8 classes a byte.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ctx_flax.analysis import context_sets
from ctx_flax.analysis.all_images import outputs_in_batches
from ctx_flax.analysis.context_terms import contexts_of, reads_contexts, stage_terms, without
from ctx_flax.data.decode import BadImage
from ctx_flax.models.inference import apply_in_turn

OWN = 'own'
# Contexts that an image gets in place of its own, and the adaptation that each of the other rows leaves out.
CONTEXTS = 'other_image', 'all_classes', 'confused', 'random'
ABLATED = {'no_kernel_delta': 'kernel_delta', 'no_offsets': 'offsets', 'half_mask': 'mask'}


@dataclasses.dataclass(frozen=True)
class Observed:
  """The results of the two passes.

  Attributes:
    label: int (m,).
    terms: {row: {name: (m,)}}, see `stage_terms`; rows are OWN and those of CONTEXTS and ABLATED that have a
      meaning in this network.
    same_class: share of the images that were given the context of an image of their own class.
    variance: {stage: variance of the context over images, as a share of its mean squared norm}.
    shared: {stage: share of the classes that the sets of two images have in common, mean over all pairs}.
  """

  label: np.ndarray
  terms: dict[str, dict[str, np.ndarray]]
  same_class: float
  variance: dict[int, float]
  shared: dict[int, float]


def observe(run, seed):
  """The Observed of a contextual run; `seed` draws the other images and the random classes.

  Raises:
    BadImage: fewer than two images could be read.
  """
  first = _FirstPass(run)
  if len(first.label) < 2:
    raise BadImage(f'only {len(first.label)} of the test {run.task.examples} could be read: 2 are needed')
  other, given = context_sets.other_images(first.label, seed), {}
  if reads_contexts(run.model):
    given = _with_other_contexts(run, first, other, seed)
  every = first.terms() | given
  return Observed(
    first.label,
    {row: every[row] for row in (OWN, *CONTEXTS, *ABLATED) if row in every},
    float((first.label[other] == first.label).mean()),
    first.variance(),
    first.shared(),
  )


class _FirstPass:
  """The pass over all test images as they are; gathers what choosing other contexts needs."""

  def __init__(self, run: Any) -> None:
    self.run = run
    self.stages = range(2, len(run.model.dims) + 1)  # those that have a context
    parts: list[dict] = []
    # [c, k]: the sum, over the images of class c, of the probability of k at the stage before.
    self.confusions = {s: np.zeros((run.num_classes,) * 2) for s in self.stages}
    self._times = {s: np.zeros(run.num_classes, np.int64) for s in self.stages}
    self._sums: dict[int, Any] = dict.fromkeys(self.stages, 0.0)
    self._squares = dict.fromkeys(self.stages, 0.0)
    self._rows = 0  # images, or frames
    for part in outputs_in_batches(run, self._outputs(), 'contexts of their own'):
      self._add(part)
      parts.append(part)
    self.rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    self.label, self.index = self.rows['label'], self.rows['index']
    # {stage: packed (m, [t], bytes)}
    self.sets = {s: self.rows[f'set{s}'] for s in self.stages}

  def terms(self):
    return _by_row(self.rows)

  def variance(self):
    found = {}
    for s in self.stages:
      mean, square = self._sums[s] / self._rows, self._squares[s] / self._rows
      found[s] = max(square - float(mean @ mean), 0.0) / square if square else 0.0
    return found

  def shared(self):
    counts = zip(self.stages, self.run.class_counts, strict=True)
    return {s: context_sets.shared_classes(self._times[s], self._rows, count) for s, count in counts}

  def _outputs(self):
    run, stages = self.run, self.stages
    networks = {OWN: (run.model, lambda variables: variables)} | {
      row: without(run.model, name) for row, name in ABLATED.items() if name not in run.model.ablate
    }

    def outputs(variables, batch):
      images, label = run.task.inputs(run.config, batch['image']), batch['label']
      found = {'label': label}
      for row, (network, prepare) in networks.items():
        _, out = apply_in_turn(network, prepare(variables), images)
        said = run.task.decisions(network, out)
        found |= {f'{row}/{name}': value for name, value in stage_terms(said, label).items()}
        if row == OWN:
          for s in stages:
            found[f'set{s}'] = jnp.packbits(out[f'considered{s}'], axis=-1)
            found[f'context{s}'] = out[f'context{s}'].astype(jnp.float32)
            found[f'probability{s}'] = jax.nn.softmax(said[f'logits{s - 1}'])
      return found

    return outputs

  def _add(self, part):
    """Removes the arrays that are too large to keep for every image from a batch, and adds them up."""
    for s in self.stages:
      np.add.at(self.confusions[s], part['label'], part.pop(f'probability{s}'))
      context = part.pop(f'context{s}')
      context = context.reshape(-1, context.shape[-1]).astype(np.float64)
      self._sums[s] = self._sums[s] + context.sum(0)
      self._squares[s] += float((context**2).sum())
      sets = np.unpackbits(part[f'set{s}'], axis=-1, count=self.run.num_classes)
      self._times[s] += sets.reshape(-1, self.run.num_classes).sum(0, dtype=np.int64)
    self._rows += len(context)


def _with_other_contexts(run, first, other, seed):
  """{row of CONTEXTS: what `stage_terms` returned}."""
  model, n, counts = run.model, run.num_classes, run.class_counts
  confused = np.stack(
    [
      context_sets.confused_classes(first.confusions[s], c) for s, c in zip(first.stages, counts, strict=True)
    ],
    1,
  )
  # The place of every image among those that could be read; any place for the others, which do not count.
  place = np.zeros(max(int(first.index.max()) + 1, len(run.source)), np.int64)
  place[first.index] = np.arange(len(first.index))
  own = np.stack([first.sets[s] for s in first.stages], 1)  # (m, stages, [t], bytes)
  frames = own.shape[2:-1]

  def beside(numbers):
    """{'sets': (b, rows, stages, [t], bytes)} of images."""
    places = place[np.minimum(numbers, len(place) - 1)]
    labels = first.label[places]
    random = [
      context_sets.random_classes(index, label, counts, n, seed)
      for index, label in zip(first.index[places], labels, strict=True)
    ]
    sets = {
      'all_classes': np.ones((len(places), len(counts), n), bool),
      'confused': confused[labels],
      'random': np.stack(random),
    }
    packed = {row: np.packbits(value, axis=-1) for row, value in sets.items()}
    if frames:
      packed = {row: np.repeat(value[:, :, None], frames[0], 2) for row, value in packed.items()}
    packed['other_image'] = own[other[places]]
    return {'sets': np.stack([packed[row] for row in CONTEXTS], 1)}

  def outputs(variables, batch):
    images = run.task.inputs(run.config, batch['image'])

    def with_sets(packed):
      considered = jnp.unpackbits(packed, axis=-1, count=n).astype(bool)
      _, out = apply_in_turn(model, variables, images, replace=contexts_of(model, variables, considered))
      return stage_terms(run.task.decisions(model, out), batch['label'])

    found = jax.lax.map(with_sets, jnp.moveaxis(batch['sets'], 1, 0))  # the network is compiled once
    return {f'{row}/{name}': value[i] for name, value in found.items() for i, row in enumerate(CONTEXTS)}

  parts = list(outputs_in_batches(run, outputs, 'other contexts', beside=beside))
  if not np.array_equal(np.concatenate([part['index'] for part in parts]), first.index):
    raise BadImage(f'not the same of the test {run.task.examples} could be read in both passes')
  return _by_row({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def _by_row(arrays):
  """{'row/name': array} -> {row: {name: array}}, of the names with a row."""
  found: dict[str, dict] = {}
  for name, array in arrays.items():
    row, _, term = name.rpartition('/')
    if row:
      found.setdefault(row, {})[term] = array
  return found
