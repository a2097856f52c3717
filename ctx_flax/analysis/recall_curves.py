"""How many classes to keep: recall of the true class against N_2, N_3, N_4 (the paper's Figure 1).

The paper trains a naive network, which considers all classes at every stage, and plots the relative recall
of the true class among the N_i best of the scores that choose stage i's classes: those of stage i - 1. It
does not say relative to what, so both readings are here:
  'all':  relative to N_i = N, all classes, which is plain recall at N_i;
  'kept': relative to what the stage before kept: of the images whose true class is among the N_(i-1) classes
          there, how many keep it among the N_i best of these. N_2 is chosen first, then N_3, then N_4.
Source: the paper, supplementary 2.1.
"""

import jax.numpy as jnp
import numpy as np
import rich.table
import rich.text

from ctx_flax.analysis import figures, records
from ctx_flax.analysis.all_images import over_images
from ctx_flax.analysis.recall_figures import READINGS, draw
from ctx_flax.analysis.run import check_task, open_run
from ctx_flax.files import printable
from ctx_flax.models.network import stages_of
from ctx_flax.terminal import console
from ctx_flax.training.halt import bad_data, bad_input, failed_report

CHUNK = 2048  # images whose sorted classes are in memory at once
FEWEST = 2  # classes that a stage may consider: what create_model accepts
WORST = 10  # classes in the printed table


def recall_curves(config, workdir):
  """Writes analysis/recall_curves.{json,csv,png,svg} of a run and prints the class counts it suggests.

  Args:
    config: the config of a contextual run, a naive one by rights; recall.{target, relative_to}.
    workdir: its folder.

  Returns:
    What `curves` returns, and 'per_class', see `recall_per_class`.

  Raises:
    Halt: the input is wrong (status 2), or the result could not be written (1).
  """
  with bad_input():
    check_task(config)
    check_settings(config.recall)
    run = open_run(config, workdir)
    if not run.model.contextual:
      raise ValueError(f'{workdir} is a run of {config.model.name}, which considers all classes to the end')
  with bad_data():
    return write(run)


def check_settings(recall):
  """Raises ValueError for a field of config.recall that has no meaning."""
  if not 0 < recall.target <= 1:
    raise ValueError(f'recall.target is {recall.target}: it must be above 0 and at most 1')
  if recall.relative_to not in READINGS:
    raise ValueError(f'recall.relative_to is {recall.relative_to!r}: it must be one of {", ".join(READINGS)}')


def write(run):
  """Computes, draws, writes and prints what `recall_curves` promises, of an open run."""
  recall = run.config.recall
  ranks, labels = class_ranks(run)
  found = curves(ranks, labels, recall.target)
  counts = found['counts'][recall.relative_to]
  per_class = recall_per_class(ranks, labels, counts, run.model.class_selection)
  naive = run.class_counts == (run.num_classes,) * len(run.class_counts)
  path = run.folder / 'recall_curves'
  with failed_report(path):
    figures.save(draw(found, recall.target, run.title, naive), path)
    about = {'run': run.title, 'naive': naive, 'target': recall.target, 'relative_to': recall.relative_to}
    order = slowest_first(per_class)
    table = {
      'class': [run.class_names[i] for i in order],
      **{name: values[order] for name, values in per_class.items()},
    }
    records.save_json(about | {**found, 'per_class': table}, path.with_suffix('.json'))
    records.save_csv(table, path.with_suffix('.csv'))
  _print(run, found, table, naive)
  print(f'{printable(path)}.png, .svg, .json, .csv', flush=True)
  return {**found, 'per_class': per_class, 'files': {'recall_curves': path}}


def class_ranks(run):
  """The place of every class by the scores of all stages but the last, of all test images, in one pass.

  Args:
    run: a contextual Run.

  Returns:
    Arrays (m, n), one per selection, of unsigned integers, 0 for the best class, equal scores by index;
    labels (m,).
  """
  kind = np.uint16 if run.num_classes <= 2**16 else np.uint32

  def ranks(out, _):
    orders = {stage: jnp.argsort(-out[f'scores{stage}'], axis=-1) for stage in stages_of(out)[:-1]}
    return {f'ranks{stage}': jnp.argsort(order, axis=-1).astype(kind) for stage, order in orders.items()}

  found = over_images(run, ranks, 'ranks of all classes')
  return [found[f'ranks{stage}'] for stage in range(1, len(run.model.dims))], found['label']


def curves(ranks, labels, target):
  """Recall of the true class against N_2, N_3, N_4, by both readings, and the counts that reach the target.

  Args:
    ranks: an array (m, n) per selection: place of every class by the scores that choose the classes
      of stages 2, 3, ...
    labels: int (m,).
    target: in 0..1.

  Returns:
    'recall': {'all': {2: (n,), 3: (n,), 4: (n,)}, 'kept': {2: (n,), 3: (N_2,), 4: (N_3,)}}, where element
    N - 1 is the recall with N classes; 'counts': {'all': (N_2, N_3, N_4), 'kept': ...}, none larger than the
    one before: under 'all' an earlier stage is given as many as a later one needs. They are FEWEST or more,
    so that create_model accepts them.
  """
  n, stages = ranks[0].shape[1], stages_after(ranks)
  own = [np.take_along_axis(r, labels[:, None].astype(np.int64), 1)[:, 0] for r in ranks]
  every = {stage: _recall(r, n) for stage, r in zip(stages, own, strict=True)}
  needed = [max(smallest(every[stage], target), FEWEST) for stage in stages]
  within, size = {}, n
  chosen: list[int] = []
  for stage in stages:
    histogram = np.zeros(size, np.int64)
    for rows in _chunks(len(labels)):
      places = nested_places([r[rows] for r in ranks[: stage - 1]], chosen)
      mine = np.take_along_axis(places, labels[rows, None].astype(np.int64), 1)[:, 0]
      histogram += np.bincount(mine[mine < size], minlength=size)
    # Without an image that kept its class there is nothing to relate to.
    within[stage] = np.cumsum(histogram) / max(histogram.sum(), 1)
    size = max(smallest(within[stage], target), FEWEST)
    chosen.append(size)
  return {
    'recall': {'all': every, 'kept': within},
    'counts': {'all': tuple(int(max(needed[i:])) for i in range(len(needed))), 'kept': tuple(chosen)},
  }


def stages_after(ranks):
  """The numbers of the stages whose classes the ranks choose: 2, 3, ..."""
  return range(2, len(ranks) + 2)


def nested_places(ranks, counts):
  """The place of every class at a stage among those that the selections before it have kept.

  Args:
    ranks: arrays (m, n) of the selections up to this one.
    counts: how many classes the earlier selections kept, one less than `ranks`.

  Returns:
    int (m, n): 0 for the best class that is left; at least the number of those left for the others.
  """
  places = ranks[0].astype(np.int64)
  n = places.shape[1]
  for r, count in zip(ranks[1:], counts, strict=True):
    # What was dropped goes behind everything that was kept.
    order = np.argsort(np.where(places < count, r.astype(np.int64), r.astype(np.int64) + n), axis=1)
    places = np.empty_like(places)
    np.put_along_axis(places, order, np.arange(n)[None], axis=1)
  return places


def smallest(curve, target):
  """The smallest N whose recall, element N - 1 of a rising curve, reaches target; all if none does."""
  reached = np.asarray(curve) >= target - 1e-12  # shares such as 0.99 are not exact in binary
  return int(np.argmax(reached)) + 1 if reached.any() else len(curve)


def recall_per_class(ranks, labels, counts, selection='reduction'):
  """How many images of each class would keep their class to stages 2, 3, 4 with these counts.

  Args:
    ranks, labels: as for `curves`.
    counts: N_2, N_3, N_4.
    selection: 'reduction' chooses among what is left; 'rerank' among all classes each time.

  Returns:
    {'images': int (n,), 'stage2', 'stage3', 'stage4': float (n,)}, nan for a class without images.
  """
  n, stages = ranks[0].shape[1], stages_after(ranks)
  images = np.bincount(labels, minlength=n)
  kept = {stage: np.zeros(len(labels), bool) for stage in stages}
  for rows in _chunks(len(labels)):
    for stage, count in zip(stages, counts, strict=True):
      if selection == 'rerank':
        places = ranks[stage - 2][rows]
      else:
        places = nested_places([r[rows] for r in ranks[: stage - 1]], counts[: stage - 2])
      mine = np.take_along_axis(places, labels[rows, None].astype(np.int64), 1)[:, 0]
      kept[stage][rows] = mine < count
      if selection != 'rerank' and stage > 2:
        kept[stage][rows] &= kept[stage - 1][rows]
  share = lambda hits: np.where(
    images > 0, np.bincount(labels, hits, minlength=n) / np.maximum(images, 1), np.nan
  )
  return {'images': images, **{f'stage{stage}': share(kept[stage]) for stage in stages}}


def slowest_first(per_class):
  """The numbers of the classes that have images, those that are dropped most often and earliest first."""
  keys = [values for name, values in per_class.items() if name.startswith('stage')]
  order = np.lexsort(keys)  # by its last key first
  return order[per_class['images'][order] > 0]


def _recall(places, n):
  return np.cumsum(np.bincount(places, minlength=n)) / len(places)


def _chunks(m):
  return [slice(start, start + CHUNK) for start in range(0, m, CHUNK)]


def _print(run, found, table, naive):
  recall = run.config.recall
  if not naive:
    every = (run.num_classes,) * len(run.class_counts)
    print(
      f'{printable(run.workdir)} is not naive: it was trained with the class counts {run.class_counts}. '
      f"Curves to choose by come from a run with --config.model.class_counts='{every}'"
    )
  worst = rich.table.Table(title='Classes that are dropped early')
  later = [name.removeprefix('stage') for name in table if name.startswith('stage')]
  for column in ('class', 'images', f'kept to stage {later[0]}', *later[1:]):
    worst.add_column(column, justify='left' if column == 'class' else 'right')
  for row in list(zip(*table.values(), strict=True))[:WORST]:
    worst.add_row(
      rich.text.Text(printable(row[0])), str(row[1]), *(f'{100 * share:.0f} %' for share in row[2:])
    )
  console().print(worst)
  for reading, meaning in READINGS.items():
    print(f'{100 * recall.target:.6g} % {meaning.replace("$", "")}:')
    chosen = '  <- recall.relative_to' if reading == recall.relative_to else ''
    print(f"  --config.model.class_counts='{found['counts'][reading]}'{chosen}")
