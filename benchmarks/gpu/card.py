"""The card itself: what rows of one file have in common, and the ceilings of everything else."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import machine
from benchmarks.gpu.rows import Row, without_folders
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.timing import measure

PACKAGES = (
  *('jax', 'jaxlib', 'jax-cuda12-pjrt', 'jax-cuda13-pjrt', 'nvidia-cudnn-cu12', 'nvidia-cudnn-cu13'),
  *('flax', 'optax', 'numpy', 'torch', 'torchvision', 'timm'),
)
# Neither a serial number nor a bus address.
QUERY = 'name', 'driver_version', 'memory.total', 'power.limit', 'clocks.sm', 'clocks.max.sm', 'clocks.mem'


def identity(smoke: bool, named_flags: Sequence[str] = ()) -> dict[str, Any]:
  """What has to be the same for rows to be compared: card, driver, versions, XLA's flags, sizes.

  Args:
    smoke: whether sizes are tiny.
    named_flags: flags of XLA that the names of rows tell.
  """
  versions = {'python': platform.python_version()}
  for package in PACKAGES:
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  flags = [flag for flag in os.environ.get('XLA_FLAGS', '').split() if flag not in named_flags]
  return {
    'card': jax.devices()[0].device_kind,
    'driver': _of_card().get('driver_version', ''),
    'versions': versions,
    'xla_flags': without_folders(' '.join(flags)),
    'smoke': smoke,
  }


def rows(sizes: Sizes) -> list[Row]:
  """What the machine is, its bandwidth and its matrix products."""
  return [
    Row('machine', _machine, 3),
    Row('bandwidth float32', lambda: _bandwidth(sizes.bandwidth), 4),
    Row('matmul bfloat16', lambda: _matmul(sizes.matmul, 'bfloat16'), 5),
    Row('matmul float32', lambda: _matmul(sizes.matmul, 'float32'), 6),
  ]


def _machine() -> dict[str, Any]:
  about = machine.describe()
  return {name: about[name] for name in ('system', 'processor', 'cores', 'devices')} | _of_card()


def _of_card() -> dict[str, str]:
  """What the driver says of the first card; nothing where there is no driver."""
  if jax.devices()[0].platform != 'gpu':
    return {}
  query = ['nvidia-smi', f'--query-gpu={",".join(QUERY)}', '--format=csv,noheader']
  try:
    said = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
  except (OSError, subprocess.SubprocessError):
    return {}
  return dict(zip(QUERY, (value.strip() for value in said.splitlines()[0].split(',')), strict=True))


def _bandwidth(n: int) -> dict[str, Any]:
  found = measure(lambda x: x + 1, jnp.zeros(n, jnp.float32))
  return {**found, 'TB_per_s': round(2 * 4 * n / found['ms'] / 1e9, 3)}


def _matmul(n: int, dtype: str) -> dict[str, Any]:
  """As networks have them: float32 in the precision of jax's default, which on a GPU may be TF32."""
  a = jax.random.normal(jax.random.key(0), (n, n), dtype)
  found = measure(lambda a, b: a @ b, a, a)
  return {**found, 'TFLOP_per_s': round(2 * n**3 / found['ms'] / 1e9, 1)}
