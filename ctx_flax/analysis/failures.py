"""Where a network fails: confident mistakes, confusions, stages and calibration (the paper's Figure 4)."""

import re

import numpy as np

from ctx_flax.analysis import calibration, failure_figures, figures, records
from ctx_flax.analysis.all_images import over_images
from ctx_flax.analysis.images import chosen_images
from ctx_flax.analysis.printed import end_of, print_table
from ctx_flax.analysis.run import check_task, open_run
from ctx_flax.analysis.stage_decisions import decide
from ctx_flax.files import printable
from ctx_flax.training.halt import bad_data, bad_input, failed_report

NAMES = 'image', 'true class', 'predicted'  # the printed columns that hold no numbers
OPTIONS = 'images', 'pairs', 'bins'


def failures(config, workdir):
  """Writes failures.{json,csv} and figures of gallery, confusions, stages and calibration of a run.

  Args:
    config: its config; failures.{images, pairs, bins}.
    workdir: its folder.

  Returns:
    What `write` returns.

  Raises:
    Halt: the input is wrong (status 2), or the result could not be written (1).
  """
  with bad_input():
    check_task(config)
    check_settings(config.failures)
    run = open_run(config, workdir)
  with bad_data():
    return write(run)


def check_settings(options):
  """Raises ValueError for a field of config.failures that has no meaning."""
  for name in OPTIONS:
    if options[name] < 1:
      raise ValueError(f'failures.{name} must be 1 or more, but is {options[name]}')


def write(run):
  """Computes, draws, writes and prints what `failures` promises, of an open run.

  Returns:
    What `decisions` returns, and 'mistakes' (rows, see `most_confident`), 'confusions', 'calibration',
    'accuracy' and 'recall' {stage: share}, 'files' {name: path without suffix} of the figures.
  """
  options = run.config.failures
  check_settings(options)
  decided = decisions(run)
  mistakes = most_confident(decided, options.images)
  pairs = confusions(decided['label'], decided['predicted'], options.pairs)
  reliable = calibration.reliability(decided['confidence'], decided['correct'], options.bins)
  stages = by_stage(decided)
  table = mistake_table(run, decided, mistakes)
  names = run.class_names
  drawn = {
    'failures_gallery': failure_figures.gallery(
      pixels_of(run, table['index']), table, run.title, run.model.contextual
    ),
    'failures_confusions': failure_figures.confusion_bars(pairs, names, run.title),
    'failures_stages': failure_figures.stage_bars(stages, run.title),
    'failures_calibration': calibration.draw(reliable, run.title),
  }
  path = run.folder / 'failures'
  files = {name: run.folder / name for name in drawn}
  with failed_report(path):
    for name, figure in drawn.items():
      figures.save(figure, files[name])
    numbers = {
      'run': run.title,
      'images': len(decided['label']),
      **stages,
      'mistakes': decided_by(decided) | {'most_confident': table},
      'confusions': [
        {**pair, 'true': names[pair['true']], 'predicted': names[pair['predicted']]} for pair in pairs
      ],
      'calibration': reliable,
    }
    records.save_json(numbers, path.with_suffix('.json'))
    records.save_csv(table, path.with_suffix('.csv'))
  _print(run, numbers)
  shown = printable(path)
  print(f'{shown}.json, .csv, {shown}_*.png, .svg', flush=True)
  return {
    **decided,
    'mistakes': mistakes,
    'confusions': pairs,
    'calibration': reliable,
    **stages,
    'files': files,
  }


def decisions(run):
  """What `stage_decisions.decide` returns for all test images, with 'label' and 'index', in one pass."""
  return over_images(run, decide, 'decisions')


def most_confident(decided, count):
  """The rows of the `count` mistakes with the highest confidence, highest first, equal ones in order."""
  wrong = np.flatnonzero(decided['predicted'] != decided['label'])
  return wrong[np.argsort(-decided['confidence'][wrong], kind='stable')][:count]


def confusions(labels, predicted, count):
  """The most frequent confusions: [{'true', 'predicted', 'images', 'share'}, ...], classes by number.

  'share' is that of the true class's images. Equal ones in the order of their classes.
  """
  wrong = labels != predicted
  pairs, images = np.unique(np.stack([labels[wrong], predicted[wrong]], 1), axis=0, return_counts=True)
  of_class = np.bincount(labels)
  order = np.argsort(-images, kind='stable')[:count]
  return [
    {
      'true': int(pairs[i, 0]),
      'predicted': int(pairs[i, 1]),
      'images': int(images[i]),
      'share': float(images[i] / of_class[pairs[i, 0]]),
    }
    for i in order
  ]


def by_stage(decided):
  """{'accuracy': {stage: share of images}, 'recall': the same of labels that are considered there}."""
  stages = sorted(int(name[7:]) for name in decided if re.fullmatch(r'correct\d+', name))
  share = lambda kind: {s: float(decided[f'{kind}{s}'].mean()) for s in stages if f'{kind}{s}' in decided}
  return {'accuracy': share('correct'), 'recall': share('kept')}


def decided_by(decided):
  """How many mistakes there are, and what decided them.

  Returns:
    {'images': all mistakes, 'by_selection': the true class was not considered any more by the last stage,
    'by_last_stage': it was}; under 'rerank' and in plain networks all are the last stage's.
  """
  wrong = ~decided['correct']
  lost = wrong & ~decided['decidable']
  return {
    'images': int(wrong.sum()),
    'by_selection': int(lost.sum()),
    'by_last_stage': int((wrong & ~lost).sum()),
  }


def mistake_table(run, decided, rows):
  """{column: list} of mistakes: index and name of the image, classes, probabilities, where it was dropped."""
  names = run.class_names
  pick = lambda name: decided[name][rows]
  return {
    'index': pick('index').tolist(),
    'image': [run.source.name(int(i)) for i in pick('index')],
    'true': [names[i] for i in pick('label')],
    'true_probability': pick('true_probability').tolist(),
    'predicted': [names[i] for i in pick('predicted')],
    'probability': pick('confidence').tolist(),
    'dropped_at_stage': [int(s) or '-' for s in pick('dropped')],
  }


def pixels_of(run, indices):
  """uint8 (m, s, s, 3) of test images; empty for none."""
  side = run.config.data.image_size
  if not indices:
    return np.zeros((0, side, side, 3), np.uint8)
  return chosen_images(run, '', tuple(indices), 'failures').pixels


def _print(run, numbers):
  mistakes, pairs = numbers['mistakes'], numbers['confusions']
  listed = mistakes['most_confident']
  wrong = [
    (end_of(image), true, f'{100 * p_true:.1f}', predicted, f'{100 * p:.1f}', str(dropped))
    for _, image, true, p_true, predicted, p, dropped in zip(*listed.values(), strict=True)
  ]
  print_table(
    'The most confident mistakes', ('image', 'true class', '%', 'predicted', '%', 'dropped'), wrong, NAMES
  )
  confused = [
    (pair['true'], pair['predicted'], f'{pair["images"]}', f'{100 * pair["share"]:.1f}') for pair in pairs
  ]
  columns = 'true class', 'predicted', 'images', '% of class'
  print_table('The most frequent confusions', columns, confused, NAMES)
  for name, what in (('accuracy', 'accuracy by stage'), ('recall', 'true class considered')):
    if len(numbers[name]) > 1:
      print(f'{what}: ' + ', '.join(f'{s}: {100 * v:.1f} %' for s, v in numbers[name].items()))
  _, accuracy = max(numbers['accuracy'].items())  # of the last stage
  print(
    f'{mistakes["images"]:,} of {numbers["images"]:,} images wrong: accuracy '
    f'{100 * accuracy:.2f} %, calibration error {100 * numbers["calibration"]["ece"]:.1f} %'
  )
  if run.model.contextual and mistakes['images']:
    print(
      f'of the mistakes {mistakes["by_selection"]:,} decided by the drop of the true class, '
      f'{mistakes["by_last_stage"]:,} by the last stage'
    )
