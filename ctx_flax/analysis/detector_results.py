"""How detections in files are told: tables, lines of JSON, and COCO's list of results.

A writer is a context manager (stream, run, ids) -> function (number of a file, its name, its (h, w), its
detections), which writes them at once.
"""

import contextlib
import functools
import json
import os
import stat
import sys

import numpy as np
import rich.table
import rich.text

from ctx_flax import terminal
from ctx_flax.analysis.predict import json_lines, print_title, set_encoding
from ctx_flax.analysis.records import plain
from ctx_flax.files import printable
from ctx_flax.tasks.detection.paste import encode_mask, paste_mask
from ctx_flax.tasks.detection.results import image_results

FORMATS = 'table', 'jsonl', 'coco'


def describe(name, hw, found, class_names):
  """The detections of an image as nested dicts, by falling score.

  Args:
    name: of the image.
    hw: its height and width.
    found: {'boxes', 'scores', 'labels', 'valid', 'masks'}, arrays of one image's Detections.
    class_names: by number.

  Returns:
    {'image': name, 'height': h, 'width': w, 'objects': [{'class', 'score', 'box': [x1, y1, x2, y2] in pixels,
    'mask': run-length code {'size': [h, w], 'counts'}}, ...]}.
  """
  h, w = hw
  objects = [
    {
      'class': class_names[int(found['labels'][n])],
      'score': float(found['scores'][n]),
      'box': found['boxes'][n].tolist(),
      'mask': encode_mask(paste_mask(found['masks'][n], found['boxes'][n], hw)),
    }
    for n in np.flatnonzero(found['valid'])
  ]
  return {'image': name, 'height': h, 'width': w, 'objects': objects}


def image_ids(run, files, say):
  """The ids that images have in COCO's format.

  They are those of the run's annotation file if that lists all of the files, in the folder where it has them.
  Otherwise images are numbered from 1, in the order in which they are named.

  Args:
    run: a DetectorRun.
    files: names of files.
    say: is told in a line which ids they are.

  Returns:
    (ids, whether they are those of the annotation file).

  Raises:
    ValueError: the ids of the categories are not known.
  """
  source = run.source
  if not source.category_ids:
    raise ValueError(
      'predict.format is coco, which needs the ids of the categories, but the annotation file is not there: '
      'say where the data are, --config.data.path=DIR, or take predict.format=jsonl'
    )
  known = {}
  if hasattr(source, 'image_ids'):
    root = os.path.realpath(source.root)
    names = (os.path.normpath(os.path.join(root, source.name(i))) for i in range(len(source)))
    known = dict(zip(names, source.image_ids.tolist(), strict=True))
  folder = functools.cache(os.path.realpath)  # most files share theirs
  there = [known.get(os.path.join(folder(os.path.dirname(f)), os.path.basename(f))) for f in files]
  if None not in there:
    say(f'image ids are those of {printable(source.annotation_file)}')
    return there, True
  say('images are numbered from 1 in the order in which they are named; file_name tells which is which')
  return list(range(1, len(files) + 1)), False


def objects_table(hw, found, class_names):
  """A rich table of the detections of an image of (h, w) pixels."""
  table = rich.table.Table(width=80)
  for column in ('class', 'score', 'left', 'top', 'right', 'bottom', 'mask pixels'):
    table.add_column(column, justify='left' if column == 'class' else 'right')
  for n in np.flatnonzero(found['valid']):
    area = int(paste_mask(found['masks'][n], found['boxes'][n], hw).sum())
    table.add_row(
      rich.text.Text(printable(class_names[int(found['labels'][n])])),
      f'{100 * found["scores"][n]:.1f}%',
      *(f'{side:.0f}' for side in found['boxes'][n]),
      f'{area:,}',
    )
  return table


@contextlib.contextmanager
def _tables(stream, run, ids):
  set_encoding(stream, errors='replace')
  console = terminal.console(stream)
  least = run.config.predict.shown_score

  def write(index, name, hw, found):
    table, (h, w) = objects_table(hw, found, run.class_names), hw
    title = f'{name}, {w} x {h} pixels'
    if table.row_count:
      print_title(console, title)
      console.print(table)
    else:
      print_title(console, f'{title}: nothing with a score of {least:g} or more')

  yield write


@contextlib.contextmanager
def _lines(stream, run, ids):
  write = json_lines(stream)
  yield lambda index, name, hw, found: write(describe(name, hw, found, run.class_names))


@contextlib.contextmanager
def _coco(stream, run, ids):
  numbers, listed = ids
  with contextlib.closing(JsonList(stream)) as results:

    def write(index, name, hw, found):
      values = image_results(numbers[index], hw, found, run.source.category_ids)
      results.extend(values if listed else [value | {'file_name': name} for value in values])

    yield write


class JsonList:
  """A JSON list that grows on a stream, a line for each value.

  A file holds a whole list after every part: its end is written with it, and overwritten by the next one.
  What cannot be overwritten, such as a pipe, gets its end from `close`.
  """

  END = '\n]\n'

  def __init__(self, stream):
    self._stream, self._place, self._separator = stream, 0, '\n'
    self._file = stream is not sys.stdout and stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    set_encoding(stream, encoding='utf-8')  # whatever the locale: who reads it asks for none
    self._put('[')

  def extend(self, values):
    """Adds values at once."""
    if values:
      lines = (json.dumps(plain(value), ensure_ascii=False, allow_nan=False) for value in values)
      self._put(self._separator + ',\n'.join(lines))
      self._separator = ',\n'

  def close(self):
    """Ends the list; also of a pass that is interrupted."""
    if not self._file:
      print(self.END, end='', file=self._stream, flush=True)

  def _put(self, text):
    if not self._file:
      print(text, end='', file=self._stream, flush=True)
      return
    text = text.encode()
    content, place = text + self.END.encode(), self._place
    while content:
      written = os.pwrite(self._stream.fileno(), content, place)
      content, place = content[written:], place + written
    self._place += len(text)


WRITERS = {'table': _tables, 'jsonl': _lines, 'coco': _coco}
