"""Small npm packages of icons, one for each style of emoji, as folders and as tarballs."""

import io
import json
import tarfile

from ctx_flax.data.emoji_styles import STYLES

# The left half of each is red, the right half is not drawn, or blue.
SQUARE = '<path fill="red" d="M0 0h5v10H0z"/>'
BOTH = SQUARE + '<path fill="blue" d="M5 0h5v10H5z"/>'
CLASSES = ('alias', 'chain', 'flipped', 'square')


def icons(**changes):
  """The content of icons.json: pictures 'square' and 'both', an alias, an alias of it and a mirrored one."""
  return {
    'prefix': 'tests',
    'icons': {'square': {'body': SQUARE}, 'both': {'body': BOTH}},
    'aliases': {
      'alias': {'parent': 'both'},
      'chain': {'parent': 'alias'},
      'flipped': {'parent': 'square', 'hFlip': True},
    },
    'width': 10,
    'height': 10,
  } | changes


def contents(style, version='', content=None):
  """{name: bytes} of the files of the package of a style."""
  package = {'name': STYLES[style].package, 'version': version or STYLES[style].version}
  info = {
    'name': f'Pictures of {style}',
    'author': {'name': 'An Author', 'url': f'https://example.org/{style}'},
    'license': {'title': 'A Licence', 'spdx': 'A-1.0', 'url': 'https://example.org/licence'},
  }
  jsons = {'icons.json': content or icons(), 'info.json': info, 'package.json': package}
  return {name: json.dumps(value).encode() for name, value in jsons.items()}


def write_folder(root, style, **options):
  """Writes a package as a folder, and returns it."""
  folder = root / style
  folder.mkdir(parents=True)
  for name, content in contents(style, **options).items():
    (folder / name).write_bytes(content)
  return folder


def write_tarball(root, style, *, extra=(), **options):
  """Writes a package as npm packs it, and returns the file."""
  root.mkdir(parents=True, exist_ok=True)
  path = root / f'iconify-json-{style}-{options.get("version") or STYLES[style].version}.tgz'
  with tarfile.open(path, 'w:gz') as tarball:
    for name, content in {**contents(style, **options), **dict(extra)}.items():
      member = tarfile.TarInfo(f'package/{name}')
      member.size = len(content)
      tarball.addfile(member, io.BytesIO(content))
  return path
