"""What a prediction rests on: maps of the true class and its strongest rival (the paper's Figure 3)."""

import functools
import pathlib

import jax
import numpy as np
import rich.table
import rich.text

from ctx_flax.analysis import (
  class_activation,
  faithfulness,
  figures,
  funnel_figures,
  grad_cam_figures,
  records,
)
from ctx_flax.analysis.explained_classes import a_few_at_a_time, chosen_classes, class_number, outputs
from ctx_flax.analysis.funnel import describe_images
from ctx_flax.analysis.images import chosen_images, normalised_for
from ctx_flax.analysis.run import check_task, open_beside, open_run
from ctx_flax.files import printable
from ctx_flax.models import MODELS
from ctx_flax.terminal import console
from ctx_flax.training.halt import bad_data, bad_input, failed_report

PARTS = (
  *('stages', 'maps', 'states', 'probabilities', 'dropped', 'strides', 'centres'),
  *('curves', 'areas', 'mean_areas'),
)  # of what is found about each network


def grad_cam(config, workdir):
  """Writes grad_cam.{png,svg,json,npz}, grad_cam_curves and grad_cam_funnels.{png,svg} into RUN/analysis.

  Args:
    config: the config of a run; grad_cam.
    workdir: its folder; grad_cam.plain names that of a second run, which is shown beside it.

  Returns:
    What `write` returns.

  Raises:
    Halt: the input is wrong (status 2), or the result could not be written (1).
  """
  with bad_input():
    check_task(config)
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


def write(run, images=None, runs=None, classes=()):
  """Computes, draws, writes and prints what `grad_cam` promises.

  Args:
    run: a Run; without `images` its config says the rest.
    images, runs, classes: what `prepare` returned.

  Returns:
    A dict, of m images and k classes of each: the true one (the predicted one of the first network where it
    is not known) and its rival, or those that were asked for.
      'classes': int (m, k); 'roles': k of 'true', 'predicted', 'rival', 'given';
      by network: 'maps' float32 (m, k, h, w), of clips (m, k, t, h, w), their 'stages', 'strides' and
      'centres', 'states' m lists of k, 'probabilities' (m, k), 'dropped' int (m, k), and, of the first class,
      'curves', 'areas', 'mean_areas' (see ctx_flax.analysis.faithfulness);
      'funnels': what the stages of the first network say of each image, see `funnel.describe`;
      'files': {name: path without suffix}.

  Raises:
    Halt: see `grad_cam`.
  """
  if images is None:
    with bad_input():
      images, runs, classes = prepare(run)
  options = run.config.grad_cam
  found = explain(run, images, runs, classes)
  path = run.folder / 'grad_cam'
  found['funnels'] = describe_images(run, images, funnel_figures.TOP)
  found['files'] = {'grad_cam': path, 'grad_cam_funnels': run.folder / 'grad_cam_funnels'}
  with failed_report(path):
    figures.save(grad_cam_figures.overlays(images, found, run.class_names, options.method), path)
    funnels = funnel_figures.draw_several(found['funnels'], images.pixels)
    figures.save(funnels, found['files']['grad_cam_funnels'])
    if found['curves']:
      found['files']['grad_cam_curves'] = run.folder / 'grad_cam_curves'
      figures.save(grad_cam_figures.curves(found), found['files']['grad_cam_curves'])
    np.savez(path.with_suffix('.npz'), classes=found['classes'], **found['maps'])
    records.save_json(
      {
        'run': run.title,
        'method': options.method,
        'images': images.names,
        'true': [run.class_names[n] if n >= 0 else None for n in images.labels],
        'classes': [[run.class_names[c] for c in row] for row in found['classes']],
        **{part: found[part] for part in ('roles', *PARTS, 'funnels') if part != 'maps'},
      },
      path.with_suffix('.json'),
    )
  _print(run, images, found)
  shown = printable(path)
  further = ['funnels', 'curves'] if options.steps else ['funnels']
  print(
    f'{shown}.png, .svg, .json, .npz',
    *(f'{shown}_{part}.png, .svg' for part in further),
    sep=', ',
    flush=True,
  )
  return found


def explain(run, images, runs, classes):
  """What `write` returns but for the files; each network sees the images as its own run normalises them."""
  options, side = run.config.grad_cam, images.arrays.shape[-2]
  seen = {name: normalised_for(images, run.config.data, one.config.data) for name, one in runs.items()}
  said = {name: outputs(one, seen[name]) for name, one in runs.items()}
  chosen = chosen_classes(images, said, classes)
  roles = ('given',) * len(classes) or ('true' if images.labels[0] >= 0 else 'predicted', 'rival')
  found: dict = {'classes': chosen, 'roles': roles, **{part: {} for part in PARTS}}
  for name, one in runs.items():
    stage = options.stage or class_activation.last_stage_with_a_map(one, side)
    found['stages'][name] = stage
    stride = found['strides'][name] = one.model.strides[stage - 1]
    first = found['centres'][name] = one.model.first_centre(stride)
    found['maps'][name] = maps_of(one, seen[name], chosen, stage, options.method)
    found['states'][name] = [[class_activation.state(m) for m in row] for row in found['maps'][name]]
    found['probabilities'][name] = np.take_along_axis(said[name]['probabilities'], chosen, 1)
    found['dropped'][name] = np.take_along_axis(said[name]['dropped'], chosen, 1)
    if options.steps:
      saliency = class_activation.upsample(found['maps'][name][:, 0], side, stride, first)
      curves = faithfulness.curves_of(
        one, seen[name].arrays, chosen[:, 0], saliency, options.steps, run.config.seed
      )
      areas = faithfulness.areas_of(curves)
      found['curves'][name], found['areas'][name] = curves, areas
      found['mean_areas'][name] = jax.tree.map(np.mean, areas)
  return found


def maps_of(run, images, classes, stage, method):
  """Maps float32 (m, k, h, w), of clips (m, k, t, h, w), of the classes int (m, k)."""
  compute = jax.jit(
    functools.partial(class_activation.class_activation_map, run.model, stage=stage, method=method)
  )
  column = lambda some, of: compute(run.variables, some, of)[0]
  columns = [a_few_at_a_time(column, images.arrays, numbers) for numbers in np.asarray(classes, np.int32).T]
  return np.stack(columns, 1)


def _print(run, images, found):
  table = rich.table.Table(title='Probability of the explained classes')
  table.add_column('image', overflow='ellipsis')
  table.add_column('class', overflow='ellipsis')
  for name in found['maps']:
    table.add_column(rich.text.Text(f'{printable(name)} %'), justify='right')
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
      row = shown, run.class_names[number], *cells
      table.add_row(*(rich.text.Text(printable(cell)) for cell in row))
  console().print(table)
  for network, states in found['states'].items():
    if all(state for row in states for state in row):
      stage = found['stages'][network]
      print(
        f'{printable(network)}: no map of stage {stage} says anything; '
        'take another grad_cam.stage or grad_cam.method'
      )
  for network, means in found['mean_areas'].items():
    numbers = ', '.join(
      f'{kind} {means[kind]["map"]:.3f} (random order {means[kind]["random"]:.3f})'
      for kind in faithfulness.KINDS
    )
    print(f'{printable(network)}, area of {numbers}')
