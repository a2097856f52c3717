"""Compiling for an NVIDIA GPU on a machine that has none.

XLA needs its compiler for CUDA (the packages of the extra gpu-program, no CUDA libraries) and a description
of the card. It tunes nothing without the card itself: which of its algorithms cuDNN would take, and how
matrix products are tiled, is not known this way.
"""

import importlib.metadata
import os
from typing import Any

import jax
from jax.experimental import topologies

# device_info.proto and its neighbours in XLA: counts and sizes of the makers' data sheets.
_COMMON = """
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
"""
_HOPPER = """
  shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448 core_count: 132 fpus_per_core: 128
  l2_cache_size: 52428800 clock_rate_ghz: 1.98
  cuda_compute_capability { major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES }
"""
_AMPERE = """
  shared_memory_per_core: 167936 shared_memory_per_block_optin: 166912 core_count: 108 fpus_per_core: 64
  l2_cache_size: 41943040 clock_rate_ghz: 1.41 cuda_compute_capability { major: 8 minor: 0 }
"""
CARDS = {
  'h100': (
    'NVIDIA H100 80GB HBM3',
    _HOPPER + 'memory_bandwidth: 3352320000000 device_memory_size: 84978434048',
  ),
  'h200': ('NVIDIA H200', _HOPPER + 'memory_bandwidth: 4800000000000 device_memory_size: 150000000000'),
  'a100': (
    'NVIDIA A100-SXM4-80GB',
    _AMPERE + 'memory_bandwidth: 2039000000000 device_memory_size: 85000000000',
  ),
}
PLUGINS = 'jax-cuda13-plugin', 'jax-cuda12-plugin'
# Of its own, because the compiler changes which devices jax looks for.
INSTALL = "in an environment of its own, python -m pip install -r requirements.txt -e '.[gpu-program]'"


class NotInstalled(Exception):
  """XLA's compiler for CUDA is missing, or is not that of the jax which is installed."""


def compiler() -> str:
  """Name and version of XLA's compiler for CUDA; NotInstalled, in one line, where there is none."""
  for name in PLUGINS:
    try:
      version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
    if version != jax.__version__:
      raise NotInstalled(f'{name} {version} does not fit jax {jax.__version__}: {INSTALL}')
    return f'{name} {version}'
  raise NotInstalled(f"XLA's compiler for CUDA is not installed: {INSTALL}")


def without_devices() -> None:
  """Makes jax run on the CPU whatever is installed; call it before anything touches a device."""
  os.environ['JAX_PLATFORMS'] = 'cpu'
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update(
    'jax_enable_compilation_cache', False
  )  # it reads no programs for devices that are not there


def compile_for(card: str, function: Any, *arguments: Any) -> Any:
  """The function compiled for one card.

  Args:
    card: a name of CARDS.
    function: of arrays.
    arguments: trees of arrays or jax.ShapeDtypeStructs.
  """
  description, numbers = CARDS[card]
  target = f"""
    gpu_device_info {{ {_COMMON} {numbers} }}
    platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 12 }} runtime_version {{ major: 13 }}
    device_description_str: "{description}"
  """
  topology = topologies.get_topology_desc(platform='cuda', target_config=target, topology='1x1x1')
  mesh = topologies.make_mesh(topo=topology, mesh_shape=(1,), axis_names=('device',))
  one = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  arguments = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=one), arguments)
  return jax.jit(function).lower(*arguments).compile()
