"""What a prediction rests on: maps of the true class and its strongest rival (the paper's Figure 3)."""

import difflib
import functools

import jax
import numpy as np
import rich
import rich.table
import rich.text

from ctx_flax.analysis import class_activation, faithfulness, figures, grad_cam_figures
from ctx_flax.analysis.images import chosen_images
from ctx_flax.analysis.run import open_beside, open_run
from ctx_flax.training.halt import bad_data, bad_input, failed_report
from ctx_flax.training.logging import Progress


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
  options = config.grad_cam
  with bad_input():
    class_activation.check(options.stage or 4, options.method)
    if options.steps < 0:
      raise ValueError(f'grad_cam.steps must be 0 (no curves) or more, but is {options.steps}')
    run = open_run(config, workdir)
    images, runs, classes = prepare(run)
  with bad_data():
    return write(run, images, runs, classes)


def prepare(run):
  """(images, {network: Run}, numbers of classes or ()) of a run; ValueError where an option is wrong."""
  options = run.config.grad_cam
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
  if str(given).isdigit() and int(given) < len(class_names):
    return int(given)
  near = difflib.get_close_matches(str(given), class_names, 1)
  raise ValueError(
    f'grad_cam.classes holds {given!r}, which is no class of this run'
    f'{f"; did you mean {near[0]!r}?" if near else f"; there are {len(class_names)}"}'
  )


def write(run, images=None, runs=None, classes=()):
  """Computes, draws, writes and prints what `grad_cam` promises.

  Args:
    run: a Run; without `images` its config says the rest.
    images, runs, classes: what `prepare` returned.

  Returns:
    {'classes': int (m, k), 'maps': {network: float32 (m, k, h, w)}, 'probabilities': {network: (m, k)},
    'states': {network: m lists of k}, 'dropped': {network: int (m, k)}, 'curves', 'areas' (see `curves_of`),
    'files': {name: path without suffix}} for m images and k classes of each, the true one (the predicted one
    of the first network where it is not known) and its rival, or those that were asked for.
  """
  if images is None:
    images, runs, classes = prepare(run)
  options = run.config.grad_cam
  said = {name: outputs(one, images) for name, one in runs.items()}
  chosen = chosen_classes(images, said, classes)
  found: dict = {'classes': chosen, 'maps': {}, 'probabilities': {}, 'states': {}, 'dropped': {}}
  stages = {}
  for name, one in runs.items():
    stages[name] = options.stage or class_activation.last_stage_with_a_map(one)
    found['maps'][name] = maps_of(one, images, chosen, stages[name], options.method)
    found['states'][name] = [[class_activation.state(m) for m in row] for row in found['maps'][name]]
    found['probabilities'][name] = np.take_along_axis(said[name]['probabilities'], chosen, 1)
    found['dropped'][name] = np.take_along_axis(said[name]['dropped'], chosen, 1)
  found['curves'] = {}
  if options.steps:
    found['curves'] = {
      name: curves_of(one, images, chosen[:, 0], found['maps'][name][:, 0], options.steps)
      for name, one in runs.items()
    }
  areas = {
    name: {
      kind: {what: [faithfulness.area(c[kind][what]) for c in all_of] for what in ('map', 'random')}
      for kind in faithfulness.KINDS
    }
    for name, all_of in found['curves'].items()
  }
  found['areas'] = areas
  path = run.folder / 'grad_cam'
  found['files'] = {'grad_cam': path}
  with failed_report(path):
    figures.save(grad_cam_figures.overlays(images, found, run.class_names, stages, options.method), path)
    if areas:
      found['files']['grad_cam_curves'] = run.folder / 'grad_cam_curves'
      figures.save(grad_cam_figures.curves(found), found['files']['grad_cam_curves'])
    np.savez(path.with_suffix('.npz'), classes=chosen, **found['maps'])
    figures.save_json(
      {
        'run': run.title,
        'method': options.method,
        'stages': stages,
        'images': images.names,
        'classes': [[run.class_names[c] for c in row] for row in chosen],
        **{name: found[name] for name in ('probabilities', 'states', 'dropped', 'areas')},
      },
      path.with_suffix('.json'),
    )
  _print(run, images, found)
  print(f'{path}.png, .svg, .json, .npz' + (f', {path}_curves.png, .svg' if areas else ''), flush=True)
  return found


def outputs(run, images):
  """{'probabilities', 'scores': float32 (m, n), 'dropped': int (m, n)} of the last stage.

  'dropped' is the first stage that does not consider the class any more, 0 for none.
  """
  logits, out = run.apply(run.variables, images.arrays)
  dropped = np.zeros(logits.shape, np.int32)
  for stage in (4, 3, 2):
    if run.model.contextual:
      dropped = np.where(np.asarray(out[f'considered{stage}']), dropped, stage)
  return {
    'probabilities': np.asarray(jax.nn.softmax(logits)),
    'scores': np.asarray(out['scores4'], np.float32),
    'dropped': dropped,
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
  columns = [
    compute(run.variables, images.arrays, classes[:, k].astype(np.int32))[0] for k in range(classes.shape[1])
  ]
  return np.stack([np.asarray(column) for column in columns], 1)


def curves_of(run, images, classes, maps, steps):
  """What `faithfulness.deletion_insertion` returns for each image: its class (m,) and its map (m, h, w)."""
  saliency = class_activation.upsample(maps, images.arrays.shape[1])
  rng = np.random.default_rng(run.config.seed)
  found = []
  with Progress(len(images), 0) as progress:
    for i in range(len(images)):
      probability = lambda changed, c=classes[i]: jax.nn.softmax(run.apply(run.variables, changed)[0])[:, c]
      found.append(faithfulness.deletion_insertion(probability, images.arrays[i], saliency[i], steps, rng))
      progress.update(i + 1, f'deletion and insertion, {run.config.model.name}', 0)
  return found


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
        text = f'{100 * found["probabilities"][network][i, k]:.1f}'
        text = f'out at {dropped}' if dropped and text == '0.0' else text
        state = found['states'][network][i][k]
        cells.append(text + (f', map {state}' if state else ''))
      table.add_row(*map(rich.text.Text, (name if k == 0 else '', run.class_names[number], *cells)))
  rich.print(table)
  for network, of_kind in found['areas'].items():
    numbers = ', '.join(
      f'{kind} {np.mean(of_kind[kind]["map"]):.3f} (random order {np.mean(of_kind[kind]["random"]):.3f})'
      for kind in faithfulness.KINDS
    )
    print(f'{network}, area of {numbers}')
