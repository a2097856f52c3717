"""What a prediction rests on: maps of the true class and its strongest rival (the paper's Figure 3)."""

import difflib
import functools
import pathlib

import jax
import numpy as np
import rich.table
import rich.text

from ctx_flax.analysis import class_activation, faithfulness, figures, grad_cam_figures, records
from ctx_flax.analysis.images import chosen_images
from ctx_flax.analysis.run import open_beside, open_run
from ctx_flax.models import MODELS
from ctx_flax.terminal import console
from ctx_flax.training.halt import bad_data, bad_input, failed_report

AT_ONCE = 8  # images of a gradient: a folder of files may hold more than fit into memory


def grad_cam(config, workdir):
  """Writes grad_cam.{png,svg,json,npz} and grad_cam_curves.{png,svg} into the run's folder of analyses.

  Args:
    config: the config of a run; grad_cam.
    workdir: its folder; grad_cam.plain names that of a second run, which is shown beside it.

  Returns:
    What `write` returns.

  Raises:
    Halt: the input is wrong (status 2), or the result could not be written (1).
  """
  with bad_input():
    check_settings(config)
    run = open_run(config, workdir)
    images, runs, classes = prepare(run)
  with bad_data():
    return write(run, images, runs, classes)


def check_settings(config):
  """Raises ValueError for a stage, method or number of steps that there is not."""
  options, name = config.grad_cam, config.model.name
  # A name that is unknown is told by what makes the network.
  stages = len(MODELS[name][0].dims) if name in MODELS else options.stage
  class_activation.check(options.stage, options.method, stages)
  if options.steps < 0:
    raise ValueError(f'grad_cam.steps must be 0 (no curves) or more, but is {options.steps}')


def prepare(run):
  """(images, {network: Run}, numbers of classes or ()) of a run; ValueError where an option is wrong."""
  options = run.config.grad_cam
  check_settings(run.config)
  images = chosen_images(run, options.images, options.indices, 'grad_cam')
  classes = tuple(class_number(name, run.class_names) for name in options.classes)
  runs = {run.config.model.name: run}
  if options.plain:
    beside = open_beside(run, options.plain, 'grad_cam.plain')
    name = beside.config.model.name
    runs[name if name not in runs else beside.title] = beside
  return images, runs, classes


def class_number(given, class_names):
  """The number of a class by its name, or by its number where no class has such a name.

  Raises:
    ValueError: there is none; the nearest name is told.
  """
  if str(given) in class_names:
    return class_names.index(str(given))
  number = str(given).isdecimal()
  if number and int(given) < len(class_names):
    return int(given)
  hint = f'they are numbered 0 to {len(class_names) - 1}'
  if not number:
    hint = f'the nearest name is {difflib.get_close_matches(str(given), class_names, 1, cutoff=0)[0]!r}'
  raise ValueError(f'grad_cam.classes holds {given!r}, which is no class of this run: {hint}')


def write(run, images=None, runs=None, classes=()):
  """Computes, draws, writes and prints what `grad_cam` promises.

  Args:
    run: a Run; without `images` its config says the rest.
    images, runs, classes: what `prepare` returned.

  Returns:
    A dict, of m images and k classes of each: the true one (the predicted one of the first network where it
    is not known) and its rival, or those that were asked for.
      'classes': int (m, k); 'roles': k of 'true', 'predicted', 'rival', 'given';
      by network: 'maps' float32 (m, k, h, w), their 'stages', 'strides' and 'centres', 'states' m lists of k,
      'probabilities' (m, k), 'dropped' int (m, k), and, of the first class, 'curves', 'areas', 'mean_areas'
      (see ctx_flax.analysis.faithfulness);
      'files': {name: path without suffix}.

  Raises:
    Halt: see `grad_cam`.
  """
  if images is None:
    with bad_input():
      images, runs, classes = prepare(run)
  options = run.config.grad_cam
  said = {name: outputs(one, images) for name, one in runs.items()}
  chosen = chosen_classes(images, said, classes)
  side = images.arrays.shape[1]
  roles = ('given',) * len(classes) or ('true' if images.labels[0] >= 0 else 'predicted', 'rival')
  found: dict = {'classes': chosen, 'roles': roles}
  parts = (
    'stages',
    'maps',
    'states',
    'probabilities',
    'dropped',
    'strides',
    'centres',
    'curves',
    'areas',
    'mean_areas',
  )
  found |= {part: {} for part in parts}
  for name, one in runs.items():
    stage = options.stage or class_activation.last_stage_with_a_map(one, side)
    found['stages'][name] = stage
    stride = found['strides'][name] = one.model.strides[stage - 1]
    first = found['centres'][name] = one.model.first_centre(stride)
    found['maps'][name] = maps_of(one, images, chosen, stage, options.method)
    found['states'][name] = [[class_activation.state(m) for m in row] for row in found['maps'][name]]
    found['probabilities'][name] = np.take_along_axis(said[name]['probabilities'], chosen, 1)
    found['dropped'][name] = np.take_along_axis(said[name]['dropped'], chosen, 1)
    if options.steps:
      saliency = class_activation.upsample(found['maps'][name][:, 0], side, stride, first)
      curves = faithfulness.curves_of(one, images.arrays, chosen[:, 0], saliency, options.steps)
      areas = faithfulness.areas_of(curves)
      found['curves'][name], found['areas'][name] = curves, areas
      found['mean_areas'][name] = jax.tree.map(np.mean, areas)
  path = run.folder / 'grad_cam'
  found['files'] = {'grad_cam': path}
  with failed_report(path):
    figures.save(grad_cam_figures.overlays(images, found, run.class_names, options.method), path)
    if found['curves']:
      found['files']['grad_cam_curves'] = run.folder / 'grad_cam_curves'
      figures.save(grad_cam_figures.curves(found), found['files']['grad_cam_curves'])
    np.savez(path.with_suffix('.npz'), classes=chosen, **found['maps'])
    records.save_json(
      {
        'run': run.title,
        'method': options.method,
        'images': images.names,
        'true': [run.class_names[n] if n >= 0 else None for n in images.labels],
        'classes': [[run.class_names[c] for c in row] for row in chosen],
        **{part: found[part] for part in ('roles', *parts) if part != 'maps'},
      },
      path.with_suffix('.json'),
    )
  _print(run, images, found)
  print(
    f'{path}.png, .svg, .json, .npz' + (f', {path}_curves.png, .svg' if options.steps else ''), flush=True
  )
  return found


def outputs(run, images):
  """{'probabilities', 'scores': float32 (m, n), 'dropped': int (m, n)} of the last stage.

  'dropped' is the first stage that does not consider the class any more; 0 for classes that have a
  probability, with class_selection 'rerank' all.
  """

  def said(some):
    logits, out = run.apply(run.variables, some)
    kept = {name: value for name, value in out.items() if name.startswith('considered')}
    return {'logits': logits, 'scores': out['scores4'], **kept}

  found = a_few_at_a_time(said, images.arrays)
  dropped = np.zeros(found['logits'].shape, np.int32)
  for stage in (4, 3, 2) if run.model.contextual else ():
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


def maps_of(run, images, classes, stage, method):
  """Maps float32 (m, k, h, w) of the classes int (m, k)."""
  compute = jax.jit(
    functools.partial(class_activation.class_activation_map, run.model, stage=stage, method=method)
  )
  column = lambda some, of: compute(run.variables, some, of)[0]
  columns = [a_few_at_a_time(column, images.arrays, numbers) for numbers in np.asarray(classes, np.int32).T]
  return np.stack(columns, 1)


def a_few_at_a_time(function, *arrays):
  """function(*arrays), with a row per image, of AT_ONCE images at a time: one shape, compiled once."""
  m = len(arrays[0])
  size = min(m, AT_ONCE)
  parts = []
  for start in range(0, m, size):
    rows = np.minimum(np.arange(start, start + size), m - 1)  # the last batch is filled up with its last
    parts.append(jax.tree.map(np.asarray, function(*(array[rows] for array in arrays))))
  return jax.tree.map(lambda *part: np.concatenate(part)[:m], *parts)


def _print(run, images, found):
  table = rich.table.Table(title='Probability of the explained classes')
  table.add_column('image', overflow='ellipsis')
  table.add_column('class', overflow='ellipsis')
  for name in found['maps']:
    table.add_column(f'{name} %', justify='right')
  for i, name in enumerate(images.names):
    for k, number in enumerate(found['classes'][i]):
      cells = []
      for network in found['maps']:
        dropped = found['dropped'][network][i, k]
        text = (
          f'dropped before {dropped}' if dropped else f'{100 * found["probabilities"][network][i, k]:.1f}'
        )
        state = found['states'][network][i][k]
        cells.append(text + (f', map {state}' if state else ''))
      shown = pathlib.Path(name).name if k == 0 else ''
      table.add_row(*map(rich.text.Text, (shown, run.class_names[number], *cells)))
  console().print(table)
  for network, states in found['states'].items():
    if all(state for row in states for state in row):
      stage = found['stages'][network]
      print(
        f'{network}: no map of stage {stage} says anything; take another grad_cam.stage or grad_cam.method'
      )
  for network, means in found['mean_areas'].items():
    numbers = ', '.join(
      f'{kind} {means[kind]["map"]:.3f} (random order {means[kind]["random"]:.3f})'
      for kind in faithfulness.KINDS
    )
    print(f'{network}, area of {numbers}')
