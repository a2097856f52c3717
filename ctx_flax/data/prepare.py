"""Prepares a data set, once.

python -m ctx_flax.data.prepare BUILDER [--data_dir=DATA_DIR]

prepares a data set of tensorflow_datasets as ArrayRecord files. Downloads it where that is possible.
imagenet2012 cannot be downloaded: put ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from image-net.org
into DATA_DIR/downloads/manual first. Needs TensorFlow, which nothing else here does: pip install tensorflow
beside requirements.txt.
"""

import argparse
import dataclasses
import importlib.util
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

from ctx_flax.data import coco_tiny, emoji_folder, made_folders, video_folders
from ctx_flax.data.tfds_source import FORMAT
from ctx_flax.files import printable, shell_word
from ctx_flax.nearest import nearest

PROGRAM = 'python -m ctx_flax.data.prepare'


@dataclasses.dataclass(frozen=True)
class Command:
  """What `prepare NAME DIR` does.

  Attributes:
    what: is written, for --help.
    write: (NAME, DIR, options) -> what to type to use it. ValueError and OSError end in a line.
    add_options: (parser, NAME): adds options to those of the command line.
  """

  what: str
  write: Callable[[str, pathlib.Path, argparse.Namespace], str]
  add_options: Callable[[argparse.ArgumentParser, str], None] = lambda parser, name: None


COMMANDS = {
  name: Command(f'{what}, as a folder of images', made_folders.write_folder, made_folders.add_options)
  for name, what in (
    ('digits', "scikit-learn's handwritten digits"),
    ('glyphs', 'characters in fonts that matplotlib ships'),
    ('patches', 'regions of photographs that scikit-image, scikit-learn and matplotlib ship'),
  )
}
COMMANDS['coco_tiny'] = Command(
  'cut-outs of photographs that scikit-image and scikit-learn ship, in the layout of COCO',
  coco_tiny.write_folder,
  coco_tiny.add_options,
)
COMMANDS['emoji'] = Command(
  'a thousand emoji in nine drawing styles, as images of the pictures in npm packages',
  emoji_folder.write_folder,
  emoji_folder.add_options,
)
COMMANDS['videos'] = Command(
  'the video files of a folder, small and quick to read',
  video_folders.write_folder,
  video_folders.add_options,
)


def main(arguments: Sequence[str] | None = None) -> None:
  arguments = sys.argv[1:] if arguments is None else arguments
  if arguments and arguments[0] in COMMANDS:
    _run(arguments[0], arguments[1:])
  else:
    _build(arguments)


def _run(name: str, arguments: Sequence[str]) -> None:
  """prepare NAME DIR."""
  command = COMMANDS[name]
  parser = argparse.ArgumentParser(prog=f'{PROGRAM} {name}', description=f'Writes {command.what}, into DIR.')
  parser.add_argument('folder', metavar='DIR', help='where it goes; the same command goes on if it was ended')
  command.add_options(parser, name)
  options = parser.parse_args(arguments)
  folder = pathlib.Path(os.path.expanduser(options.folder))
  try:
    use = command.write(name, folder, options)
  except (ValueError, OSError, ImportError) as error:
    sys.exit(f'error: {printable(" ".join(str(error).split()))}')
  except KeyboardInterrupt:
    sys.exit('ended early: the same command goes on')
  print(f'{name} is in {printable(folder)}: {printable(use)}')


def _build(arguments: Sequence[str]) -> None:
  """prepare BUILDER."""
  others = '\n'.join(f'  {PROGRAM} {name} DIR\n      {command.what}' for name, command in COMMANDS.items())
  parser = argparse.ArgumentParser(
    prog=PROGRAM,
    description=__doc__,
    epilog=f'Without tensorflow_datasets:\n{others}',
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    'builder', help='name of the data set, such as imagenet2012, cars196 or caltech_birds2011'
  )
  parser.add_argument('--data_dir', default='', help='where it goes; by default ~/tensorflow_datasets')
  chosen = parser.parse_args(arguments)
  if importlib.util.find_spec('tensorflow') is None:
    sys.exit('error: preparing needs TensorFlow, which is not installed: pip install tensorflow')
  import tensorflow_datasets as tfds

  try:
    builder = tfds.builder(chosen.builder, data_dir=os.path.expanduser(chosen.data_dir) or None)
  except tfds.core.registered.DatasetNotFoundError:
    sys.exit(
      f'error: tensorflow_datasets has no data set {chosen.builder!r}{nearest(chosen.builder, COMMANDS)}'
    )
  builder.download_and_prepare(file_format=FORMAT)
  formats = {known.value for known in builder.info.available_file_formats()}
  if FORMAT not in formats:
    sys.exit(
      f'error: {chosen.builder} is in {builder.data_dir} already, but as {", ".join(sorted(formats))}: '
      'choose another --data_dir'
    )
  path = f' {shell_word(f"--config.data.path={chosen.data_dir}")}' if chosen.data_dir else ''
  name = shell_word(f'--config.data.name=tfds:{chosen.builder}')
  print(f'{chosen.builder} is prepared in {printable(builder.data_dir)}: {name}{path}')


if __name__ == '__main__':
  main()
