"""Files are written whole or not at all, and unknown names get the nearest known one."""

import os

import pytest

from ctx_flax import files
from ctx_flax.nearest import nearest


def test_a_file_and_its_folder_are_made(tmp_path):
  path = tmp_path / 'a' / 'b.txt'
  files.write_text(path, 'ä')
  assert path.read_bytes() == 'ä'.encode()
  files.write_bytes(path, b'1')
  assert path.read_bytes() == b'1' and [p.name for p in path.parent.iterdir()] == ['b.txt']


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path):
  path = tmp_path / 'b.txt'
  path.write_text('before')
  with pytest.raises(ZeroDivisionError), files.replacing(path) as part:
    part.write_text('half')
    assert path.read_text() == 'before'
    raise ZeroDivisionError
  assert path.read_text() == 'before' and [p.name for p in tmp_path.iterdir()] == ['b.txt']


def test_a_file_left_by_a_killed_process_is_replaced(tmp_path):
  (tmp_path / 'b.txt.part').write_text('a longer half of it')
  files.write_text(tmp_path / 'b.txt', 'whole')
  assert [p.name for p in tmp_path.iterdir()] == ['b.txt']
  assert (tmp_path / 'b.txt').read_text() == 'whole'


@pytest.mark.parametrize('name, hint', [('convnxt', "; did you mean 'convnext'?"), ('xyz', ''), (3, '')])
def test_nearest(name, hint):
  assert nearest(name, ('convnext', 'resnet')) == hint


NAMES = [
  ('photo é 絵 👩\u200d🔬 $1 "x".jpg', None),  # letters of every script, and what joins two of them
  ('a b\xa0c\u202fd.png', None),  # blanks that do not break lines, as macOS has them in its names
  (os.fsdecode(b'gr\xfcn'), 'gr\\xfcn'),
  ('a\nb\tc\rd', 'a\\nb\\tc\\rd'),
  ('a\x1b[31mb\x7f\x85', 'a\\u001b[31mb\\u007f\\u0085'),
  ('a\u2028b\u2029c\u202egpj.exe', 'a\\u2028b\\u2029c\\u202egpj.exe'),
]


@pytest.mark.parametrize('name, shown', NAMES)
def test_any_name_is_printed_on_one_line_and_found_again(name, shown):
  result = files.printable(name)
  assert result == (shown or name)
  assert result.encode('utf-8') and len(result.splitlines()) == 1
  assert files.unprintable(result) == name


@pytest.mark.parametrize('name, _', NAMES)
def test_any_name_is_utf8_and_found_again(name, _):
  """Line breaks stay: JSON and CSV have a way of their own to write them."""
  result = files.utf8(name)
  assert result == name.replace('\udcfc', '\\xfc') and result.encode('utf-8')
  assert files.unprintable(result) == name
