"""The sections that reports of all tasks have, and the file that they are written to."""

import importlib.metadata
import json
import platform

import jax
import numpy as np

from ctx_flax import files
from ctx_flax.analysis import curves, figures, page
from ctx_flax.files import printable
from ctx_flax.training import run_folder

PACKAGES = 'jax', 'jaxlib', 'flax', 'optax', 'numpy', 'grain', 'orbax-checkpoint'
FILE = 'report.html'


def check_settings(options):
  """Raises ValueError for a field of config.report that has no meaning."""
  if options.images < 1:
    raise ValueError(f'report.images must be 1 or more, but is {options.images}')


def spread(count, total):
  """Numbers of `count` of `total` images, the first and the last among them; all where there are fewer."""
  chosen = np.linspace(0, total - 1, min(count, total))
  return tuple(dict.fromkeys(int(i) for i in chosen))


def title_beside(run, beside):
  """What a second run is called beside the first: its title, unless that is the first one's, too."""
  return beside.title if beside.title != run.title else printable(beside.workdir)


def write_page(run, what, layers, sections):
  """Writes report.html of a run and says so.

  Args:
    run: a Run.
    what: the network and its data, in words.
    layers: of the network, see ctx_flax.models.summary.
    sections: [(id, heading, HTML), ...]; those about the run as a whole follow them.

  Returns:
    The path of the file.
  """
  sections = list(sections)
  swept = sorted(run.workdir.glob('sweep-*/sweep.png'))
  if swept:
    content = ''.join(page.picture(one, f'Runs of {one.parent.name}') for one in swept)
    sections.append(('sweeps', 'Sweeps', content))
  sections.append(('network', 'The network', network(layers)))
  sections.append(('config', 'Config', config_table(run.config)))
  sections.append(('environment', 'Environment of this report', environment()))
  weights = f'{run.weights} weights of step {run.step}' if run.step else f'weights of {run.title}'
  path = run.folder / FILE
  files.write_text(path, page.page(f'{run.workdir.resolve().name}', f'{what}, {weights}', sections))
  print(f'{printable(path)}: {path.stat().st_size / 1e6:.1f} MB, needs nothing else', flush=True)
  return path


def training(run, beside, draw, draw_beside, caption):
  """The curves of a run, and of a second one beside it.

  Args:
    run, beside: Runs; the second may be None.
    draw: (metrics, title) -> Figure.
    draw_beside: {title: metrics} -> Figure.
    caption: of the first figure.
  """
  metrics = curves.read_metrics(run.workdir)
  if metrics:
    drawn = figures.save(draw(metrics, run.title), run.folder / 'curves')
    content = page.picture(drawn[0], caption)
  else:
    content = page.paragraph(f'There is no metrics.jsonl in {run.workdir}, so there are no curves.')
  if beside is not None:
    both = {run.title: metrics, title_beside(run, beside): curves.read_metrics(beside.workdir)}
    drawn = figures.save(draw_beside(both), run.folder / 'curves_beside')
    content += page.picture(drawn[0], ' and '.join(both))
  return content


def pictures(found, captions):
  """The figures of an analysis: the 'files' of what it returned, each with its caption."""
  return ''.join(
    page.picture(path.with_name(f'{path.name}.png'), captions[name]) for name, path in found['files'].items()
  )


def network(layers):
  """Parameters and multiply-accumulates, block by block."""
  rows = [
    [x.path, x.kind, ' x '.join(map(str, x.shape)), x.parameters, round(x.macs / 1e6, 3)] for x in layers
  ]
  return page.table(['block', 'kind', 'output', 'parameters', 'million MACs'], rows)


def config_table(config):
  """Every field of the config."""
  rows = [[name, json.dumps(value)] for name, value in run_folder.fields(config).items()]
  return page.details(f'all {len(rows)} fields', page.table(['field', 'value'], rows))


def environment():
  """Versions and devices of the process that makes the report."""
  device = jax.devices()[0]
  rows = [['Python', platform.python_version()], ['system', f'{platform.system()} {platform.machine()}']]
  rows += [['devices', f'{jax.device_count()} x {device.device_kind} ({device.platform})']]
  rows += [[name, importlib.metadata.version(name)] for name in PACKAGES]
  return page.table(['', ''], rows)
