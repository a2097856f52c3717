"""Settings that hold for the whole suite, and the two optional folders of golden values."""

import os
import pathlib
import tempfile

import jax
import numpy as np
import pytest

# Eight devices on the CPU, so that every pmapped path is tested as it runs on eight GPUs.
jax.config.update('jax_num_cpu_devices', 8)
# Broadcasting between arrays of different rank hides shape mistakes: an error here, allowed for users.
jax.config.update('jax_numpy_rank_promotion', 'raise')
# One compilation cache for all tests and the subprocesses that they start.
CACHE = os.environ.setdefault(
  'JAX_COMPILATION_CACHE_DIR', os.path.join(tempfile.gettempdir(), f'ctx_flax_jax_cache_{os.getuid()}')
)
jax.config.update('jax_compilation_cache_dir', CACHE)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.3)


def _folder(variable):
  # A clone does not hold these folders: its parity tests are those on tests/golden.npz.
  path = os.environ.get(variable, '')
  if not path:
    pytest.skip(f'{variable} is not set: it names a folder that is not part of a clone')
  if not pathlib.Path(path).is_dir():
    raise FileNotFoundError(f'{variable}={path} is not a folder')
  return pathlib.Path(path)


@pytest.fixture(scope='session')
def golden():
  """Loads a file of the authors' values by name: golden('b_dense3_c8_s1') -> dict of arrays."""
  folder = _folder('CTX_FLAX_GOLDEN')

  def load(name):
    with np.load(folder / f'{name}.npz') as archive:
      return {key: archive[key] for key in archive.files}

  return load


@pytest.fixture(scope='session')
def keys():
  """The folder with parameter names and shapes of public checkpoints."""
  return _folder('CTX_FLAX_KEYS')
