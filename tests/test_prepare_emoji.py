"""`prepare emoji`: the images and what lies beside them, gone on with, checked and told."""

import functools
import hashlib
import io
import json
import shlex
import sys
import zipfile

import icon_packages
import numpy as np
import pytest
from icon_packages import write_folder, write_tarball
from PIL import Image

from ctx_flax.data import emoji_folder, emoji_images, prepare
from ctx_flax.data.emoji_styles import STYLES

SETTINGS = 'settings.json'
FILES = ['LICENSES.md', 'emoji.json', 'emoji_48.zip', 'emoji_96.zip', SETTINGS]


DRAW = functools.cache(emoji_images.draw)  # all packages have the same few pictures


@pytest.fixture(autouse=True)
def classes(monkeypatch):
  monkeypatch.setattr(emoji_folder, 'class_list', lambda: icon_packages.CLASSES)
  monkeypatch.setattr(emoji_images, 'draw', DRAW)


@pytest.fixture(scope='module')
def packages(tmp_path_factory):
  """A folder of tarballs."""
  root = tmp_path_factory.mktemp('packages')
  for style in STYLES:
    write_tarball(root, style)
  return root


def prepared(root, packages, *options):
  prepare.main(['emoji', str(root), f'--packages={packages}', '--processes=1', *options])
  return root


def error(capsys, *arguments):
  """The line that ends the command."""
  with pytest.raises(SystemExit) as ended:
    prepare.main(['emoji', '--processes=1', *map(str, arguments)])
  line = ended.value.code
  assert isinstance(line, str) and '\n' not in line and capsys.readouterr().out == ''
  return line


def written(root):
  return {path.name: path.read_bytes() for path in root.iterdir()}


def images(root, size):
  with zipfile.ZipFile(root / f'emoji_{size}.zip') as archive:
    return {name: np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in archive.namelist()}


def test_every_class_is_there_in_every_style_and_both_sizes(tmp_path, packages, capsys):
  root = prepared(tmp_path / 'a set', packages)
  assert sorted(written(root)) == FILES
  for size in (96, 48):
    shown = images(root, size)
    assert list(shown) == [f'{style}/{name}.png' for style in STYLES for name in icon_packages.CLASSES]
    for name, image in shown.items():
      assert image.shape == (size, size, 4), name
      left, right = (image[size // 2, size // 4 + offset].tolist() for offset in (0, size // 2))
      red, blue, nothing = [255, 0, 0, 255], [0, 0, 255, 255], [0, 0, 0, 0]
      expected = {'square': (red, nothing), 'flipped': (nothing, red)}.get(
        name[:-4].split('/')[1], (red, blue)
      )
      assert (left, right) == expected, name
    with zipfile.ZipFile(root / f'emoji_{size}.zip') as archive:
      assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
      assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
  told = shlex.split(capsys.readouterr().out.partition('is in ')[2].partition(': ')[2])
  assert told == ['--config=configs/emoji.py', f'--config.data.path={root}']


def test_what_they_were_made_from_lies_beside(tmp_path, packages):
  root = prepared(tmp_path / 'set', packages)
  about = json.loads((root / 'emoji.json').read_text())
  assert (about['form'], about['classes']) == (1, 4) and about['resvg'].startswith('0.')
  for style, entry in about['styles'].items():
    package = f'{STYLES[style].package}@{STYLES[style].version}'
    assert entry == {'package': package, 'licence': STYLES[style].licence, 'images': 4}
  assert list(about['styles']) == list(STYLES)
  for name, digest in about['sha256'].items():
    assert hashlib.sha256((root / name).read_bytes()).hexdigest() == digest
  text = (root / 'LICENSES.md').read_text(encoding='utf-8')
  assert 'rasterised' in text
  for style in STYLES:
    section = text.partition(f'\n## {style}\n')[2].partition('\n## ')[0]
    for line in (
      f'Pictures: Pictures of {style}',
      f'Author: [An Author](https://example.org/{style})',
      'Licence: [A Licence](https://example.org/licence) (A-1.0)',
      f'{STYLES[style].package}, version {STYLES[style].version}',
    ):
      assert line in section, style


def test_licence_texts_are_kept(tmp_path, packages):
  other = write_tarball(tmp_path / 'noto', 'noto', extra={'LICENSE': b'All may.\n\nDo.'}, version='9.0.0')
  options = [f'--packages={path}' for path in packages.iterdir() if '-noto-1' not in path.name]
  text = (prepared(tmp_path / 'set', other, *options, '--any-version') / 'LICENSES.md').read_text()
  assert 'version 9.0.0\n\nLICENSE:\n\n    All may.\n    \n    Do.\n\n## noto-v1' in text


def test_the_same_pictures_give_the_same_bytes(tmp_path, packages, monkeypatch):
  for style in STYLES:
    write_folder(tmp_path / 'folders', style)
  first = prepared(tmp_path / 'first', packages)
  monkeypatch.setattr('time.time', lambda: 2e9)
  assert written(prepared(tmp_path / 'second', tmp_path / 'folders')) == written(first)


def test_it_goes_on_after_it_was_killed(tmp_path, packages, monkeypatch):
  whole = written(prepared(tmp_path / 'whole', packages))
  root = tmp_path / 'set'
  drawn = []

  def draw_some(icon):
    drawn.append(icon)
    if len(drawn) == 11:  # in the third style
      raise KeyboardInterrupt
    return DRAW(icon)

  monkeypatch.setattr(emoji_images, 'draw', draw_some)
  with pytest.raises(SystemExit, match='ended early: the same command goes on'):
    prepared(root, packages)
  parts = [f'{style}_{size}.zip' for style in ('openmoji', 'twemoji') for size in (48, 96)]
  assert sorted(written(root / 'parts')) == parts
  (root / 'parts' / parts[0]).write_bytes(b'PK')  # a machine that lost its power may leave that
  (root / 'parts' / 'noto_96.zip.part').write_bytes(b'PK')
  prepared(root, packages)
  assert len(drawn) == 11 + 4 * 8
  assert written(root) == whole
  prepared(root, packages)
  assert len(drawn) == 11 + 4 * 8


@pytest.mark.parametrize('damage', ['emoji_48.zip', 'emoji.json', 'LICENSES.md'])
def test_what_is_damaged_is_made_again(tmp_path, packages, damage):
  whole = written(prepared(tmp_path / 'set', packages))
  if damage == 'emoji_48.zip':
    content = bytearray(whole[damage])
    content[1000] ^= 1
    (tmp_path / 'set' / damage).write_bytes(content)
  else:
    (tmp_path / 'set' / damage).unlink()
  assert written(prepared(tmp_path / 'set', packages)) == whole


def test_a_folder_of_something_else_is_left_alone(tmp_path, packages, capsys):
  (tmp_path / 'notes.txt').write_text('mine')
  assert 'holds other files' in error(capsys, tmp_path, f'--packages={packages}')
  root = prepared(tmp_path / 'set', packages)
  (root / SETTINGS).write_text((root / SETTINGS).read_text().replace('1.2.29', '1.2.28'))
  capsys.readouterr()
  before = written(root)
  assert 'set of other settings' in error(capsys, root, f'--packages={packages}')
  assert written(root) == before


def test_a_picture_that_cannot_be_drawn_is_named(tmp_path, packages, capsys):
  options = [f'--packages={path}' for path in packages.iterdir() if '-openmoji-' not in path.name]
  for number, (name, entry, said) in enumerate(
    (
      ('square', {'body': '<path'}, "picture 'square' of @iconify-json/openmoji cannot be drawn: "),
      (
        'square',
        {'body': '<g/>'},
        "picture 'square' of @iconify-json/openmoji cannot be drawn: it shows nothing",
      ),
      ('square', {}, "icons.json: 'square' has no body"),
    )
  ):
    content = icon_packages.icons(aliases={}, icons={name: entry})
    path = write_tarball(tmp_path / str(number), 'openmoji', content=content)
    assert said in error(capsys, tmp_path / f'set{number}', f'--packages={path}', *options)


def test_a_class_that_cannot_be_tested_or_trained_on_is_told(tmp_path, packages, capsys):
  few = icon_packages.icons(aliases={'alias': {'parent': 'both'}})
  for tested in (True, False):
    root = tmp_path / str(tested)
    for style in STYLES:
      write_tarball(
        root, style, content=few if (style == 'openmoji') == tested and style != 'twemoji' else None
      )
    line = error(capsys, root / 'set', f'--packages={root}')
    wanted = '@iconify-json/openmoji has' if tested else '@iconify-json/noto, @iconify-json/noto-v1, '
    assert line.startswith(f'error: {wanted}'), line
    assert 'no picture of chain, flipped, which are classes' in line


def test_missing_programs_and_wrong_numbers_are_told(tmp_path, packages, capsys, monkeypatch):
  assert '--processes must be 1 to 1024, but is 0' in error(capsys, tmp_path / 'set', '--processes=0')
  monkeypatch.setenv('PATH', str(tmp_path))
  assert 'npm, which fetches the pictures, is not installed' in error(capsys, tmp_path / 'set')
  monkeypatch.setitem(sys.modules, 'resvg_py', None)
  line = error(capsys, tmp_path / 'set', f'--packages={packages}')
  assert 'needs resvg-py' in line and line.endswith('pip install resvg-py')
  assert not (tmp_path / 'set').exists()
