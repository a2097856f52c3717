"""Kinetics as its csv files and download scripts leave it, with the videos that could be downloaded.

python -m ctx_flax.data.kinetics DIR [--split=test]

writes the names of the videos that a csv file lists and DIR lacks, one a line, to DIR/missing_train.txt (for
val.csv to missing_val.txt). Training and tests do so too.
"""

import argparse
import csv
import dataclasses
import os
import pathlib
import sys
import types
from collections.abc import Sequence
from typing import Any

from ctx_flax.data.clip_files import VIDEO, VideoFiles
from ctx_flax.data.file_source import data_folder
from ctx_flax.data.image_files import counted, few, iterate_files
from ctx_flax.data.missing_videos import MissingVideos
from ctx_flax.files import printable, shell_word

COLUMNS = ('label', 'youtube_id', 'time_start', 'time_end')  # others are not read
TEST_FILES = ('validate', 'val', 'validation', 'test')  # what the csv file to test on is called, if not told
FOLDERS = ('', 'annotations')  # of data.path, where the csv files may lie
NEEDED = 'a folder with train.csv, val.csv and the videos ID_START_END.mp4 that they list'


@dataclasses.dataclass(frozen=True)
class Rows:
  """The rows of a csv file: videos[i] is 'ID_START_END', the name without its ending, of class labels[i]."""

  path: pathlib.Path
  videos: list[str]
  labels: list[str]


def kinetics_csv(data: Any, split: str) -> VideoFiles:
  """The videos of a Kinetics csv file that are there.

  data.path holds, as the official archives and the common download scripts leave them:
    train.csv, and one of validate.csv, val.csv, validation.csv and test.csv, in itself or in annotations/.
      data.train_split and data.test_split name others ('val' for val.csv). Columns: label, youtube_id,
      time_start, time_end (whole seconds); others, such as split and is_cc, are not read.
    The videos, anywhere below it: flat, in folders of classes, in train/ and val/. A name is
      ID_START_END.mp4 (or another ending of a video), times in six digits: 0wR5jVB-WPk_000417_000427.mp4.

  Classes are the labels of the training file, sorted, spelled as there. Videos that are not there are left
  out, as thousands of Kinetics are no longer available: a remark counts them, and data.path/missing_train.txt
  (after the name of the csv file) lists them, if it can be written.

  Raises:
    FileNotFoundError: data.path is empty, or it or a csv file does not exist.
    ValueError: a csv file lacks a column, has a damaged or repeated row or a test label that training lacks,
      or none of its videos is there.
    OSError: a csv file or a folder cannot be read; names it.
  """
  root = data_folder(data, NEEDED)
  train = _read(_csv_file(root, data, 'train'))
  rows = train if split == 'train' else _read(_csv_file(root, data, split))
  classes = {name: label for label, name in enumerate(sorted(set(train.labels)))}
  unknown = sorted(set(rows.labels) - classes.keys())
  if unknown:
    raise ValueError(
      f'{printable(rows.path)} has labels that {printable(train.path)} does not: {few(unknown)}'
    )
  files, again = _videos_below(root)
  kept = [i for i, video in enumerate(rows.videos) if video in files]
  if not kept:
    raise ValueError(
      f'{printable(root)} holds none of the {counted(len(rows.videos), "video")} of {printable(rows.path)}; '
      f'the first would be {printable(rows.videos[0])}.mp4'
    )
  names = [files[rows.videos[i]] for i in kept]
  labels = [classes[rows.labels[i]] for i in kept]
  remarks = _write_missing(_missing(root, rows, files), data, split)
  present = set(labels)
  empty = [name for name, label in classes.items() if label not in present]
  if empty:
    remarks.append(f'{printable(rows.path)}: classes without videos: {few(empty)}')
  if again:
    remarks.append(f'{printable(root)}: {counted(again, "video")} there twice; the first by name counts')
  return VideoFiles(root, names, labels, map(printable, classes), remarks)


def missing_videos(data: Any, split: str) -> MissingVideos:
  """'ID_START_END' of the videos that the csv file of a split lists and that are not below data.path."""
  root = data_folder(data, NEEDED)
  rows = _read(_csv_file(root, data, split))
  files, _ = _videos_below(root)
  return _missing(root, rows, files)


def _missing(root: pathlib.Path, rows: Rows, files: dict[str, str]) -> MissingVideos:
  names = [video for video in rows.videos if video not in files]
  return MissingVideos(rows.path, len(rows.videos), names, root / f'missing_{rows.path.stem}.txt')


def _write_missing(missing: MissingVideos, data: Any, split: str) -> list[str]:
  """Names the missing videos in their file; a line about them, if there is something to say."""
  refusal = missing.write()
  if refusal:
    name = data.train_split if split == 'train' else data.test_split
    named = [f'--csv={name}'] if name and name != 'train' else []
    command = ' '.join(map(shell_word, [data.path, f'--split={split}', *named, '--to=FILE']))
    return [f'{missing.summary()} ({refusal}; python -m ctx_flax.data.kinetics {command} lists them)']
  return [missing.written()] if missing.names else []


def _videos_below(root: pathlib.Path) -> tuple[dict[str, str], int]:
  """({name without its ending: first file by name, relative to the folder}, how many more there are)."""
  # One walk: to ask the file system for each of 250,000 rows takes minutes on a network drive.
  files: dict[str, str] = {}
  again = 0
  for name in iterate_files(root, kind=VIDEO):
    video = os.path.basename(name).rpartition('.')[0]
    again += video in files
    files[video] = min(name, files.get(video, name))
  return files, again


def _csv_file(root: pathlib.Path, data: Any, split: str) -> pathlib.Path:
  if split == 'train':
    names: tuple[str, ...] = (data.train_split or 'train',)
  else:
    names = (data.test_split,) if data.test_split else TEST_FILES
  for folder in FOLDERS:
    for name in names:
      file = root / folder / f'{name.removesuffix(".csv")}.csv'
      if file.is_file():
        return file
  files = ', '.join(f'{name.removesuffix(".csv")}.csv' for name in names)
  raise FileNotFoundError(
    f'{printable(root)} holds no {printable(files)}, nor does annotations in it: data.{split}_split names it'
  )


def _read(path: pathlib.Path) -> Rows:
  shown = printable(path)
  videos: dict[str, int] = {}
  labels = []
  try:
    with path.open(encoding='utf-8-sig', newline='') as lines:
      reader = csv.DictReader(lines, strict=True)
      missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
      if missing:
        raise ValueError(
          f'{shown} has no column {", ".join(missing)}: a csv file of Kinetics starts with a line that names '
          f'its columns, {",".join(COLUMNS)} among them'
        )
      for row in reader:
        video = _video(row, f'{shown}, line {reader.line_num}')
        if video in videos:
          raise ValueError(
            f'{shown}, line {reader.line_num} repeats {printable(video)} of line {videos[video]}: '
            'remove one of them'
          )
        videos[video] = reader.line_num
        labels.append(row['label'])
  except UnicodeDecodeError:
    raise ValueError(f'{shown} is not UTF-8: save it so') from None
  except csv.Error as error:
    raise ValueError(f'{shown} cannot be read as csv: {error}') from None
  if not videos:
    raise ValueError(f'{shown} lists no videos')
  return Rows(path, list(videos), labels)


def _video(row: dict[str, str | None], where: str) -> str:
  """'ID_START_END' of a row."""
  for column in ('label', 'youtube_id'):
    if not (row[column] or '').strip():
      raise ValueError(f'{where} has no {column}')
  times = []
  for column in ('time_start', 'time_end'):
    time = (row[column] or '').strip()
    if not time.isdecimal():
      raise ValueError(f'{where}: {column} must be whole seconds, but is {printable(repr(time))}')
    times.append(f'{int(time[:20]):06d}')
  return '_'.join(((row['youtube_id'] or '').strip(), *times))


def main(arguments: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog='python -m ctx_flax.data.kinetics',
    description='Writes the names of the videos that a csv file of Kinetics lists and DIR lacks to a file, '
    'one a line. Where it cannot be written, the names are printed.',
  )
  parser.add_argument('folder', metavar='DIR', help='the csv files and the videos, as data.path')
  parser.add_argument('--split', choices=('train', 'test'), default='train', help='by default train')
  parser.add_argument('--csv', default='', help='name of the csv file in DIR, if it is not found by itself')
  default = 'by default missing_train.txt in DIR, or after another csv file, as missing_val.txt'
  parser.add_argument('--to', metavar='FILE', default='', help=default)
  options = parser.parse_args(arguments)
  data = types.SimpleNamespace(
    name='kinetics_csv', path=options.folder, train_split=options.csv, test_split=options.csv
  )
  try:
    missing = missing_videos(data, options.split)
  except (ValueError, OSError) as error:
    sys.exit(f'error: {printable(" ".join(str(error).split()))}')
  if options.to:
    missing = dataclasses.replace(missing, file=pathlib.Path(os.path.expanduser(options.to)))
  refusal = missing.write()
  if refusal:
    for name in missing.names:
      print(printable(name))
    elsewhere = (
      '; all names are on the standard output, --to=FILE writes them elsewhere' if missing.names else ''
    )
    sys.exit(f'error: {refusal}. {missing.summary()}{elsewhere}')
  print(missing.written())


if __name__ == '__main__':
  main()
