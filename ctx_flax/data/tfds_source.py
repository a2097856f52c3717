"""Data sets of tensorflow_datasets, prepared as ArrayRecord files; TensorFlow is needed only to prepare them.

python -m ctx_flax.data.prepare BUILDER prepares one.
"""

import os
import shlex
from typing import Any

from ctx_flax.data.folders import TEST_SPLITS

PREFIX = 'tfds:'
FORMAT = 'array_record'


class TfdsSource:
  """A split of a prepared data set with the features 'image' and 'label'; images stay encoded."""

  def __init__(self, elements: Any, class_names: tuple[str, ...], split: str) -> None:
    self._elements, self.class_names, self._split = elements, class_names, split

  @property
  def num_classes(self) -> int:
    return len(self.class_names)

  def __len__(self) -> int:
    return len(self._elements)

  def __getitem__(self, index: int) -> dict[str, Any]:
    element = self._elements[index]
    return {'encoded': bytes(element['image']), 'label': int(element['label'])}

  def name(self, index: int) -> str:
    return f'{self._split}[{index}]'


def tfds_source(data: Any, split: str) -> TfdsSource:
  """The split data.train_split or data.test_split of the builder that data.name names after PREFIX.

  data.path is tfds's data_dir, '' its default. '' for data.test_split is the first there is of TEST_SPLITS.

  Raises:
    ValueError: no such builder or split, or it is not one of images with labels.
    FileNotFoundError: it is not prepared as ArrayRecord; the message has the command that prepares it.
  """
  import tensorflow_datasets as tfds

  name = data.name.removeprefix(PREFIX)
  try:
    builder = tfds.builder(name, data_dir=os.path.expanduser(data.path) or None)
  except tfds.core.registered.DatasetNotFoundError as error:
    raise ValueError(f'data.name is {data.name}: tensorflow_datasets has no such data set') from error
  except ModuleNotFoundError as error:  # some sets' own code needs more than tensorflow_datasets
    raise ValueError(f'data.name is {data.name}: it needs {error.name}, which is not installed') from error
  splits = dict(builder.info.splits or {})
  if not splits:
    where = f' --data_dir={shlex.quote(data.path)}' if data.path else ''
    raise FileNotFoundError(
      f'{name} is not prepared in {builder.data_dir}: run python -m ctx_flax.data.prepare {name}{where} '
      '(--help says what it needs), or take a folder of images: data.name=image_folder'
    )
  formats = {known.value for known in builder.info.available_file_formats()}
  if FORMAT not in formats:
    raise FileNotFoundError(
      f'{name} is prepared in {builder.data_dir} as {", ".join(sorted(formats))}, which cannot be read here: '
      f'run python -m ctx_flax.data.prepare {name} --data_dir=ANOTHER_FOLDER'
    )
  wanted = data.train_split
  if split == 'test':
    wanted = data.test_split or next((known for known in TEST_SPLITS if known in splits), '')
  if wanted not in splits:
    field = 'data.train_split' if split == 'train' else 'data.test_split'
    raise ValueError(f'{field} is {wanted!r}, but {name} has {", ".join(sorted(splits))}')
  features = dict(builder.info.features)
  if not isinstance(features.get('image'), tfds.features.Image) or not isinstance(
    features.get('label'), tfds.features.ClassLabel
  ):
    raise ValueError(f'{name} has {", ".join(sorted(features))}: a classifier needs an image and a label')
  # Masks and the like would be decoded for nothing.
  images = [known for known, feature in features.items() if isinstance(feature, tfds.features.Image)]
  decoders = {known: tfds.decode.SkipDecoding() for known in images}
  elements = builder.as_data_source(wanted, decoders=decoders)
  return TfdsSource(elements, tuple(features['label'].names), wanted)
