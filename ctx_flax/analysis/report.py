"""One HTML file about a run: its config, curves, pictures, network and environment."""

import dataclasses

import numpy as np

from ctx_flax.analysis import (
  context_use,
  curves,
  failures,
  grad_cam,
  offsets,
  page,
  recall_curves,
  report_sections,
)
from ctx_flax.analysis.report_sections import pictures
from ctx_flax.analysis.run import check_task, open_beside, open_run
from ctx_flax.models.summary import summarise
from ctx_flax.training.halt import bad_data, bad_input, failed_report

TOP = 3  # classes of a stage in the table of funnels


def report(config, workdir):
  """Runs every analysis that has a meaning for a run and writes analysis/report.html of them all.

  The file needs nothing else and asks for nothing: pictures are in it, and a browser is told to load none.

  Args:
    config: the config of the run; report.{beside, images}, and the options of the other analyses.
    workdir: its folder.

  Returns:
    The path of the file.

  Raises:
    Halt: the input is wrong (status 2), or the result could not be written (1).
  """
  with bad_input():
    check_task(config)
    # All of them before the first picture, which may take long.
    recall_curves.check_settings(config.recall)
    grad_cam.check_settings(config)
    failures.check_settings(config.failures)
    offsets.check_settings(config.offsets)
    context_use.check_settings(config.context)
    report_sections.check_settings(config.report)
    run = open_run(config, workdir)
    beside = None
    if config.report.beside:
      beside = open_beside(run, config.report.beside, 'report.beside')
    run = dataclasses.replace(run, config=with_options(run))
  with bad_data():
    return write(run, beside)


def with_options(run):
  """The run's config, with the images that the report explains, spread over the test set's classes."""
  config = run.config.copy_and_resolve_references()
  indices = report_sections.spread(config.report.images, len(run.source))
  config.grad_cam.update(images='', indices=indices, classes=(), plain=config.report.beside)
  config.offsets.update(images='', indices=indices)
  return config


def write(run, beside=None):
  """Computes and writes what `report` promises, of an open run; `beside` is a second one."""
  contextual = run.model.contextual
  sections = []
  failed = failures.write(run)
  found = {run.title: (run, failed)}
  if beside is not None:
    found[report_sections.title_beside(run, beside)] = (beside, failures.decisions(beside))
  sections.append(('summary', 'Summary', summary(found)))
  with failed_report(run.folder / report_sections.FILE):
    content = report_sections.training(
      run, beside, curves.draw, curves.draw_beside, 'Loss, accuracy, recall and learning rate while training'
    )
    sections.append(('curves', 'Training', content))
    explained = grad_cam.write(run)
    sections.append(('funnel', 'What each stage considers', funnels(run, explained)))
    if contextual:
      sections.append(('recall', 'How many classes to keep', pictures(recall_curves.write(run), CAPTIONS)))
    sections.append(('cam', 'What the prediction rests on', pictures(explained, CAPTIONS)))
    if run.model.adapts:
      sections.append(('offsets', 'Where the kernels sample', pictures(offsets.write(run), CAPTIONS)))
    if run.model.adapts and len(run.source) > 1:
      used = context_use.write(run)
      content = pictures(used, CAPTIONS) + page.table(context_use.COLUMNS, context_use.table(used['rows']))
      sections.append(('context', 'What the context is worth', content))
    sections.append(('failures', 'Where it fails', pictures(failed, CAPTIONS)))
    what = f'{run.config.model.name} on {run.config.data.name}'
    return report_sections.write_page(run, what, run.task.layers(run.config, run.model), sections)


CAPTIONS = {
  'recall_curves': 'Recall of the true class against the number of classes kept',
  'grad_cam_funnels': 'The classes that each stage considers, and the best of them',
  'grad_cam': 'Class activation maps of the true class and its strongest rival',
  'grad_cam_curves': 'Deletion and insertion: is what the map marks what the network uses?',
  'failures_gallery': 'The most confident mistakes',
  'failures_confusions': 'The most frequent confusions',
  'failures_stages': 'Accuracy by stage, and how many true classes are still considered',
  'failures_calibration': 'Reliability of the confidence',
  'offsets_points': 'The points that a kernel samples; larger is heavier',
  'offsets_fields': 'Mean offset of the taps, stage by stage',
  'offsets_contexts': 'The contexts of the test images, two principal components',
  'offsets_kernel_deltas': 'The kernel deltas of the test images, two principal components',
  'context_use': 'Changes with other contexts, or without a part that reads them; * uses the true class',
}


def summary(found):
  """A table of runs: {title: (Run, what `failures.decisions` returned)}, a column each."""
  rows: list[list] = []

  def add(name, value):
    rows.append([name, *(value(*one) for one in found.values())])

  add('network', lambda run, _: run.config.model.name)
  add('data', lambda run, _: f'{run.config.data.name}, {run.config.data.image_size} px')
  add('classes', lambda run, _: f'{run.num_classes:,}')
  add('class counts', lambda run, _: ', '.join(map(str, run.class_counts)) or 'no selection')
  add('selection', lambda run, _: run.model.class_selection if run.model.contextual else '')
  add('weights', lambda run, _: f'{run.weights}, step {run.step:,}' if run.step else run.title)
  examples = next(iter(found.values()))[0].task.examples
  add(f'test {examples}', lambda _, f: f'{len(f["label"]):,}')
  for stage in range(1, max(len(run.model.dims) for run, _ in found.values()) + 1):
    add(f'accuracy of stage {stage}', lambda _, f, s=stage: _share(f, f'correct{s}'))
  layers = {
    title: summarise(run.model, run.model.example_shape(run.config.data.image_size))
    for title, (run, _) in found.items()
  }
  rows.append(['parameters', *(f'{sum(x.parameters for x in of):,}' for of in layers.values())])
  clips = any(run.model.segments > 1 for run, _ in found.values())
  what = 'MACs of a clip' if clips else 'MACs of an image'
  rows.append([what, *(f'{sum(x.macs for x in of) / 1e6:,.1f} M' for of in layers.values())])
  return page.table(['', *found], rows)


def _share(decided, name):
  return f'{100 * np.mean(decided[name]):.2f} %' if name in decided else ''


def funnels(run, explained):
  """The class funnels of the explained images, as a picture and as a table.

  Args:
    run: a Run.
    explained: what `grad_cam.write` returned, whose picture of the funnels is taken out of its files.
  """
  path = explained['files'].pop('grad_cam_funnels')
  drawn = page.picture(path.with_name(f'{path.name}.png'), CAPTIONS['grad_cam_funnels'])
  rows = []
  for said in explained['funnels']:
    cells = [said[run.task.kind.noun], said['true']]
    last = said['funnel'][-1]['stage']
    for step in said['funnel']:
      best = ', '.join(f'{c["class"]} {100 * c["probability"]:.0f}%' for c in step['classes'][:TOP])
      kept = f'; keeps {step["kept"]}' if 'kept' in step else ''
      place = f'; answer no. {step["answer_place"]}' if step['stage'] < last else ''
      cells.append(best + place + kept)
    rows.append(cells)
  stages = [f'stage {step["stage"]}' for step in said['funnel']]
  return drawn + page.details('the same as a table', page.table([run.task.kind.noun, 'class', *stages], rows))
