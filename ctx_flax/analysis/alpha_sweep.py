"""Accuracy against alpha, or against any other field of the config (the paper's Figure 2)."""

import os
import pathlib

import numpy as np
import rich.table
import rich.text

from ctx_flax.analysis import figures, records
from ctx_flax.analysis.many_runs import train_each
from ctx_flax.files import printable
from ctx_flax.nearest import nearest
from ctx_flax.tasks import check_served, task_of
from ctx_flax.tasks.classification.results import stages
from ctx_flax.terminal import console
from ctx_flax.training import distributed, run_folder, setup
from ctx_flax.training.halt import bad_input, failed_report
from ctx_flax.training.repeats import mean_and_deviation, percent


def alpha_sweep(config, workdir):
  """Trains a run for every value of sweep.field and every seed, and draws accuracy against the value.

  The runs lie in WORKDIR/sweep-FIELD/VALUE/seed-SEED and differ in nothing else. Killed and started again it
  goes on with the run that it was at. WORKDIR/sweep-FIELD/sweep.{json,png,svg}, numbers and figure of the
  finished runs, are written after each.

  Args:
    config: the config of all runs; sweep.{field, over, seeds} say how they differ.
    workdir: the folder.

  Returns:
    {'field', 'values': [...], 'seeds': [...], 'accuracy': float (values, seeds), nan for what is not there}.

  Raises:
    Halt: the input is wrong (status 2); what training raises; the result could not be written (1).
  """
  with bad_input():
    check_served(config, 'the sweep', ('classification', 'video'))
    setup.prepare_jax(config)
    distributed.check_alone('a sweep')
    seeds = [config.seed + i for i in range(config.sweep.seeds)]
    configs = sweep_configs(config)
  folder = pathlib.Path(os.path.expanduser(workdir)) / f'sweep-{config.sweep.field}'
  found: dict = {}

  def after(results):
    found.update(collect(config.sweep.field, list(dict.fromkeys(config.sweep.over)), seeds, results))
    with failed_report(folder):
      records.save_json(found, folder / 'sweep.json')
      figures.save(draw(found), folder / 'sweep')

  with bad_input():
    train_each(configs, folder, after)
  _print(found)
  print(f'{printable(folder)}/sweep.png, .svg, .json', flush=True)
  return found


def sweep_configs(config):
  """{'VALUE/seed-SEED': config} of all runs of config.sweep, the seeds of a value one after the other.

  Raises:
    ValueError: an unknown field, one that training does not read, a value of another type, no value.
  """
  field, values = config.sweep.field, config.sweep.over
  if config.sweep.seeds < 1:
    raise ValueError(f'sweep.seeds must be 1 or more, but is {config.sweep.seeds}')
  if not isinstance(values, tuple) or not values:
    raise ValueError(f'sweep.over is {values!r}: give the values of {field}, such as (0.1, 0.2)')
  if field in run_folder.fields(config) and not run_folder.is_identity(field, task_of(config).identity):
    raise ValueError(f'sweep.field is {field!r}, which changes nothing about what a run learns')
  if field == 'seed' and config.sweep.seeds > 1:
    raise ValueError('sweep.field is seed, so sweep.seeds must be 1')
  configs = {}
  for value in values:
    for i in range(config.sweep.seeds):
      one = config.copy_and_resolve_references()
      one.seed = config.seed + i
      set_field(one, field, value)
      configs[run_name(value, config.seed + i)] = one
  return configs


def run_name(value, seed):
  """The folder of a run below that of the sweep."""
  return f'{named(value).replace("/", "_")}/seed-{seed}'


def named(value):
  """A value as a short text."""
  if isinstance(value, tuple):
    return ','.join(map(named, value))
  return f'{value:.6g}' if isinstance(value, float) else str(value)


def set_field(config, field, value):
  """Sets a field by its dotted name; a whole number serves for a float.

  Raises:
    ValueError: there is no such field, or it is of another type.
  """
  *groups, last = field.split('.')
  node = config
  for group in groups:
    node = node.get(group, {}) if hasattr(node, 'get') else {}
  if not hasattr(node, 'get') or last not in node or hasattr(node[last], 'items'):
    groups = task_of(config).identity
    known = [name for name in run_folder.fields(config) if run_folder.is_identity(name, groups)]
    raise ValueError(f'sweep.field is {field!r}, which the config lacks{nearest(field, known)}')
  kind = type(node[last])
  if kind is float and type(value) is int:
    value = float(value)
  if type(value) is not kind:
    raise ValueError(f'sweep.over holds {value!r}, but {field} is of type {kind.__name__}')
  node[last] = value


def collect(field, values, seeds, results):
  """The numbers of a sweep, of the runs that are in results, {run_name: metrics}.

  Returns:
    {'field', 'values', 'seeds', 'accuracy': float (values, seeds), 'accuracy_by_stage': {s: the same}}.
  """
  some = next(iter(results.values()))

  def table(name):
    found = [[results.get(run_name(v, s), {}).get(name, np.nan) for s in seeds] for v in values]
    return np.array(found, np.float64)

  return {
    'field': field,
    'values': list(values),
    'seeds': list(seeds),
    'accuracy': table('accuracy'),
    'accuracy_by_stage': {s: table(f'accuracy{s}') for s in stages(some)},
  }


def draw(found):
  """A Figure: the accuracy of every run in %, their mean, and its standard deviation over the seeds."""
  figure, axes = figures.new_figure(width=5.5, height=3.8)
  panel = axes[0, 0]
  values = found['values']
  numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
  order = np.argsort(values) if numeric else np.arange(len(values))
  places = np.array([values[i] for i in order] if numeric else range(len(values)), np.float64)
  accuracy = 100 * found['accuracy'][order]
  done = ~np.isnan(accuracy).all(1)
  stats = np.array([mean_and_deviation(row[~np.isnan(row)]) for row in accuracy[done]]).reshape(-1, 2)
  seeds = len(found['seeds'])
  if seeds > 1:
    at = np.repeat(places, seeds)
    style = {'linestyle': '', 'marker': 'o', 'markersize': 4, 'markerfacecolor': 'none', 'color': '0.5'}
    panel.plot(at, accuracy.ravel(), **style, label='a run')
  spread = None if np.isnan(stats[:, 1]).all() else np.nan_to_num(stats[:, 1])
  panel.errorbar(
    places[done],
    stats[:, 0],
    spread,
    # What has no order has nothing between its values.
    **figures.series_style(1) | ({} if numeric else {'linestyle': ''}),
    capsize=3,
    label='mean' if spread is None else 'mean and standard deviation',
  )
  alpha = 'alpha, weight of the losses of all stages but the last'
  name = alpha if found['field'] == 'loss.alpha' else found['field']
  panel.set_xlabel(figures.run_title(name))
  panel.set_ylabel('test accuracy (%)')
  panel.set_xticks(places, [figures.short(named(values[i])) for i in order], rotation=45 if numeric else 20)
  panel.set_title(f'Accuracy against {found["field"]}, {seeds} seed{"s" if seeds > 1 else ""}')
  if seeds > 1:
    panel.legend(frameon=False)
  return figure


def _print(found):
  table = rich.table.Table(title=f'Test accuracy against {found["field"]}')
  shown = [s for s in found['accuracy_by_stage'] if len(found['accuracy_by_stage']) > 1]
  for column in (found['field'], 'runs', 'accuracy %', *(f'stage {s}' for s in shown)):
    table.add_column(column, justify='right', no_wrap=True)
  for i, value in enumerate(found['values']):
    rows = [found['accuracy'][i], *(found['accuracy_by_stage'][s][i] for s in shown)]
    rows = [row[~np.isnan(row)] for row in rows]
    table.add_row(
      rich.text.Text(printable(named(value))),
      str(len(rows[0])),
      percent(rows[0]),
      *(f'{100 * row.mean():.1f}' for row in rows[1:]),
    )
  console().print(table)
