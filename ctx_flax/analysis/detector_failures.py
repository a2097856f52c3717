"""Where a detector fails: false detections, missed objects, confused classes, precision and recall."""

from ctx_flax.analysis import detection_figures, failure_figures, figures, records
from ctx_flax.analysis.detected import check_testable, detect
from ctx_flax.analysis.detector_mistakes import false_table, missed_table, mistakes, numbers
from ctx_flax.analysis.failure_pictures import close_up
from ctx_flax.analysis.printed import end_of, print_table
from ctx_flax.analysis.run import DETECTORS, check_task, open_run
from ctx_flax.files import printable
from ctx_flax.tasks.detection import errors, reports
from ctx_flax.tasks.detection.results import KINDS
from ctx_flax.terminal import console
from ctx_flax.training.halt import bad_data, bad_input, failed_report


def failures(config, workdir):
  """Writes failures.{json,csv}, failures_missed.csv and figures of what a detector gets wrong.

  Args:
    config: its config; failures.{images, pairs, score, overlap, kind}.
    workdir: its folder.

  Returns:
    What `write` returns.

  Raises:
    Halt: the input is wrong (status 2), or the result could not be written (1).
  """
  with bad_input():
    check_task(config, DETECTORS)
    check_settings(config.failures)
    run = open_run(config, workdir, served=DETECTORS)
    check_testable(run)
  with bad_data():
    return write(run)


def check_settings(options):
  """Raises ValueError for a field of config.failures that has no meaning."""
  for name in ('images', 'pairs'):
    if options[name] < 1:
      raise ValueError(f'failures.{name} must be 1 or more, but is {options[name]}')
  if not 0 <= options.score <= 1:
    raise ValueError(f'failures.score must be a score, 0 to 1, but is {options.score}')
  if not 0 < options.overlap <= 1:
    raise ValueError(f'failures.overlap must be an IoU, above 0 and at most 1, but is {options.overlap}')
  if options.kind not in KINDS:
    raise ValueError(f'failures.kind must be one of {", ".join(KINDS)}, but is {options.kind!r}')


def write(run, detected=None):
  """Computes, draws, writes and prints what `failures` promises, of an open run.

  Args:
    run: of a detector.
    detected: what `detect` returned of it; None: the run is tested.

  Returns:
    {'numbers': what `detector_mistakes.numbers` returns, 'false': and 'missed': tables, 'files': {name: path
    without suffix} of the figures}.
  """
  options = run.config.failures
  check_settings(options)
  found = mistakes(detect(run) if detected is None else detected, options)
  false = false_table(found, run.source, options.images)
  missed = missed_table(found, run.source, options.images)
  values = {'run': run.title, **numbers(found, run.config)}
  drawn = draw(run, found, false, missed)
  path = run.folder / 'failures'
  files = {name: run.folder / name for name in drawn}
  with failed_report(path):
    for name, figure in drawn.items():
      figures.save(figure, files[name])
    records.save_json(values | {'most_confident': false, 'largest_missed': missed}, path.with_suffix('.json'))
    records.save_csv(false, path.with_suffix('.csv'))
    records.save_csv(missed, run.folder / 'failures_missed.csv')
  _print(run, values, false)
  shown = printable(path)
  print(f'{shown}.json, .csv, {shown}_missed.csv, {shown}_*.png, .svg', flush=True)
  return {'numbers': values, 'false': false, 'missed': missed, 'files': files}


def draw(run, found, false, missed):
  """{name: Figure} of Mistakes and of the two tables of them."""
  options, names = run.config.failures, run.class_names
  shown = lambda result, annotation: close_up(run.source, found.detected, result, annotation)
  wrong = [
    shown(found.result(d), found.annotation(o) if o >= 0 else None)
    for d, (_, o, _) in zip(found.false[: options.images], found.causes, strict=False)
  ]
  lost = [
    shown(found.result(found.best(o)) if found.best(o) >= 0 else None, found.annotation(o))
    for o in found.missed[: options.images]
  ]
  pairs = errors.confused_pairs(found.confusions, options.pairs)
  sizes = errors.missed_by_size(found.overlaps, found.matches, options.score)
  return {
    'failures_gallery': detection_figures.gallery(
      wrong, _false_captions(false), 'Most confident false detections', run.title
    ),
    'failures_missed_objects': detection_figures.gallery(
      lost, _missed_captions(missed), f'Largest objects missed at {_percent(options.score)}', run.title
    ),
    'failures_missed': detection_figures.missed_bars(sizes, run.title),
    'failures_confusions': failure_figures.confusion_bars(pairs, names, run.title, 'objects'),
    'failures_precision': detection_figures.precision_curves(
      found.precision, names, run.title, options.overlap, options.kind
    ),
  }


def _false_captions(table):
  columns = (table[name] for name in ('detected', 'score', 'error', 'object', 'overlap', 'image'))
  return [
    f'{detected} {_percent(score)}: {error}\n'
    + (f'nearest: {thing}, IoU {overlap:.2f}\n' if thing != '-' else 'no object near\n')
    + end_of(image)
    for detected, score, error, thing, overlap, image in zip(*columns, strict=True)
  ]


def _missed_captions(table):
  columns = (table[name] for name in ('object', 'width', 'height', 'best_score', 'image'))
  return [
    f'{thing}, {w:.0f} x {h:.0f} px\n'
    + (f'detected with {_tenths(score)} % only\n' if score else 'not detected\n')
    + end_of(image)
    for thing, w, h, score, image in zip(*columns, strict=True)
  ]


def _print(run, values, false):
  at = f'of {_percent(values["score"])} or more'
  wrong = zip(
    map(end_of, false['image']),
    false['detected'],
    map(_tenths, false['score']),
    false['error'],
    false['object'],
    map('{:.2f}'.format, false['overlap']),
    strict=True,
  )
  print_table(
    'The most confident false detections',
    ('image', 'detected', '%', 'error', 'object', 'IoU'),
    list(wrong),
    ('image', 'detected', 'error', 'object'),
  )
  sizes = [
    (size, f'{n["objects"]:,}', f'{n["missed"]:,}', _tenths(n['missed'] / n['objects']))
    for size, n in values['missed']['by_size'].items()
    if n['objects']
  ]
  print_table('Missed objects', ('size', 'objects', 'missed', '%'), sizes, ('size',))
  confused = [
    (pair['true'], pair['predicted'], f'{pair["objects"]:,}', _tenths(pair['share']))
    for pair in values['confusions']
  ]
  columns = 'true class', 'detected', 'objects', '% of class'
  print_table('The most frequent confusions', columns, confused, columns[:2])
  results = {run.weights: values['metrics']}
  console().print(reports.table(results))
  counts, missed = values['false_detections'], values['missed']
  why = ', '.join(f'{number:,} {error}' for error, number in counts['by_error'].items() if number)
  print(
    f'{counts["false"]:,} of {counts["detections"]:,} detections {at} are false{": " if why else ""}{why}; '
    f'{missed["missed"]:,} of {missed["objects"]:,} objects are missed'
  )
  if values['unreadable_images']:
    print(f'{values["unreadable_images"]} of {values["images"]} images could not be read')
  print(reports.headline(results))


def _percent(share):
  return f'{100 * share:.0f} %'


def _tenths(share):
  return f'{100 * share:.1f}'
