"""What a trained network says about images: the best classes and the class funnel that led to them."""

import contextlib
import csv
import functools
import json
import os
import pathlib
import sys
from typing import Any

import jax
import rich.table
import rich.text

from ctx_flax import files as file_text
from ctx_flax import terminal
from ctx_flax.analysis import figures, funnel_figures
from ctx_flax.analysis.all_images import in_batches
from ctx_flax.analysis.file_names import find_files, listed_files
from ctx_flax.analysis.funnel import describe, funnel
from ctx_flax.analysis.images import images_of
from ctx_flax.analysis.picture_files import PictureFiles
from ctx_flax.analysis.records import plain
from ctx_flax.analysis.run import check_task, open_run
from ctx_flax.data.image_files import IMAGE, counted
from ctx_flax.tasks import task_of
from ctx_flax.training.halt import Halt, bad_data, bad_input, failed_report

FORMATS = 'table', 'jsonl', 'csv'


def predict(config, workdir):
  """Classifies files and writes each image's best classes and its class funnel as they are computed.

  Everything but the result goes to the standard error, so that the result can be piped.

  Args:
    config: the config of a run; predict.{images, list, top, format, output, pictures}.
    workdir: the folder of the run.

  Returns:
    [prediction, ...] of the images that could be read, see `describe`.

  Raises:
    Halt: the input is wrong, or no image could be read (status 2); the result could not be written (1).
  """
  say = functools.partial(print, file=sys.stderr, flush=True)
  with bad_input():
    check_task(config)
    options = config.predict
    check_settings(options)
    task: Any = task_of(config)
    files = named_files(options, say, task.kind)
    pictures = PictureFiles(options.pictures, files) if options.pictures else None
    config = config.copy_and_resolve_references()
    config.data.on_bad_image = 'skip'
    config.eval.batch_size = batch_size(len(files), config.eval.batch_size)
    run = open_run(config, workdir, images=False, warn=say)
  found = []
  with bad_data(), failed_report(options.output or 'the standard output'), opened(options.output) as stream:
    write = WRITERS[options.format](stream, options.top, run)
    for prediction in predictions(run, files, options.top):
      write(prediction)
      found.append(prediction)
      if pictures is not None:
        with failed_report(options.pictures):
          draw(run, prediction, pictures)
  if not found:
    raise Halt(f'none of the {len(files)} {task.examples} could be read', 2)
  if len(found) < len(files):
    say(f'{len(files) - len(found)} of {len(files)} {task.examples} could not be read')
  for path in filter(None, (options.output, options.pictures)):
    say(f'{counted(len(found), task.kind.noun)} in {file_text.printable(path)}')
  return found


def check_settings(options):
  """Raises ValueError for a field of config.predict that has no meaning."""
  if options.format not in FORMATS:
    raise ValueError(f'predict.format is {options.format!r}: it must be one of {", ".join(FORMATS)}')
  if options.top < 1:
    raise ValueError(f'predict.top must be 1 or more, but is {options.top}')
  check_named(options)


def check_named(options):
  """Raises ValueError if predict.images and predict.list name nothing."""
  if not (options.images or options.list):
    raise ValueError(
      'give the images, --config.predict.images=FILES: files, folders and globs between commas; or '
      '--config.predict.list=FILE with a name in each line'
    )


def named_files(options, warn=None, kind=IMAGE):
  """The files of a kind that predict.images and predict.list name, each once."""
  named = find_files(options.images, warn, kind) if options.images else []
  listed = listed_files(options.list, warn, kind) if options.list else []
  return list(dict.fromkeys((*named, *listed)))


def batch_size(images, largest):
  """The rows of a batch: no more than the images take, a multiple of the devices."""
  devices = jax.device_count()
  return min(largest, -(-images // devices) * devices)


def predictions(run, files, top):
  """Yields what `describe` returns for every file that can be read, batch by batch.

  Args:
    run: a Run.
    files: paths of image or video files.
    top: how many classes of each stage.
  """
  top = min(top, run.num_classes)
  source = run.task.source_of_files(files, run.class_names)
  taken = lambda out, _: funnel(out, top)
  for rows in in_batches(run, taken, 'predicted', source, stream=sys.stderr):
    for row in range(len(rows['index'])):
      values = {name: value[row].tolist() for name, value in rows.items()}
      yield describe(files[values['index']], values, run.class_names, run.task.kind.noun)


def draw(run, prediction, pictures):
  """Writes the figure of a prediction's class funnel, as PNG and SVG.

  Args:
    run: a Run.
    prediction: of a file.
    pictures: PictureFiles.
  """
  name = next(iter(prediction.values()))
  # Read again, because the pixels of thousands of images would not fit into memory.
  images = images_of(run, run.task.source_of_files([name], run.class_names), [0], known=False)
  figure = funnel_figures.draw(prediction, images.pixels[0])
  figures.save(figure, pictures.path(name).with_suffix(''))


@contextlib.contextmanager
def opened(path):
  """A text stream to a file, whose folder is made, or the standard output."""
  if not path:
    yield sys.stdout
    return
  path = pathlib.Path(os.path.expanduser(path))
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('w', encoding='utf-8', newline='') as stream:
    yield stream


def set_encoding(stream, **options):
  """Sets how a stream encodes text, if it can be set: it may be a locale's that lacks letters of names."""
  if hasattr(stream, 'reconfigure'):
    stream.reconfigure(**options)


def funnel_table(prediction, num_classes):
  """A rich table of the class funnel of one prediction."""
  table = rich.table.Table(width=80)
  for column in ('stage', 'best classes', 'answer is', 'kept'):
    table.add_column(column, justify='left' if column == 'best classes' else 'right')
  for step in prediction['funnel']:
    best = ', '.join(f'{c["class"]} {100 * c["probability"]:.1f}%' for c in step['classes'])
    kept = f'{step["kept"]} of {num_classes}' if 'kept' in step else ''
    place = f'no. {step["answer_place"]}'
    table.add_row(str(step['stage']), rich.text.Text(file_text.printable(best)), place, kept)
  return table


def _write_tables(stream, top, run):
  set_encoding(stream, errors='replace')
  console = terminal.console(stream)

  def write(prediction):
    print_title(console, next(iter(prediction.values())))
    console.print(funnel_table(prediction, run.num_classes))

  return write


def print_title(console, title):
  """Prints the line above a table, whole however long: it holds a name that somebody may copy."""
  console.print(rich.text.Text(file_text.printable(title)), style='italic', soft_wrap=True)


def _write_lines(stream, top, run):
  return json_lines(stream)


def json_lines(stream):
  """A function that writes a prediction as a line of JSON, at once."""
  set_encoding(stream, encoding='utf-8')  # whatever the locale: who reads it asks for none

  def write(prediction):
    print(json.dumps(plain(prediction), ensure_ascii=False), file=stream, flush=True)

  return write


def _write_csv(stream, top, run):
  """A row per example: its best classes, then each stage's best class, what it kept, the answer's place."""
  top = min(top, run.num_classes)
  last = len(run.model.dims)
  stages = range(1, last + 1) if run.model.contextual else (last,)
  columns = [
    run.task.kind.noun,
    *(f'{kind}{i}' for i in range(1, top + 1) for kind in ('class', 'probability')),
  ]
  of_stage = ('best', 'probability', 'kept', 'answer_place')
  columns += [f'stage{s}_{kind}' for s in stages for kind in of_stage]
  set_encoding(stream, encoding='utf-8')  # whatever the locale: who reads it asks for none
  writer = csv.writer(stream, lineterminator='\n')
  writer.writerow(columns)

  def write(prediction):
    row = [prediction[run.task.kind.noun]]
    for c in prediction['classes'] + [{'class': '', 'probability': ''}] * (top - len(prediction['classes'])):
      row += [c['class'], c['probability']]
    for step in prediction['funnel']:
      best = step['classes'][0]
      row += [best['class'], best['probability'], step.get('kept', ''), step['answer_place']]
    writer.writerow(plain(row))
    stream.flush()

  return write


WRITERS = {'table': _write_tables, 'jsonl': _write_lines, 'csv': _write_csv}
