"""Pictures of icons.json: aliases, turns, sizes; and the images that they become."""

import io
import subprocess
import sys

import icon_packages
import numpy as np
import pytest
from PIL import Image

from ctx_flax.data.emoji_icons import Icons
from ctx_flax.data.emoji_images import draw, drawing, halved
from ctx_flax.data.emoji_styles import STYLES, TEST_STYLES, TRAIN_STYLES

CORNER = '<path fill="#f00" d="M0 0h5v5H0z"/>'  # the upper left quarter of 10 x 10


def pixels(icon, size=48):
  return np.asarray(Image.open(io.BytesIO(draw(icon)[size])))


def opaque_quarters(image):
  """Whether the upper left, upper right, lower left, lower right quarters are opaque, '1001'."""
  h, w = image.shape[0] // 2, image.shape[1] // 2
  quarters = (image[y : y + h, x : x + w, 3] for y in (0, h) for x in (0, w))
  return ''.join('1' if quarter.min() == 255 else '0' if quarter.max() == 0 else '?' for quarter in quarters)


def test_no_lineage_is_trained_on_and_tested():
  assert sorted((*TEST_STYLES, *TRAIN_STYLES)) == sorted(STYLES) and len(STYLES) == 9
  lineages = [{STYLES[name].lineage for name in styles} for styles in (TEST_STYLES, TRAIN_STYLES)]
  assert not lineages[0] & lineages[1]
  assert STYLES['noto'].lineage == STYLES['noto-v1'].lineage
  assert STYLES['fluent-emoji'].lineage == STYLES['fluent-emoji-flat'].lineage
  assert STYLES['emojione'].lineage == STYLES['emojione-v1'].lineage


def test_aliases_and_their_aliases_are_pictures():
  icons = Icons(icon_packages.icons())
  assert set(icons) == {'square', 'both', 'alias', 'chain', 'flipped'} and len(icons) == 5
  assert icons['chain'] == icons['alias'] == icons['both']
  assert 'other' not in icons
  with pytest.raises(KeyError, match='other'):
    icons['other']


@pytest.mark.parametrize(
  ('turns', 'quarters'),
  [
    ({}, '1000'),
    ({'hFlip': True}, '0100'),
    ({'vFlip': True}, '0010'),
    ({'rotate': 1}, '0100'),
    ({'rotate': 3}, '0010'),
    ({'hFlip': True, 'rotate': 1}, '0001'),
    ({'hFlip': True, 'vFlip': True, 'rotate': 2}, '1000'),
  ],
)
def test_turns_of_an_alias_add_to_those_of_its_parent(turns, quarters):
  """Those of an entry act like those of its aliases, and two flips are none. The corner is at (-5, 20)."""
  corner = {'body': f'<g transform="translate(-5 20)">{CORNER}</g>', 'left': -5, 'top': 20}
  aliases = {'flip': {'parent': 'corner', 'hFlip': True}, 'back': {'parent': 'flip', 'hFlip': True}}
  icons = Icons(
    {
      'icons': {'corner': corner, 'turned': {**corner, **turns}},
      'aliases': {**aliases, 'alias': {'parent': 'back', **turns}},
      'width': 10,
      'height': 10,
    }
  )
  assert icons['alias'] == icons['turned']
  assert opaque_quarters(pixels(icons['alias'])) == quarters


def test_sizes_of_an_alias_before_those_of_its_parent_before_those_of_all():
  icons = {'a': {'body': CORNER, 'width': 20}}
  aliases = {'b': {'parent': 'a', 'width': 30, 'left': 1}, 'c': {'parent': 'b', 'left': 2}}
  shapes = [
    (icon.left, icon.top, icon.width, icon.height)
    for content in ({'width': 40, 'height': 50}, {})
    for icon in Icons({'icons': icons, 'aliases': aliases, **content}).values()
  ]
  assert shapes == [
    (left, 0, width, height) for height in (50, 16) for left, width in ((0, 20), (1, 30), (2, 30))
  ]


def test_a_wide_picture_is_centred_and_a_turned_one_stands():
  bar = {'body': '<path d="M0 0h20v10H0z"/>', 'width': 20, 'height': 10}
  icons = Icons({'icons': {'bar': bar}, 'aliases': {'standing': {'parent': 'bar', 'rotate': 1}}})
  wide, standing = (pixels(icons[name])[..., 3] for name in ('bar', 'standing'))
  assert wide[12:36].min() == 255 and wide[:12].max() == wide[36:].max() == 0
  np.testing.assert_array_equal(standing, wide.T)


def test_colours_are_not_darkened_by_what_is_transparent():
  block = np.zeros((2, 4, 4), np.uint8)
  block[0, 0] = (200, 100, 51, 255)
  block[:, 2:] = [[(10, 0, 0, 255), (20, 0, 0, 85)], [(30, 0, 0, 85), (0, 0, 0, 85)]]
  block[1, 0, :3] = 77  # of a transparent pixel
  faint = np.zeros((2, 2, 4), np.uint8)
  faint[0, 0] = (9, 9, 9, 1)
  # 255 / 4; (10 * 255 + (20 + 30) * 85) / 510
  np.testing.assert_array_equal(halved(block), [[(200, 100, 51, 64), (13, 0, 0, 128)]])
  np.testing.assert_array_equal(halved(faint), [[(0, 0, 0, 0)]])


def test_an_image_has_straight_alpha_at_both_sizes():
  icon = Icons({'icons': {'a': {'body': '<circle cx="8" cy="8" r="7" fill="#c86433" opacity="0.5"/>'}}})['a']
  for size in (96, 48):
    image = pixels(icon, size)
    assert image.shape == (size, size, 4) and image.dtype == np.uint8
    alpha = image[..., 3]
    assert alpha.min() == 0 and abs(int(alpha.max()) - 128) <= 1
    assert len(np.unique(alpha)) > 5  # smooth edges
    assert not image[alpha == 0].any()
    assert np.abs(image[alpha > 40, :3] - np.array([0xC8, 0x64, 0x33], float)).max() <= 4


@pytest.mark.parametrize(
  ('body', 'said'),
  [
    ('<path d="M0', "expected '\"' not '<'"),
    ('<g/>', 'shows nothing'),
    ('<path fill="#000" d="M99 9h9v9z"/>', 'shows nothing'),
  ],
)
def test_a_picture_that_shows_nothing_is_an_error(body, said):
  with pytest.raises(ValueError, match=said):
    draw(Icons({'icons': {'a': {'body': body}}})['a'])


def test_what_is_broken_is_named():
  content = {
    'icons': {'empty': {}, 'flat': {'body': '', 'width': 0}, 'text': {'body': '', 'top': '1'}},
    'aliases': {
      'lost': {'parent': 'gone'},
      'a': {'parent': 'b'},
      'b': {'parent': 'a'},
      'odd': {'parent': 'flat', 'rotate': '90deg'},
    },
  }
  icons = Icons(content)
  for name, said in {
    'empty': "'empty' has no body",
    'flat': "'flat' is 0 x 16 units large",
    'text': "'text' has sides that are no numbers",
    'lost': "the alias 'lost' leads to no picture: lost -> gone",
    'a': "the alias 'a' leads to no picture: a -> b -> a",
    'odd': "'odd' has a rotate of '90deg'",
  }.items():
    with pytest.raises(ValueError, match=said):
      icons[name]
  for content in ([], {}, {'icons': []}, {'icons': {'a': 1}}, {'icons': {}, 'aliases': {'a': ''}}):
    with pytest.raises(ValueError, match=r"holds no '(icons|aliases)' by name"):
      Icons(content)


@pytest.mark.slow
def test_several_processes_draw_what_one_draws():
  content = icon_packages.icons()
  content['icons']['broken'] = {'body': '<'}
  icons = list(Icons(content).values())
  with drawing(1) as alone, drawing(2) as together:
    drawn = list(together(icons))
    assert drawn == list(alone(icons)) and sum(isinstance(image, str) for image in drawn) == 1


# Draws in two processes, and waits.
DRAWING = """
import signal
from ctx_flax.data.emoji_icons import Icons
from ctx_flax.data.emoji_images import drawing

with drawing(2) as draw_all:
  drawn = list(draw_all(Icons({'icons': {'a': {'body': '<path d="M0 0h9v9z"/>'}}}).values()))
  print(len(drawn), flush=True)
  signal.pause()
"""


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them():
  started = subprocess.Popen([sys.executable, '-c', DRAWING], stdout=subprocess.PIPE, text=True)
  assert started.stdout.readline() == '1\n'
  started.kill()
  started.communicate(timeout=60)  # as long as any of them holds the pipe
