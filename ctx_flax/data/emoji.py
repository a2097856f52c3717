"""A thousand emoji, each a class, in nine drawing styles: as many classes as ImageNet, with familiar names.

An image is an emoji of one of the drawing styles that have it, on a background, at a random size, place and
angle (ctx_flax.data.emoji_draw), determined by the seed, the split and its index. The styles of test images
are by other designers than those of training images (ctx_flax.data.emoji_styles). The pictures are those that
`python -m ctx_flax.data.prepare emoji DIR` has rasterised.

Classes are the names in emoji_classes.txt: those that at least seven of the nine styles have, except the ones
in emoji_excluded_classes.txt, which gives the reasons.
"""

import dataclasses
import functools
import os
import pathlib
from typing import Any

from ctx_flax.data import emoji_archive, photographs
from ctx_flax.data.decode import BadImage
from ctx_flax.data.drawn import Drawn, options_of
from ctx_flax.data.emoji_draw import draw
from ctx_flax.data.emoji_styles import TEST_STYLES, TRAIN_STYLES
from ctx_flax.data.patches import PHOTOGRAPHS
from ctx_flax.files import printable

CLASSES = pathlib.Path(__file__).with_name('emoji_classes.txt')
SIDES = 48, 96  # of the stored pictures, pixels
LARGEST_FROM_48 = 40  # largest side of images that are drawn from the pictures of 48 pixels
# data.test_styles -> the styles that are tested.
TESTED = {'unseen': TEST_STYLES, 'training': TRAIN_STYLES}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Emoji(Drawn):
  """Image i shows class i % num_classes, in a test in its style number i // num_classes.

  Attributes, beside those of Drawn:
    path: of the archive of pictures.
    styles: for each class the styles to draw it in.
  """

  path: pathlib.Path
  styles: tuple[tuple[str, ...], ...]

  def __getitem__(self, index: int) -> dict[str, Any]:
    turn, label = divmod(index, self.num_classes)
    rng = self.generator(index)
    styles = self.styles[label]
    style = styles[turn % len(styles) if self.split == 'test' else rng.integers(len(styles))]
    picture = emoji_archive.picture(self.path, style, self.class_names[label])
    return {'image': draw(picture, self.image_size, rng), 'label': label}


def emoji(data: Any, split: str) -> Emoji:
  """data.images_per_class images of each of data.classes emoji to train, data.test_images in all to test.

  Args:
    data: config.data; path is what `prepare emoji` wrote. Fewer classes are spread over the list.
    split: 'train' or 'test'.

  Raises:
    FileNotFoundError: data.path is empty, or the pictures or a photograph of the backgrounds are not there.
    ValueError: a field is wrong, or the pictures are damaged or incomplete.
  """
  known = class_list()
  if not 2 <= data.classes <= len(known):
    raise ValueError(f'data.classes is {data.classes}: emoji has 2 to {len(known)}')
  if data.test_styles not in TESTED:
    raise ValueError(f'data.test_styles must be one of {tuple(TESTED)}, but is {data.test_styles!r}')
  length = data.classes * data.images_per_class if split == 'train' else data.test_images
  if length < 1:
    field = 'images_per_class' if split == 'train' else 'test_images'
    raise ValueError(f'data.{field} must be 1 or more, but is {data[field]}')
  for package, file in PHOTOGRAPHS.values():  # before the first image that needs one
    photographs.shipped(package, file)
  names = tuple(known[i * len(known) // data.classes] for i in range(data.classes))
  path = archive_path(data)
  drawn = TRAIN_STYLES if split == 'train' else TESTED[data.test_styles]
  try:
    entries = emoji_archive.entries(path)
  except (BadImage, OSError) as error:
    raise ValueError(f'{printable(path)}: {error}: prepare it again') from None
  styles = tuple(tuple(style for style in drawn if (style, name) in entries) for name in names)
  missing = [name for name, having in zip(names, styles, strict=True) if not having]
  if missing:
    raise ValueError(
      f'{printable(path)} lacks {len(missing)} of {len(names)} emoji, such as {missing[0]}: prepare it again'
    )
  return Emoji(path=path, class_names=names, styles=styles, length=length, **options_of(data, split))


def archive_path(data: Any) -> pathlib.Path:
  """The file of pictures that suits data.image_size.

  Raises:
    FileNotFoundError: data.path is empty, or the file is not there.
  """
  how = 'python -m ctx_flax.data.prepare emoji DIR makes the pictures'
  if not data.path:
    raise FileNotFoundError(f'data.path is empty; it must be the folder of the pictures: {how}')
  side = SIDES[data.image_size > LARGEST_FROM_48]
  path = pathlib.Path(os.path.expanduser(data.path)) / f'emoji_{side}.zip'
  if not path.is_file():
    raise FileNotFoundError(f'{printable(path)} does not exist: {how}')
  return path


@functools.cache
def class_list() -> tuple[str, ...]:
  """The stored names, alphabetical."""
  return tuple(CLASSES.read_text(encoding='utf-8').split())
