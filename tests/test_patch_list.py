"""The stored list of regions of photographs: as it was chosen, apart, with detail, unlike one another."""

import itertools

import numpy as np
import pytest
from patch_regions import region
from PIL import Image

from ctx_flax.data import patches


def test_the_list_is_what_is_chosen():
  assert patches.choose_regions() == list(patches.region_list())
  assert len(patches.region_list()) == 237


def test_every_photograph_has_its_part():
  """None more than PER_PHOTOGRAPH; the first classes are taken from all of them by turns."""
  names = [name for name, _, _ in patches.region_list()]
  counts = {name: names.count(name) for name in patches.PHOTOGRAPHS}
  assert sum(counts.values()) == 237 and max(counts.values()) <= patches.PER_PHOTOGRAPH
  assert len(set(names[:10])) == 10


def test_regions_lie_within_their_photographs_and_do_not_overlap():
  for name, top, left in patches.region_list():
    assert region(name, top, left).shape == (patches.REGION, patches.REGION, 3), (name, top, left)
  for (name, top, left), (other, other_top, other_left) in itertools.combinations(patches.region_list(), 2):
    apart = max(abs(top - other_top), abs(left - other_left))
    assert name != other or apart >= patches.REGION, (name, top, left, other_top, other_left)


def test_regions_have_detail_and_are_unlike_one_another():
  """As 16 by 16 pixels without their mean colour."""
  small = []
  for name, top, left in patches.region_list():
    pixels = region(name, top, left)
    down, across = np.gradient(pixels.astype(float).mean(-1))
    assert np.hypot(down, across).mean() >= patches.DETAIL, (name, top, left)
    size = (16, 16)
    part = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX), float)
    small.append(part - part.mean((0, 1)))
  small = np.stack(small).reshape(237, -1)
  small /= np.linalg.norm(small, axis=1, keepdims=True)
  # Pillow rounds to whole grey values.
  assert np.triu(small @ small.T, 1).max() <= patches.ALIKE + 0.002


def test_a_photograph_that_is_missing_is_named(monkeypatch):
  monkeypatch.setitem(patches.PHOTOGRAPHS, 'gone', ('skimage', 'data/gone.png'))
  with pytest.raises(FileNotFoundError, match=r'skimage does not ship data/gone\.png: pip install'):
    patches.photograph('gone')
  monkeypatch.setitem(patches.PHOTOGRAPHS, 'none', ('no_such_package', 'data/gone.png'))
  with pytest.raises(FileNotFoundError, match='no_such_package does not ship'):
    patches.photograph('none')
