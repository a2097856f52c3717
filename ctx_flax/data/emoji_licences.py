"""LICENSES.md of a set of emoji: the authors of its pictures, and their licences."""

from collections.abc import Mapping
from typing import Any

from ctx_flax.data.emoji_images import DRAWN, SIZES
from ctx_flax.data.emoji_packages import Package
from ctx_flax.data.emoji_styles import STYLES

FILE = 'LICENSES.md'
HEADER = f"""# Licences of the pictures

The images in the zip files beside this file show pictures of the authors below, who do not endorse their use
here. Each style is under the licence stated for it; images of a style under CC BY-SA may be passed on under
that licence only.

Changes, to all styles: the SVG pictures of the npm packages were rasterised by resvg, {DRAWN} pixels wide and
high, and reduced to {' and '.join(map(str, SIZES))} pixels.
"""


def licences(packages: Mapping[str, Package]) -> str:
  """The text of FILE, in Markdown.

  Args:
    packages: of every style.

  Raises:
    ValueError: a package is broken; names it.
    OSError: one cannot be read; names it.
  """
  return HEADER + ''.join(_section(style, package) for style, package in packages.items())


def _section(style: str, package: Package) -> str:
  info = package.info()
  licence = {'title': STYLES[style].licence, 'spdx': STYLES[style].licence} | _object(info, 'license')
  author = {'name': 'not stated'} | _object(info, 'author')
  texts = ''.join(
    f'\n{name}:\n\n' + ''.join(f'    {line}\n' for line in text.splitlines())
    for name, text in package.licence_texts().items()
  )
  return (
    f'\n## {style}\n\n'
    f'- Pictures: {info.get("name", style)}\n'
    f'- Author: {_link(author, "name")}\n'
    f'- Licence: {_link(licence, "title")} ({licence["spdx"]})\n'
    f'- From: npm package {package.name}, version {package.version}\n'
    f'{texts}'
  )


def _object(info: dict[str, Any], key: str) -> dict[str, Any]:
  value = info.get(key)
  return value if isinstance(value, dict) else {}


def _link(entry: dict[str, Any], key: str) -> str:
  return f'[{entry[key]}]({entry["url"]})' if 'url' in entry else str(entry[key])
