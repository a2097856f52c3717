"""Sets that are made here, as folders of images: DIR/train/CLASS/*.png and DIR/validation/CLASS/*.png."""

import argparse
import io
import pathlib
import re
import sys
from collections.abc import Iterator

import numpy as np
import rich.progress
from PIL import Image

from ctx_flax import files, terminal
from ctx_flax.data import sources
from ctx_flax.data.claims import claim
from ctx_flax.data.sources import Source

# Options of each set; they are fields of config.data.
OPTIONS = {
  'digits': ('image_size', 'test_images', 'split_seed'),
  'glyphs': ('image_size', 'classes', 'images_per_class', 'split_seed'),
  'patches': ('image_size', 'classes', 'images_per_class', 'split_seed'),
}
DEFAULTS = {'image_size': 32, 'classes': 200, 'images_per_class': 100, 'test_images': 360, 'split_seed': 0}
FOLDERS = {'train': 'train', 'test': 'validation'}  # split -> what image_folder calls it


def add_options(parser: argparse.ArgumentParser, name: str) -> None:
  """Adds the options of a set, with defaults."""
  for option in OPTIONS[name]:
    parser.add_argument(
      f'--{option}', type=int, default=DEFAULTS[option], help=f'by default {DEFAULTS[option]}'
    )


def write_folder(name: str, root: pathlib.Path, options: argparse.Namespace) -> str:
  """Writes a set as folders of PNG files; what is there already from the same command stays.

  Each file is written whole or not at all, so that the same command goes on after it was killed.

  Args:
    name: of OPTIONS.
    root: the folder, new or empty or from the same command.
    options: what `add_options` parses.

  Returns:
    What to type to train on it.

  Raises:
    ValueError: an option is wrong, or the folder holds something else.
    OSError: the folder cannot be written; names it.
  """
  values = {option: getattr(options, option) for option in OPTIONS[name]}
  data = argparse.Namespace(**DEFAULTS | values, name=name)
  opened = {split: sources.open_source(data, split) for split in FOLDERS}
  claim(root, {'name': name, **values})
  total = sum(map(len, opened.values()))
  with rich.progress.Progress(console=terminal.console(sys.stderr)) as progress:
    task = progress.add_task(name, total=total)
    for split, source in opened.items():
      for path, pixels in _images(root / FOLDERS[split], source):
        if pixels is not None:
          files.write_bytes(path, pixels)
        progress.advance(task)
  option = files.shell_word(f'--config.data.path={root}')
  return f'--config.data.name=image_folder {option} --config.data.image_size={data.image_size}'


def class_folder(label: int, name: str, num_classes: int) -> str:
  """The name of a class's folder: in the order of the labels, of letters that every file system takes."""
  number = f'{label:0{len(str(num_classes - 1))}d}'
  if name == number:
    return number
  words = re.sub('[^0-9A-Za-z]+', '_', name).strip('_')
  return f'{number}-{words or "_".join(f"U{ord(letter):04X}" for letter in name)}'


def _images(folder: pathlib.Path, source: Source) -> Iterator[tuple[pathlib.Path, bytes | None]]:
  """Yields (path, PNG file) of every image; None for one that is there."""
  folders = [class_folder(label, name, source.num_classes) for label, name in enumerate(source.class_names)]
  digits = len(str(len(source) - 1))
  for index in range(len(source)):
    element = source[index]
    path = folder / folders[element['label']] / f'{index:0{digits}d}.png'
    yield path, None if path.exists() else _png(element['image'])


def _png(pixels: np.ndarray) -> bytes:
  content = io.BytesIO()
  Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(content, 'PNG')
  return content.getvalue()
