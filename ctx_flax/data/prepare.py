"""Prepares a data set of tensorflow_datasets as ArrayRecord files, once.

python -m ctx_flax.data.prepare BUILDER [--data_dir=DATA_DIR]

Downloads it where that is possible. imagenet2012 cannot be downloaded: put ILSVRC2012_img_train.tar and
ILSVRC2012_img_val.tar from image-net.org into DATA_DIR/downloads/manual first. Needs TensorFlow, which
nothing else here does: pip install tensorflow beside requirements.txt.
"""

import argparse
import importlib.util
import os
import sys

from ctx_flax.data.tfds_source import FORMAT


def main(arguments=None):
  parser = argparse.ArgumentParser(
    prog='python -m ctx_flax.data.prepare',
    description=__doc__,
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
    sys.exit(f'error: tensorflow_datasets has no data set {chosen.builder!r}')
  builder.download_and_prepare(file_format=FORMAT)
  formats = {known.value for known in builder.info.available_file_formats()}
  if FORMAT not in formats:
    sys.exit(
      f'error: {chosen.builder} is in {builder.data_dir} already, but as {", ".join(sorted(formats))}: '
      'choose another --data_dir'
    )
  path = f' --config.data.path={chosen.data_dir}' if chosen.data_dir else ''
  print(f'{chosen.builder} is prepared in {builder.data_dir}: --config.data.name=tfds:{chosen.builder}{path}')


if __name__ == '__main__':
  main()
