"""Where the pictures of emoji come from: folders and tarballs that are named, or npm."""

import os
import stat

import icon_packages
import pytest
from icon_packages import write_folder, write_tarball

from ctx_flax.data import emoji_npm, emoji_packages
from ctx_flax.data.emoji_styles import STYLES

# What npm does for `npm pack @iconify-json/NAME@VERSION`: copies a tarball from another folder.
PACK = """#!/bin/sh
test "$1" = pack || exit 9
cp "$REGISTRY/$(printf %s "${2#@}" | tr / - | sed s/@/-/)".tgz . || exit 9
echo something
"""
FAIL = """#!/bin/sh
echo 'npm error code ECONNREFUSED
npm error syscall connect
npm error FetchError: request to the registry failed, reason: connect
npm error A complete log of this run can be found in: /somewhere' >&2
exit 1
"""


@pytest.fixture
def npm(monkeypatch, tmp_path):
  """Installs a script as npm."""

  def install(script):
    path = tmp_path / 'bin' / 'npm'
    path.parent.mkdir(exist_ok=True)
    path.write_text(script)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv('PATH', f'{path.parent}{os.pathsep}{os.environ["PATH"]}')
    monkeypatch.setenv('REGISTRY', str(tmp_path / 'registry'))

  return install


def test_folders_tarballs_and_folders_of_them_are_the_same(tmp_path):
  names = list(STYLES)
  single = [write_folder(tmp_path / 'a', names[0]), write_tarball(tmp_path / 'b', names[1])]
  for style in names[2:5]:
    write_folder(tmp_path / 'c', style)
  for style in names[5:]:
    write_tarball(tmp_path / 'c', style)
  (tmp_path / 'c' / 'notes.txt').write_text('no package')
  (tmp_path / 'c' / 'empty').mkdir()
  packages = emoji_packages.find([*single, tmp_path / 'c'])
  assert list(packages) == names
  for style, package in packages.items():
    assert (package.name, package.version) == (STYLES[style].package, STYLES[style].version)
    assert set(package.icons()) == {'square', 'both', *icon_packages.CLASSES}
    assert package.info()['name'] == f'Pictures of {style}'
    assert package.licence_texts() == {}


def test_licence_files_are_read(tmp_path):
  path = write_tarball(tmp_path, 'noto', extra={'LICENSE.txt': b'As you \xe2\x80\x94 like\n', 'a.js': b''})
  assert emoji_packages.open_package(path).licence_texts() == {'LICENSE.txt': 'As you — like\n'}


def test_a_package_of_another_version_is_told_and_taken_on_request(tmp_path):
  for style in STYLES:
    write_tarball(tmp_path, style)
  (tmp_path / f'iconify-json-noto-{STYLES["noto"].version}.tgz').unlink()
  other = write_tarball(tmp_path, 'noto', version='7.0.0')
  said = (
    rf'@iconify-json/noto@{STYLES["noto"].version}, and --packages names 7.0.0 \({other}\): .*--any-version'
  )
  with pytest.raises(ValueError, match=said):
    emoji_packages.find([tmp_path])
  assert emoji_packages.find([tmp_path], any_version=True)['noto'].version == '7.0.0'
  write_tarball(tmp_path, 'noto', version='8.0.0')
  with pytest.raises(ValueError, match=r'7\.0\.0 .* and 8\.0\.0 .*: name one of them$'):
    emoji_packages.find([tmp_path], any_version=True)
  write_tarball(tmp_path, 'noto')
  assert emoji_packages.find([tmp_path])['noto'].version == STYLES['noto'].version


def test_missing_packages_are_told(tmp_path):
  path = write_tarball(tmp_path / 'one', 'twemoji')
  with pytest.raises(
    ValueError, match=r'^--packages names no @iconify-json/openmoji@1\.2\.29, @icon'
  ) as error:
    emoji_packages.find([path])
  assert 'twemoji' not in str(error.value)
  with pytest.raises(ValueError, match=r'none, which --packages names, does not exist$'):
    emoji_packages.find([tmp_path / 'none'])
  with pytest.raises(
    ValueError, match=r', which --packages names, holds no package\.json and no \.tgz files$'
  ):
    emoji_packages.find([tmp_path])


def test_a_broken_package_is_named(tmp_path):
  path = write_tarball(tmp_path, 'twemoji')
  content = path.read_bytes()
  for broken in (b'no tarball', b'', content[: len(content) // 2], content[:200] + b'???' + content[203:]):
    path.write_bytes(broken)
    with pytest.raises(ValueError, match=rf'^{path} is no whole tarball: '):
      emoji_packages.open_package(path).info()
  path.write_bytes(content)
  assert emoji_packages.open_package(path).icons()
  for name, text, said in (
    ('icons.json', '{"icons"', 'icons.json is no JSON: '),
    ('icons.json', '{"icons": "\udcff"}', "icons.json is no JSON: 'utf-8' codec"),
    ('icons.json', '{"icon": {}}', "icons.json holds no 'icons' by name"),
    ('package.json', '[]', 'package.json is no JSON object'),
    ('package.json', '{"name": "x"}', 'package.json has no version'),
    ('package.json', None, 'which --packages names, holds no package.json'),
  ):
    folder = write_folder(tmp_path / said, 'noto')
    if text is None:
      (folder / name).unlink()
    else:
      (folder / name).write_text(text, encoding='utf-8', errors='surrogateescape')
    with pytest.raises(ValueError, match=said) as error:
      emoji_packages.open_package(folder).icons()
    assert str(folder) in str(error.value)


def test_npm_fetches_what_is_not_there_yet(tmp_path, npm):
  npm(PACK)
  for style in STYLES:
    write_tarball(tmp_path / 'registry', style)
  done = []
  first = emoji_npm.fetch(tmp_path / 'parts', lambda: done.append(1))
  assert list(first) == list(STYLES) and len(done) == 9
  assert sorted(os.listdir(tmp_path / 'parts')) == sorted(os.listdir(tmp_path / 'registry'))
  first['noto'].path.unlink()
  npm(PACK.replace('test "$1"', 'test noto = "$(expr "$2" : "@.*/\\(.*\\)@")" -a "$1"'))
  assert emoji_npm.fetch(tmp_path / 'parts', lambda: None) == first
  assert set(first['noto'].icons()) > set(icon_packages.CLASSES)


def test_what_npm_says_of_a_failure_is_told_on_a_line(tmp_path, npm):
  npm(FAIL)
  said = (
    '^npm could not fetch @iconify-json/twemoji@1.2.5: FetchError: request to the registry failed, reason: '
    'connect; without a network, .* --packages$'
  )
  with pytest.raises(ValueError, match=said):
    emoji_npm.fetch(tmp_path / 'parts', lambda: None)
  assert os.listdir(tmp_path / 'parts') == []


def test_without_npm_the_packages_are_listed(tmp_path, monkeypatch):
  monkeypatch.setenv('PATH', str(tmp_path))
  with pytest.raises(ValueError, match=r'^npm, .*, is not installed: .* by --packages: ') as error:
    emoji_npm.require_npm()
  for style in STYLES.values():
    assert f'{style.package}@{style.version}' in str(error.value)
