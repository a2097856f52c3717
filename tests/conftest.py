"""Settings that hold for the whole suite, and the two optional folders of golden values."""

import contextlib
import ctypes
import gc
import os
import pathlib
import resource
import tempfile

import jax
import numpy as np
import pytest
from image_batches import write_jpegs
from PIL import Image

from ctx_flax.configs import fields

# Compiling takes most of the suite's time. Without the last optimisations, in one piece (the other core has
# tests of its own) and, where XLA still has it, with the older way to compile fusions, it takes a quarter of
# it and half of the memory.
FAST_COMPILER = ['--xla_backend_optimization_level=0', '--xla_cpu_parallel_codegen_split_count=1']
if jax.__version_info__ < (0, 11):
  FAST_COMPILER.append('--xla_cpu_use_fusion_emitters=false')
os.environ['XLA_FLAGS'] = ' '.join([*FAST_COMPILER, os.environ.get('XLA_FLAGS', '')]).strip()
# Programs need not tell the line of Python of every operation: a twentieth of the time to make them.
os.environ['JAX_TRACEBACK_IN_LOCATIONS_LIMIT'] = '0'
jax.config.update('jax_traceback_in_locations_limit', 0)
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


# The files that take longest, to be begun first, so that no process is left with one of them at the end.
LONG = (
  *('recipes', 'loop', 'processes', 'main', 'accumulation', 'step', 'models', 'golden', 'workers'),
  *('video_analyses', 'clips', 'weights_alone', 'analysis_run', 'offsets', 'grad_cam', 'linear_probe'),
  *('failures', 'contextual_conv', 'layers', 'torch_weights'),
)


def pytest_collection_modifyitems(items):
  order = {f'test_{name}.py': number for number, name in enumerate(LONG)}
  items.sort(key=lambda item: order.get(item.path.name, len(LONG)))


def pytest_collection_finish():
  # What has been imported stays: garbage collections need not look through it.
  gc.collect()
  gc.freeze()


# Tracing makes millions of objects that live on: looking through them again and again finds little.
gc.set_threshold(50_000, 20, 50)


def is_full():
  """Whether this process holds much memory, or many mappings: each program takes some of the 65,530 that a
  process may have by default, and one that has none left crashes."""
  try:
    mappings = pathlib.Path('/proc/self/maps').read_bytes().count(b'\n')
    resident = int(pathlib.Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize()
  except OSError:  # another system than Linux
    return True
  return mappings > 30_000 or resident > 2 * 2**30


@pytest.fixture(autouse=True, scope='module')
def forget_programs():
  """Frees what files have compiled, before it becomes too much; until then the next file may use it."""
  yield
  if is_full():
    jax.clear_caches()
    gc.collect()
    # The C library keeps what the compiler has freed, gigabytes over many files.
    with contextlib.suppress(OSError, AttributeError):
      ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope='module')
def mean_colour_task():
  """Makes the configs know the task of mean_colour.py, with the fields of classification."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(fields.TASKS, 'mean_colour', fields.TASKS['classification'])
    yield


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
def golden_folder():
  """The folder of the authors' values, for files that are no arrays."""
  return _folder('CTX_FLAX_GOLDEN')


@pytest.fixture(scope='session')
def keys():
  """The folder with parameter names and shapes of public checkpoints."""
  return _folder('CTX_FLAX_KEYS')


@pytest.fixture(scope='session')
def jpeg_folder(tmp_path_factory):
  """A folder of JPEGs of 12 classes: train with 48 images, validation with 38, of which one each is damaged.

  A class is a colour and the direction of its stripes; sizes differ, and some images are gray.
  """
  root = tmp_path_factory.mktemp('jpegs')
  rng = np.random.default_rng(0)
  for split, count in (('train', 48), ('validation', 38)):
    for i in range(count):
      label = i % 12
      h, w = (int(side) for side in rng.integers(70, 130, 2))
      stripes = np.indices((h, w))[label % 2] // 8 % 2 * 120 + rng.integers(0, 100, (h, w))
      colour = np.array([label % 3, label // 3 % 3, 1 + label % 4]) / 4
      pixels = stripes[..., None] * colour if i % 7 else stripes
      path = root / split / f'class{label:02d}' / f'{i:03d}.jpg'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(pixels.astype(np.uint8)).save(path, quality=90)
    damaged = root / split / 'class05' / '005.jpg'
    damaged.write_bytes(damaged.read_bytes()[:300])
  return root


@pytest.fixture(scope='session')
def small_jpegs(tmp_path_factory):
  """A folder of 50 small JPEGs of two classes, none damaged."""
  return write_jpegs(tmp_path_factory.mktemp('small_jpegs'))
