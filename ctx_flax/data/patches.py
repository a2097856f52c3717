"""A few hundred regions of photographs, each a class: natural images without a download.

In the manner of exemplar networks (https://arxiv.org/abs/1406.6909) a class is one region of one of the
colour photographs that scikit-image, scikit-learn and matplotlib ship; its images are crops under random
position, rotation, scale, flip and colour. They follow from the seed, the split and their index. Training and
test crops have different centres. The classes are the first data.classes of patch_classes.json, which
`python -m ctx_flax.data.patches` has chosen.
"""

import dataclasses
import functools
import json
import pathlib
from typing import Any

import numpy as np

from ctx_flax.data import photographs
from ctx_flax.data.drawn import Drawn, images_of, options_of

LIST = pathlib.Path(__file__).with_name('patch_classes.json')
PHOTOGRAPHS = {  # name -> (package, file in it)
  'astronaut': ('skimage', 'data/astronaut.png'),
  'cat': ('skimage', 'data/chelsea.png'),
  'coffee': ('skimage', 'data/coffee.png'),
  'motorcycle': ('skimage', 'data/motorcycle_left.png'),
  'rocket': ('skimage', 'data/rocket.jpg'),
  'retina': ('skimage', 'data/retina.jpg'),
  'tissue': ('skimage', 'data/ihc.png'),
  'galaxies': ('skimage', 'data/hubble_deep_field.jpg'),
  'temple': ('sklearn', 'datasets/images/china.jpg'),
  'dahlia': ('sklearn', 'datasets/images/flower.jpg'),
  'admiral': ('matplotlib', 'mpl-data/sample_data/grace_hopper.jpg'),
}
REGION = 84  # side of a region, pixels
CROP = 60  # side of a crop before scaling
SHIFT = 12  # of the crop's centre from the region's, either way
CELL = 4  # centres are to train and to test by turns, like fields of this size on a chessboard
ROTATE = 15.0  # degrees either way
SCALE = (0.85, 1.15)
GAIN = (0.75, 1.25)  # of each channel
OFFSET = 25.0  # of all channels, either way


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patches(Drawn):
  """Image i is a crop of region i % num_classes. Regions are (photograph, top, left)."""

  regions: tuple[tuple[str, int, int], ...]

  def __getitem__(self, index: int) -> dict[str, Any]:
    import cv2

    label = index % self.num_classes
    name, top, left = self.regions[label]
    rng = self.generator(index)
    dy, dx = centre(rng, self.split)
    angle, scale = np.radians(rng.uniform(-ROTATE, ROTATE)), rng.uniform(*SCALE)
    # From the crop's pixels to the photograph's.
    step = CROP / scale / self.image_size
    turn = step * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if rng.random() < 0.5:
      turn[:, 0] *= -1
    middle = np.array([left + REGION / 2 + dx, top + REGION / 2 + dy])
    matrix = np.column_stack([turn, middle - turn.sum(1) * self.image_size / 2])
    size = (self.image_size, self.image_size)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(photograph(name), matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    crop = crop * rng.uniform(*GAIN, 3).astype(np.float32) + np.float32(rng.uniform(-OFFSET, OFFSET))
    return {'image': np.clip(crop, 0, 255).astype(np.uint8), 'label': label}


def patches(data: Any, split: str) -> Patches:
  """data.images_per_class crops of each of data.classes regions to train, a fifth as many to test."""
  regions = region_list()
  if not 2 <= data.classes <= len(regions):
    raise ValueError(f'data.classes is {data.classes}: patches has 2 to {len(regions)}')
  regions = regions[: data.classes]
  names = tuple(f'{name} {top},{left}' for name, top, left in regions)
  length = images_of(data, split)
  return Patches(regions=regions, class_names=names, length=length, **options_of(data, split))


def centre(rng: np.random.Generator, split: str) -> tuple[int, int]:
  """A whole-numbered (dy, dx) within SHIFT; no two splits share one."""
  while True:
    dy, dx = (int(value) for value in rng.integers(-SHIFT, SHIFT + 1, 2))
    if (dy // CELL + dx // CELL) % 2 == (split == 'test'):
      return dy, dx


@functools.cache
def region_list() -> tuple[tuple[str, int, int], ...]:
  """The stored regions, in order."""
  return tuple((name, top, left) for name, top, left in json.loads(LIST.read_text()))


def photograph(name: str) -> np.ndarray:
  """A photograph of PHOTOGRAPHS as uint8 (h, w, 3)."""
  return photographs.shipped(*PHOTOGRAPHS[name])


# What follows chose the list.
PER_PHOTOGRAPH = 30  # at most
DETAIL = 4.0  # least mean gradient of a region, in grey values per pixel; below it is flat
ALIKE = 0.85  # correlation of two regions from which they count as the same


def choose_regions() -> list[tuple[str, int, int]]:
  """Regions that do not overlap, with detail, unlike one another, the photographs taking turns."""
  by_photograph = {name: _detailed(name) for name in PHOTOGRAPHS}
  chosen: list[tuple[str, int, int]] = []
  signatures = np.zeros((0, 16 * 16 * 3))
  for rank in range(max(len(regions) for regions in by_photograph.values())):
    for name, regions in by_photograph.items():
      if rank >= len(regions) or sum(other == name for other, _, _ in chosen) >= PER_PHOTOGRAPH:
        continue
      top, left = regions[rank]
      signature = _signature(name, top, left)
      if (signatures @ signature).max(initial=0) > ALIKE:
        continue
      chosen.append((name, top, left))
      signatures = np.concatenate([signatures, signature[None]])
  return chosen


def _detailed(name):
  """The regions of a photograph on a grid, the most detailed first."""
  grey = photograph(name).astype(np.float64).mean(-1)
  found = []
  for top in range(0, grey.shape[0] - REGION + 1, REGION):
    for left in range(0, grey.shape[1] - REGION + 1, REGION):
      down, across = np.gradient(grey[top : top + REGION, left : left + REGION])
      detail = np.hypot(down, across).mean()
      if detail >= DETAIL:
        found.append((-detail, top, left))
  return [(top, left) for _, top, left in sorted(found)]


def _signature(name, top, left):
  import cv2

  region = photograph(name)[top : top + REGION, left : left + REGION].astype(np.float32)
  small = cv2.resize(region, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float64)
  small -= small.mean((0, 1))
  return small.ravel() / np.linalg.norm(small)


if __name__ == '__main__':
  found = choose_regions()
  lines = ',\n'.join(json.dumps(region) for region in found)
  LIST.write_text(f'[\n{lines}\n]\n')
  print(f'{len(found)} classes in {LIST}')
