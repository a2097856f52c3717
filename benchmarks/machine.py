"""What the numbers were measured on, and how fast that could be at best."""

import dataclasses
import importlib.metadata
import os
import pathlib
import platform

import jax
import jax.numpy as jnp

from benchmarks.measure import median, program, take_turns

PACKAGES = 'jax', 'jaxlib', 'flax', 'numpy', 'pillow', 'opencv-python-headless', 'grain', 'torch', 'timm'

# Peaks by a part of jax's device_kind: FLOP/s of dense float32 and bfloat16 products, bytes/s of memory.
# From the makers' data sheets; float32 without TF32.
KNOWN = {
  'H200': (67e12, 989e12, 4.8e12),
  'H100': (67e12, 989e12, 3.35e12),
  'A100-SXM4-80GB': (19.5e12, 312e12, 2.039e12),
  'A100': (19.5e12, 312e12, 1.555e12),
  'L40S': (91.6e12, 362e12, 0.864e12),
  'L4': (30.3e12, 121e12, 0.3e12),
  'V100': (15.7e12, 125e12, 0.9e12),
  'T4': (8.1e12, 65e12, 0.32e12),
}


@dataclasses.dataclass(frozen=True)
class Peak:
  """The limits of one device.

  Attributes:
    flops: per second.
    bandwidth: bytes per second.
    source: 'given', 'data sheet' or 'measured here' (a large matrix product, and a large copy).
  """

  flops: float
  bandwidth: float
  source: str


def describe():
  """Versions and hardware, as written to JSON. Names no path, user or host."""
  versions = {}
  for name in PACKAGES:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  device = jax.devices()[0]
  return {
    'python': platform.python_version(),
    'system': f'{platform.system()} {platform.machine()}',
    'processor': _processor(),
    'cores': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
    'device': device.device_kind,
    'platform': device.platform,
    'devices': jax.device_count(),
    'versions': versions,
  }


def peak(dtype, flops=0.0, bandwidth=0.0):
  """The limits of the first device: those given, else of the data sheet, else measured."""
  kind = jax.devices()[0].device_kind
  known = next((limits for name, limits in KNOWN.items() if name in kind), None)
  if known:
    flops, bandwidth = flops or known[dtype == 'bfloat16'], bandwidth or known[2]
    return Peak(flops, bandwidth, 'data sheet')
  if flops and bandwidth:
    return Peak(flops, bandwidth, 'given')
  side, size = 2048, 1 << 26
  matrix = jnp.ones((side, side), dtype)
  candidates = {
    'product': program(lambda a, b: a @ b, matrix, matrix).run,
    'copy': program(lambda x: x + 1, jnp.ones((size,), jnp.float32)).run,
  }
  seconds = take_turns(candidates, rounds=5)
  return Peak(
    flops or 2 * side**3 / median(seconds['product']),
    bandwidth or 8 * size / median(seconds['copy']),
    'measured here',
  )


def _processor():
  cpuinfo = pathlib.Path('/proc/cpuinfo')
  if cpuinfo.exists():
    for line in cpuinfo.read_text().splitlines():
      if line.startswith('model name'):
        return line.partition(':')[2].strip()
  return platform.processor()
