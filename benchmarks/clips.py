"""Clips: what the temporal shift costs a network, and how fast clips are read from files of several kinds."""

import importlib.util
import pathlib
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from benchmarks.measure import median, program, ratio, take_turns
from ctx_flax.data.clip_transforms import EvalClipTransform
from ctx_flax.models import create_model
from ctx_flax.models.inference import apply_in_turn

FRAMES = 8
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {  # name of a row -> (network, keywords)
  'resnet50, no shift': ('resnet50', {'temporal_shift': False}),
  'resnet50': ('resnet50', {}),
  'ctx_resnet50': ('ctx_resnet50', {}),
  'ctx_resnet50, frame': ('ctx_resnet50', {'context': 'frame'}),
}
# Ten seconds as short videos on the net are: 300 frames, x264. A keyframe in 250 is its default.
VIDEO_FRAMES, SIZE = 300, (256, 340)
KINDS = {
  'mp4, GOP 250': {'g': '250'},
  'mp4, GOP 16': {'g': '16'},
  'mp4, GOP 16, no B, fastdecode': {'g': '16', 'bf': '0', 'tune': 'fastdecode'},
}


def networks(settings):
  """[row, ...] of inference on clips of eight frames; 'of no shift' is a ratio of throughputs."""
  clips = max(1, settings.batch // FRAMES)
  shape = (clips, FRAMES, settings.image_size, settings.image_size, 3)
  made = {}
  for row, (name, keywords) in NETWORKS.items():
    model = create_model(name, num_classes=400, segments=FRAMES, dtype=settings.dtype, **keywords)
    images = jnp.ones(shape, jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images[:1])
    run = lambda variables, images, model=model: apply_in_turn(model, variables, images)[0]
    made[row] = program(run, variables, images)
  seconds = take_turns({row: one.run for row, one in made.items()}, settings.rounds)
  first = next(iter(seconds))
  return [
    {
      'network': f'{row}, {FRAMES} frames',
      'images/s': clips * FRAMES / median(took),
      'of no shift': ratio(seconds[first], took),
      'temp MB': made[row].temp_bytes / 1e6,
    }
    for row, took in seconds.items()
  ]


def reading(settings):
  """[row, ...] of eight frames of a video, uniform, as a clip for a test; in clips/s of one core.

  'of decord' is a ratio of throughputs, of two readers of the same file that take turns.
  """
  if not importlib.util.find_spec('av'):
    return [{'input': 'clips left out: PyAV is not installed'}]
  transform = EvalClipTransform(settings.image_size, 0.875, 'center', FRAMES, 'uniform', 64)
  with tempfile.TemporaryDirectory() as folder:
    candidates = {}
    for kind, element in write_videos(pathlib.Path(folder)).items():
      candidates[kind] = lambda e=element: transform(e)
      if has_decord() and 'video' in element:
        candidates[f'{kind}, decord'] = lambda e=element: read_by_decord(e['video'])
    seconds = take_turns(candidates, settings.rounds)
  first = seconds[next(iter(KINDS))]
  rows = [
    {
      'input': f'clips of {FRAMES}, {name}',
      'clips/s per core': 1 / median(took),
      'of GOP 250': ratio(first, took),
    }
    | ({'of decord': ratio(seconds[f'{name}, decord'], took)} if f'{name}, decord' in seconds else {})
    for name, took in seconds.items()
  ]
  return rows if has_decord() else [*rows, {'input': 'decord left out: it is not installed'}]


def has_decord():
  return importlib.util.find_spec('decord') is not None


def write_videos(folder):
  """{kind: element}: one video in all kinds; a texture that pans, with a little noise."""
  import av

  rng = np.random.default_rng(0)
  h, w = SIZE
  wide = np.zeros((h, w + VIDEO_FRAMES, 3), np.float32)
  for cells in (3, 8, 24, 80):
    coarse = Image.fromarray(rng.integers(0, 256, (cells, 2 * cells, 3), dtype=np.uint8))
    wide += np.asarray(coarse.resize(wide.shape[1::-1], Image.Resampling.BICUBIC), np.float32) / 4
  noise = rng.normal(0, 4, (8, h, w, 3))
  frames = [
    np.clip(wide[:, i : i + w] + noise[i % len(noise)], 0, 255).astype(np.uint8) for i in range(VIDEO_FRAMES)
  ]
  elements = {}
  for number, (kind, options) in enumerate(KINDS.items()):
    path = folder / f'{number}.mp4'
    with av.open(str(path), 'w') as output:
      stream = output.add_stream('libx264', rate=30, options=options)
      stream.height, stream.width, stream.pix_fmt = h, w, 'yuv420p'
      for frame in frames:
        output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
      output.mux(stream.encode())
    elements[kind] = {'video': str(path)}
  names = tuple(f'img_{i + 1:05d}.jpg' for i in range(VIDEO_FRAMES))
  for name, frame in zip(names, frames, strict=True):
    Image.fromarray(frame).save(folder / name, quality=90)
  return elements | {'JPEG frames': {'frames': (str(folder), names)}}


def read_by_decord(path):
  """The same frames by decord, whole: it does not crop them."""
  import decord

  reader = decord.VideoReader(path, num_threads=1)
  numbers = (len(reader) / FRAMES * (np.arange(FRAMES) + 0.5)).astype(int)
  return reader.get_batch(numbers.tolist()).asnumpy()
