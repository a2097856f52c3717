"""Fetches the npm packages that the set `emoji` is drawn from, by npm."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable

from ctx_flax.data.emoji_packages import Package
from ctx_flax.data.emoji_styles import STYLES, Style


def fetch(folder: pathlib.Path, advance: Callable[[], None]) -> dict[str, Package]:
  """The package of every style, fetched by npm if it is not in the folder yet.

  Args:
    folder: that the tarballs go to.
    advance: called after each.

  Raises:
    ValueError: npm is not installed, or failed.
    OSError: the folder cannot be written; names it.
  """
  chosen = {}
  for name, style in STYLES.items():
    path = folder / f'{style.package.strip("@").replace("/", "-")}-{style.version}.tgz'
    if not path.exists():
      _pack(style, path)
    chosen[name] = Package(path, style.package, style.version)
    advance()
  return chosen


def require_npm() -> str:
  """The program npm.

  Raises:
    ValueError: it is not installed; says what to do without it.
  """
  npm = shutil.which('npm')
  if npm is None:
    wanted = ', '.join(f'{style.package}@{style.version}' for style in STYLES.values())
    raise ValueError(
      'npm, which fetches the pictures, is not installed: install it, or fetch these npm packages elsewhere '
      f'(`npm pack NAME`) and name the folder of the .tgz files by --packages: {wanted}'
    )
  return npm


def _pack(style: Style, path: pathlib.Path) -> None:
  """Has npm fetch the tarball of a package, whole or not at all."""
  wanted = f'{style.package}@{style.version}'
  npm = require_npm()
  path.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=path.parent) as folder:
    done = subprocess.run(
      [npm, 'pack', wanted, '--loglevel=error'],
      cwd=folder,
      capture_output=True,
      stdin=subprocess.DEVNULL,
      encoding='utf-8',
      errors='replace',
    )
    made = sorted(pathlib.Path(folder).glob('*.tgz'))
    if done.returncode or not made:
      raise ValueError(
        f'npm could not fetch {wanted}: {_reason(done.stderr)}; '
        'without a network, fetch the packages elsewhere and name their folder by --packages'
      )
    os.replace(made[0], path)


def _reason(errors: str) -> str:
  """The line of npm's output that says what went wrong: the first that is more than a code."""
  lines = [re.sub('^npm (error|ERR!) ?', '', line).strip() for line in errors.splitlines()]
  return next(
    (line for line in lines if line and not re.match(r'(code|syscall|errno)\b', line)), 'no reason given'
  )
