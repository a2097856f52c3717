"""What the context is worth to a trained network: other contexts, and fewer parts that read it.

Every test image gets (a) its own context, (b) that of another image, (c) that of all classes, (d) that of
its true class and the classes that the network confuses most with it, (e) that of its true class and random
others; then its own, but with (f) kernel deltas of 0, (g) offsets of 0, (h) a constant mask. (b) to (e)
measure what the context carries; (d) and (e) use the labels: (d) is an oracle, and (e) says how much of it
comes from knowing the label. (f) to (h) measure what each adaptation, to the context and to the image itself,
is worth. None of this is in the paper.
"""

import numpy as np

from ctx_flax.analysis import bootstrap, figures, records
from ctx_flax.analysis.context_passes import OWN, observe
from ctx_flax.analysis.context_terms import reads_contexts
from ctx_flax.analysis.context_use_figures import LABELS, draw
from ctx_flax.analysis.printed import print_table
from ctx_flax.analysis.run import check_task, open_run
from ctx_flax.files import printable
from ctx_flax.training.halt import bad_data, bad_input, failed_report

FILE = 'context_use'
KINDS = 'accuracy', 'loss'
MISSING = '-'
COLUMNS = 'context', 'accuracy %', 'change (95 %)', 'loss', 'change (95 %)'


def context_use(config, workdir):
  """Writes context_use.{json,csv,png,svg} of a contextual run and prints a summary.

  Args:
    config: its config; context.{resamples, seed, classes}.
    workdir: its folder.

  Returns:
    What `write` returns.

  Raises:
    Halt: the input is wrong or the network plain (status 2); the result could not be written (1).
  """
  with bad_input():
    check_task(config)
    check_settings(config.context)
    run = open_run(config, workdir)
    check_run(run)
  with bad_data():
    return write(run)


def check_settings(options):
  """Raises ValueError for a field of config.context that has no meaning."""
  for name, least in (('resamples', 2), ('seed', 0), ('classes', 1)):
    if options[name] < least:
      raise ValueError(f'context.{name} must be {least} or more, but is {options[name]}')


def check_run(run):
  """Raises ValueError for a network whose convolutions have no context, and for a single image."""
  if not run.model.contextual:
    raise ValueError(f'{run.workdir} is a run of {run.config.model.name}: a plain network has no contexts')
  if not run.model.adapts:
    raise ValueError(f'{run.workdir} has no contextual convolutions: model.ablate is {run.model.ablate}')
  if len(run.source) < 2:
    raise ValueError(
      f'{run.workdir}: contexts of other {run.task.examples} need 2 or more to test on, but there is '
      f'{len(run.source)}'
    )


def measure(run):
  """{row: numbers} of an open contextual run, see `numbers_of`; nothing is written."""
  return numbers_of(observe(run, run.config.context.seed), run.config.context)


def write(run):
  """Computes, draws, writes and prints what `context_use` promises, of an open contextual run.

  Returns:
    {'rows': what `numbers_of` returned, 'contexts': what `differences` returned, 'classes': what `by_class`
    returned, 'same_class': see Observed, 'files': {name: path without suffix} of the figures}.
  """
  check_settings(run.config.context)
  observed = observe(run, run.config.context.seed)
  rows, classes = numbers_of(observed, run.config.context), by_class(observed, run.class_names)
  contexts = differences(observed, run.class_counts, run.num_classes)
  numbers = {'rows': rows, 'contexts': contexts, 'classes': classes, 'same_class': observed.same_class}
  path = run.folder / FILE
  with failed_report(path):
    figures.save(draw(rows, run.title), path)
    about = {'run': run.title, 'images': len(observed.label), **run.config.context.to_dict()}
    records.save_json(about | {'class_counts': run.class_counts} | numbers, path.with_suffix('.json'))
    records.save_csv(classes, path.with_suffix('.csv'))
  _print(run, numbers)
  print(f'{printable(path)}.png, .svg, .json, .csv', flush=True)
  return {**numbers, 'files': {FILE: path}}


def numbers_of(observed, options):
  """Accuracy and loss by stage, their changes from an image's own context, and intervals of all.

  Args:
    observed: an Observed.
    options: config.context; uses resamples and seed.

  Returns:
    {row: {...} or None}, the rows of LABELS in order; None for rows without a meaning in the network, such as
    an adaptation that it was trained without. Each has
      'accuracy', 'loss': {stage: {'value', 'low', 'high'}}, the share of images of which the stage's best
        class is the true one, and the mean cross-entropy in nats of the images that count;
      'accuracy_change', 'loss_change': the same of the difference to 'own';
      'counted': {stage: share of images that count in the loss: whose class the stage decides between};
      'recall': {stage: share of images whose class the stage considers}, of all but the first.
  """
  names = list(observed.terms[OWN])
  stages = [int(name.removeprefix('loss')) for name in names if name.startswith('loss')]
  columns = [
    (row, kind, s) for row in observed.terms for kind in ('correct', 'counted', 'loss') for s in stages
  ]
  values = np.stack([observed.terms[row][f'{kind}{s}'] for row, kind, s in columns], 1).astype(np.float64)
  sums = np.concatenate(
    [values.sum(0)[None], bootstrap.resampled_sums(values, options.resamples, options.seed)]
  )
  place = {column: i for i, column in enumerate(columns)}
  of = lambda row, kind: np.stack([sums[:, place[row, kind, s]] for s in stages], 1)
  # The first row of each is that of the images themselves. A stage that counts no image has no loss.
  with np.errstate(invalid='ignore'):
    estimates = {
      row: {'accuracy': of(row, 'correct') / len(values), 'loss': of(row, 'loss') / of(row, 'counted')}
      for row in observed.terms
    }
  found: dict = dict.fromkeys(LABELS)
  for row, terms in observed.terms.items():
    found[row] = {kind: _by_stage(stages, estimates[row][kind]) for kind in KINDS}
    for kind in KINDS:
      found[row][f'{kind}_change'] = _by_stage(stages, estimates[row][kind] - estimates[OWN][kind])
    for name, term in (('counted', 'counted'), ('recall', 'kept')):
      found[row][name] = {s: float(terms[f'{term}{s}'].mean()) for s in stages if f'{term}{s}' in terms}
  return found


def _by_stage(stages, estimates):
  low, high = bootstrap.percentiles(estimates[1:])
  return {
    s: {'value': float(value), 'low': float(lo), 'high': float(hi)}
    for s, value, lo, hi in zip(stages, estimates[0], low, high, strict=True)
  }


def by_class(observed, class_names):
  """{'class', 'images', row: accuracy of the last stage}, lists with an element per class that has images.

  Those that gain most by their own contexts, compared with those of other images, come first; in a network
  that reads no contexts classes are in order of their numbers.
  """
  n = len(class_names)
  images = np.bincount(observed.label, minlength=n)
  last = [name for name in observed.terms[OWN] if name.startswith('correct')][-1]
  accuracy = {
    row: np.bincount(observed.label, terms[last], minlength=n) / np.maximum(images, 1)
    for row, terms in observed.terms.items()
  }
  gain = accuracy[OWN] - accuracy.get('other_image', accuracy[OWN])
  order = [i for i in np.argsort(-gain, kind='stable') if images[i]]
  return {
    'class': [class_names[i] for i in order],
    'images': images[order].tolist(),
    **{row: values[order].tolist() for row, values in accuracy.items()},
  }


def differences(observed, counts, n):
  """How much contexts differ between images, {stage: {...}}.

  Returns:
    'variance': of the context vectors over images, as a share of their mean squared norm; 0 for equal ones;
    'shared': the share of the considered classes that two images have in common, mean over all pairs;
    'shared_by_chance': that of sets drawn at random.
  """
  return {
    s: {'variance': observed.variance[s], 'shared': observed.shared[s], 'shared_by_chance': count / n}
    for s, count in zip(observed.variance, counts, strict=True)
  }


def table(rows):
  """[[text of COLUMNS], ...] of the last stage, a line for each row of `numbers_of`."""
  lines = []
  for row, numbers in rows.items():
    if numbers is None:
      lines.append([LABELS[row], *[MISSING] * (len(COLUMNS) - 1)])
      continue
    last = max(numbers['accuracy'])
    accuracy, loss = (numbers[kind][last]['value'] for kind in KINDS)
    change = [MISSING] * 2
    if row != OWN:
      change = [
        _interval(numbers['accuracy_change'][last], 100, 1),
        _interval(numbers['loss_change'][last], 1, 3),
      ]
    lines.append([LABELS[row], f'{100 * accuracy:.1f}', change[0], f'{loss:.3f}', change[1]])
  return lines


def _interval(estimate, factor, digits):
  value, low, high = (factor * estimate[name] for name in ('value', 'low', 'high'))
  return f'{value:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})'


def _print(run, numbers):
  last = max(numbers['rows'][OWN]['accuracy'])
  # The intervals of the losses do not fit on a terminal.
  lines = [[*line[:-1], line[-1].partition(' ')[0]] for line in table(numbers['rows'])]
  print_table(f'Stage {last} with other contexts', (*COLUMNS[:-1], 'change'), lines, COLUMNS[:1])
  if reads_contexts(run.model):
    print('*: an oracle, in place of an upper bound: it uses the true class')
  shares = [
    (str(s), *(f'{100 * found[name]:.1f}' for name in ('variance', 'shared', 'shared_by_chance')))
    for s, found in numbers['contexts'].items()
  ]
  columns = 'stage', 'variance %', 'shared classes %', 'by chance %'
  print_table('How contexts differ between images', columns, shares)
  classes = numbers['classes']
  if 'other_image' in classes:
    listed = zip(classes['class'], classes['images'], classes[OWN], classes['other_image'], strict=True)
    changed = [line for line in listed if line[2] != line[3]]
    shown = run.config.context.classes
    ends = changed if len(changed) <= 2 * shown else [*changed[:shown], *changed[-shown:]]
    texts = [
      (name, f'{images:,}', *(f'{100 * v:.1f}' for v in (own, other, own - other)))
      for name, images, own, other in ends
    ]
    named = 'class', 'images', 'own %', "another's %", 'gain'
    print_table('Classes that gain most and least by their own contexts', named, texts, named[:1])
