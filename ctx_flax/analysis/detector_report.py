"""One HTML file about a run of a detector: precision, curves, pictures, failures, network and config."""

import numpy as np

from ctx_flax.analysis import (
  detection_figures,
  detector_curves,
  detector_failures,
  figures,
  page,
  report_sections,
)
from ctx_flax.analysis.detected import check_testable, detect
from ctx_flax.analysis.printed import end_of
from ctx_flax.analysis.report_sections import pictures
from ctx_flax.analysis.run import DETECTORS, check_task, open_beside, open_run
from ctx_flax.tasks.detection import reports
from ctx_flax.tasks.detection.pictures import annotated_and_detected
from ctx_flax.training.halt import bad_data, bad_input, failed_report

CAPTIONS = {
  'detections': 'Test images with their annotated objects, and with what is detected',
  'failures_gallery': 'The most confident false detections',
  'failures_missed_objects': 'The largest missed objects',
  'failures_missed': 'How many objects are missed, by size',
  'failures_confusions': 'The most frequent confusions',
  'failures_precision': 'Precision against recall of every class, and their mean',
}


def report(config, workdir):
  """Writes analysis/report.html about the run of a detector, and the pictures and numbers of its failures.

  The file needs nothing else and asks for nothing: pictures are in it, and a browser is told to load none.

  Args:
    config: the config of the run; report.{beside, images} and failures.
    workdir: its folder.

  Returns:
    The path of the file.

  Raises:
    Halt: the input is wrong (status 2), or the result could not be written (1).
  """
  with bad_input():
    check_task(config, DETECTORS)
    detector_failures.check_settings(config.failures)
    report_sections.check_settings(config.report)
    run = open_run(config, workdir, served=DETECTORS)
    check_testable(run)
    beside = None
    if config.report.beside:
      beside = open_beside(run, config.report.beside, 'report.beside', DETECTORS)
      check_testable(beside)
  with bad_data():
    return write(run, beside)


def write(run, beside=None):
  """Computes and writes what `report` promises, of an open run; `beside` is a second one."""
  detected = detect(run)
  tests = {run.title: (run, detected)}
  if beside is not None:
    tests[report_sections.title_beside(run, beside)] = (beside, detect(beside))
  failed = detector_failures.write(run, detected)
  layers = {title: one.task.layers(one.config, one.model) for title, (one, _) in tests.items()}
  with failed_report(run.folder / report_sections.FILE):
    curves = report_sections.training(
      run, beside, detector_curves.draw, detector_curves.draw_beside, 'Losses, precision and learning rate'
    )
    sections = [
      ('summary', 'Summary', precision(tests) + summary(tests, layers)),
      ('curves', 'Training', curves),
      ('detections', 'What it detects', pictures(detections(run, detected), CAPTIONS)),
      ('failures', 'Where it fails', pictures(failed, CAPTIONS) + class_table(failed['numbers'])),
    ]
    what = f'{network_name(run)} on {run.config.data.name}'
    return report_sections.write_page(run, what, layers[run.title], sections)


def network_name(run):
  """The detector and its backbone, in words."""
  return f'{run.config.model.name} with {run.config.model.backbone}'


def precision(tests):
  """A table of COCO's metrics of runs: {title: (Run, Detected)}."""
  rows = reports.rows({title: detected.metrics for title, (_, detected) in tests.items()})
  return page.table(['', 'of', *reports.COLUMNS.values()], rows)


def summary(tests, layers):
  """A table of runs: {title: (Run, Detected)} and {title: layers of its network}, a column each."""
  rows = [
    [name, *(value(run, detected) for run, detected in tests.values())]
    for name, value in (
      ('network', lambda run, _: network_name(run)),
      ('data', lambda run, _: f'{run.config.data.name}, up to {run.task.size(run.config)}'),
      ('classes', lambda run, _: f'{run.num_classes:,}'),
      ('classes of contexts', lambda run, _: _contexts(run.model.backbone)),
      ('weights', lambda run, _: f'{run.weights}, step {run.step:,}' if run.step else run.title),
      ('test images', lambda run, _: f'{len(run.source):,}'),
      ('objects in them', lambda _, d: f'{len(d.ground_truth.annotations):,}'),
      ('unreadable images', lambda _, d: f'{d.unreadable:,}'),
      ('detections of an image', lambda _, d: f'{d.metrics["detections"]:.1f}'),
    )
  ]
  total = lambda of, name: sum(getattr(layer, name) for layer in of)
  rows.append(['parameters', *(f'{total(of, "parameters"):,}' for of in layers.values())])
  rows.append(['MACs of such an image', *(f'{total(of, "macs") / 1e9:,.1f} G' for of in layers.values())])
  return page.table(['', *tests], rows)


def _contexts(backbone):
  if not backbone.contextual:
    return 'none, a plain network'
  counts = backbone.class_counts or ()
  return f'{backbone.num_classes:,}' + (f', of which {", ".join(map(str, counts))}' if counts else '')


def detections(run, detected):
  """Draws test images with objects, annotated and detected ones side by side: {'files': {name: path}}."""
  score = run.config.failures.score
  with_objects = np.flatnonzero(run.source.object_counts)
  chosen = with_objects[list(report_sections.spread(run.config.report.images, len(with_objects)))].tolist()
  names = [end_of(run.source.name(index)) for index in chosen]
  shown = [image for index in chosen for image in annotated_and_detected(run.source, detected, index, score)]
  captions = [f'{what}\n{name}' for name in names for what in ('annotated', 'detected')]
  heading = f'Annotated objects, and detections of {100 * score:.0f} % or more'
  figure = detection_figures.gallery(shown, captions, heading, run.title, columns=4)
  path = run.folder / 'detections'
  figures.save(figure, path)
  return {'files': {'detections': path}}


def class_table(numbers):
  """The classes, those with the least average precision first."""
  columns = {
    'class': 'class',
    'objects': 'objects',
    'ap': 'AP (%)',
    'ap_at_overlap': f'AP at IoU {numbers["overlap"]:g} (%)',
    'missed': 'missed',
    'false': 'false detections',
  }
  classes = sorted((one for one in numbers['classes'] if one['objects']), key=lambda one: one['ap'])
  rows = [
    [round(100 * one[name], 1) if name.startswith('ap') else one[name] for name in columns] for one in classes
  ]
  what = f'{numbers["kind"]}, detections of {100 * numbers["score"]:g} % or more'
  return page.details(f'all {len(rows)} classes, by {what}', page.table([*columns.values()], rows))
