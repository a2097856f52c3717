"""The picture of a batch: the right image at every place, as bright as it was, above its caption."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from ctx_flax.data import image_grid
from ctx_flax.data.fonts import font_file
from ctx_flax.data.image_grid import GAP, LINE, SIDE

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def random_pixels(n, h, w):
  return np.random.default_rng(0).integers(0, 256, (n, h, w, 3), dtype=np.uint8)


def normalised(pixels, mean=MEAN, std=STD):
  return ((pixels / 255 - mean) / std).astype(np.float32)


def save(path, images, captions=None, mean=MEAN, std=STD):
  image_grid.save_image_grid(images, path, mean, std, [''] * len(images) if captions is None else captions)
  with Image.open(path) as image:
    assert (image.format, image.mode) == ('PNG', 'RGB')
    return np.asarray(image)


def test_captions_name_the_classes():
  names = ('cat', 'dog', 'bird')
  assert image_grid.captions({'label': np.array([2, 0, 1, 1])}, names) == ['bird', 'cat', 'dog', 'dog']


def test_captions_of_mixed_images_tell_both_shares():
  batch = {
    'label': np.array([0, 1, 2]),
    'other_label': np.array([1, 0, 0]),
    'lam': np.array([0.7, 0.004, 1.0], np.float32),
  }
  assert image_grid.captions(batch, ('cat', 'dog', 'bird')) == ['cat 70 dog 30', 'dog 0 cat 100', 'bird']


@pytest.mark.parametrize(
  'n, columns, rows', [(1, 1, 1), (2, 2, 1), (3, 2, 2), (4, 2, 2), (5, 3, 2), (7, 3, 3), (16, 4, 4)]
)
def test_about_as_many_columns_as_rows(tmp_path, n, columns, rows):
  grid = save(tmp_path / 'grid.png', normalised(random_pixels(n, SIDE, SIDE)))
  assert grid.shape == (rows * (SIDE + LINE + GAP) + GAP, columns * (SIDE + GAP) + GAP, 3)


@pytest.mark.parametrize(
  'h, w, scale',
  [(SIDE, SIDE, 1), (200, 150, 1), (64, 64, 2), (63, 40, 3), (32, 32, 4), (100, 20, 2)],
)
def test_every_image_is_at_its_place_with_its_own_values(tmp_path, h, w, scale):
  """Small ones enlarged by whole factors until a side has 128 pixels; row by row; white between them."""
  pixels = random_pixels(5, h, w)
  grid = save(tmp_path / 'grid.png', normalised(pixels)).copy()
  for i, image in enumerate(pixels):
    row, column = divmod(i, 3)
    top, left = GAP + row * (h * scale + LINE + GAP), GAP + column * (w * scale + GAP)
    place = grid[top : top + h * scale, left : left + w * scale]
    np.testing.assert_array_equal(place, image.repeat(scale, axis=0).repeat(scale, axis=1))
    place[:] = 255
  assert (grid == 255).all()


@pytest.mark.parametrize('as_float', [False, True])
def test_a_clip_is_a_row_of_its_frames(tmp_path, as_float):
  """Four frames side by side, enlarged twice, above one caption; one clip below the other."""
  clips = random_pixels(12, 60, 64).reshape(3, 4, 60, 64, 3)
  grid = save(tmp_path / 'grid.png', normalised(clips) if as_float else clips)
  assert grid.shape == (3 * (120 + LINE + GAP) + GAP, 4 * 128 + 2 * GAP, 3)
  for i, clip in enumerate(clips):
    top = GAP + i * (120 + LINE + GAP)
    row = np.concatenate(list(clip), axis=1).repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(grid[top : top + 120, GAP:-GAP], row)


def test_one_mean_serves_all_channels(tmp_path):
  pixels = random_pixels(1, SIDE, SIDE)
  grid = save(tmp_path / 'grid.png', normalised(pixels, (0.3,), (0.35,)), mean=(0.3,), std=(0.35,))
  np.testing.assert_array_equal(grid[GAP : GAP + SIDE, GAP : GAP + SIDE], pixels[0])


def test_values_beyond_black_and_white_are_cut_off(tmp_path):
  """Such as the noise of random erasing."""
  images = np.full((1, SIDE, SIDE, 3), 9, np.float32)
  images[:, : SIDE // 2] = -9
  grid = save(tmp_path / 'grid.png', images)[GAP : GAP + SIDE, GAP : GAP + SIDE]
  assert (grid[: SIDE // 2] == 0).all() and (grid[SIDE // 2 :] == 255).all()


def written(text):
  """What `line_below` should be."""
  line = Image.new('RGB', (SIDE + GAP, LINE), 'white')
  ImageDraw.Draw(line).text((0, 0), text, 'black', ImageFont.truetype(font_file('DejaVuSans'), LINE - 5))
  return np.asarray(line)


def line_below(grid, column=0):
  """The part of the first row's caption line that belongs to a column, with the gap to its right."""
  left = GAP + column * (SIDE + GAP)
  return grid[GAP + SIDE : GAP + SIDE + LINE, left : left + SIDE + GAP]


def test_captions_stand_below_their_images(tmp_path):
  images = np.zeros((4, SIDE, SIDE, 3), np.float32)
  grid = save(tmp_path / 'grid.png', images, ['cat', 'a dog', '', 'bird'])
  np.testing.assert_array_equal(line_below(grid, 1), written('a dog'))
  assert (line_below(grid, 0) < 100).any() and (line_below(grid, 0) != line_below(grid, 1)).any()
  # The third, in the second row, has none.
  second = grid[SIDE + LINE + GAP :]
  assert (line_below(second, 0) == 255).all() and (line_below(second, 1) < 255).any()


def test_captions_may_be_in_other_scripts(tmp_path):
  """Two letters that a font lacks would look alike: each an empty box."""
  grid = save(tmp_path / 'grid.png', np.zeros((2, SIDE, SIDE, 3), np.float32), ['Ж', 'Φ'])
  assert (line_below(grid, 0) != line_below(grid, 1)).any()


def test_long_captions_are_cut_to_the_width_of_the_image(tmp_path):
  """As many of its first letters as have room."""
  images = np.zeros((2, SIDE, SIDE, 3), np.float32)
  name = 'a very long name of a class that nobody can read below an image'
  grid = save(tmp_path / 'grid.png', images, [name, 'dog'])
  font, draw = ImageFont.truetype(font_file('DejaVuSans'), LINE - 5), ImageDraw.Draw(Image.new('RGB', (1, 1)))
  fitting = max(i for i in range(len(name)) if draw.textlength(name[:i], font) <= SIDE)
  assert 10 < fitting < len(name)
  np.testing.assert_array_equal(line_below(grid), written(name[:fitting]))
  np.testing.assert_array_equal(line_below(grid, 1), written('dog'))


def test_a_caption_for_every_image(tmp_path):
  with pytest.raises(ValueError):
    save(tmp_path / 'grid.png', np.zeros((2, 8, 8, 3), np.float32), ['one'])
  assert list(tmp_path.iterdir()) == []


def test_the_file_is_whole_and_alone(tmp_path):
  """Its folder is made; nothing else is left in it; an older picture is replaced."""
  path = tmp_path / 'run' / 'images' / 'grid.png'
  save(str(path), np.zeros((1, 8, 8, 3), np.float32))
  first = path.read_bytes()
  save(str(path), np.ones((1, 8, 8, 3), np.float32))
  assert [file.name for file in path.parent.iterdir()] == ['grid.png'] and path.read_bytes() != first


def test_a_picture_that_could_not_be_written_spoils_no_older_one(tmp_path, monkeypatch):
  path = tmp_path / 'grid.png'
  save(path, np.zeros((1, 8, 8, 3), np.float32))
  before = path.read_bytes()

  def fail(image, file, kind):
    with open(file, 'wb') as opened:
      opened.write(b'half')
    raise OSError('no space left')

  monkeypatch.setattr(Image.Image, 'save', fail)
  with pytest.raises(OSError, match='no space left'):
    save(path, np.ones((1, 8, 8, 3), np.float32))
  assert path.read_bytes() == before
