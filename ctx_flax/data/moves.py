"""Small mp4 files in which half of what tells the classes apart is the order of the frames; made here, once.

A class is a photograph and a motion. The motions are four pairs of opposites, and to each video there is one
of the opposite motion with the same frames in reverse order. A network that averages over frames gives both
the same prediction, so it gets at most half of them right, whatever its weights.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import sys
from typing import Any

import numpy as np
import rich.progress

from ctx_flax import files, terminal
from ctx_flax.data import moves_render
from ctx_flax.data.claims import claim, is_claimed
from ctx_flax.data.clip_files import VideoFiles
from ctx_flax.data.moves_render import MOTIONS, SCENES

CACHE = '~/.cache/ctx_flax'
WHOLE = 'complete'  # an empty file: all videos are there
CLASSES = (len(SCENES) * len(MOTIONS), len(MOTIONS))


def moves(data: Any, split: str) -> VideoFiles:
  """data.images_per_class videos of each of 8 motions over 5 photographs to train, a quarter as many to test.

  Args:
    data: config.data. classes is 40 for photographs and motions, opposites next to each other: label // 2
      is the photograph and the axis, label // 8 the photograph; or 8 for the motions alone, each with the
      videos of all photographs. split_seed draws the videos, which are the same for both. path is a new or
      an empty folder or one from the same settings; '' = ~/.cache/ctx_flax/moves-HASH, by the settings.
    split: 'train' or 'test'.

  Videos that are not there yet are made, of both splits. Several processes may do so at once, and one that
  was ended is gone on with.

  Raises:
    ValueError: data.classes or data.images_per_class is wrong, or the folder holds something else.
    ImportError: videos must be made, and PyAV is not installed.
    OSError: the folder cannot be written; names it.
  """
  if data.classes not in CLASSES:
    raise ValueError(
      f'data.classes is {data.classes}: moves has {CLASSES[0]} (photographs and motions) or '
      f'{CLASSES[1]} (motions)'
    )
  if data.images_per_class < 1:
    raise ValueError(f'data.images_per_class must be 1 or more, but is {data.images_per_class}')
  settings = {'videos': data.images_per_class, 'seed': data.split_seed, **moves_render.settings()}
  root = _folder(data.path, settings)
  if not (root / WHOLE).exists() or not is_claimed(root, settings):
    try:
      claim(root, settings)
    except ValueError as error:
      raise ValueError(f'data.path: {error}') from None
    _make(root, data.images_per_class, data.split_seed)
  names, labels = [], []
  for scene in range(len(SCENES)):
    for motion in range(len(MOTIONS)):
      for i in range(_count(data.images_per_class, split)):
        names.append(_name(split, scene, motion, i))
        labels.append(motion if data.classes == len(MOTIONS) else scene * len(MOTIONS) + motion)
  class_names = [f'{scene} {motion}' for scene in SCENES for motion in MOTIONS]
  return VideoFiles(root, names, labels, MOTIONS if data.classes == len(MOTIONS) else class_names)


def _count(videos: int, split: str) -> int:
  return videos if split == 'train' else -(-videos // 4)


def _name(split: str, scene: int, motion: int, i: int) -> str:
  return os.path.join(split, f'{SCENES[scene]}_{MOTIONS[motion]}', f'{i:04d}.mp4')


def _folder(path: str, settings: dict[str, Any]) -> pathlib.Path:
  if path:
    return pathlib.Path(os.path.expanduser(path))
  digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
  return pathlib.Path(os.path.expanduser(CACHE)) / f'moves-{digest[:12]}'


def _make(root: pathlib.Path, videos: int, seed: int) -> None:
  """Makes the videos that are not there yet, and marks the folder as whole."""
  pairs = [
    (split, scene, axis, i)
    for split in ('train', 'test')
    for scene in range(len(SCENES))
    for axis in range(len(MOTIONS) // 2)
    for i in range(_count(videos, split))
  ]
  # Threads, as OpenCV and FFmpeg work without Python's lock, and processes would start the program anew.
  workers = min(8, os.cpu_count() or 1)
  console = terminal.console(sys.stderr)
  console.print(
    f'moves: making {2 * len(pairs):,} videos in {files.printable(root)}', markup=False, highlight=False
  )
  with (
    rich.progress.Progress(console=console) as progress,
    concurrent.futures.ThreadPoolExecutor(workers) as pool,
  ):
    task = progress.add_task('moves', total=2 * len(pairs))
    made = [pool.submit(_make_pair, root, seed, *pair) for pair in pairs]
    try:
      for future in concurrent.futures.as_completed(made):
        future.result()
        progress.advance(task, 2)
    except BaseException:
      pool.shutdown(cancel_futures=True)
      raise
  files.write_bytes(root / WHOLE, b'', shared=True)


def _make_pair(root: pathlib.Path, seed: int, split: str, scene: int, axis: int, i: int) -> None:
  """Makes a video and that of the opposite motion, if they are not there."""
  paths = [root / _name(split, scene, motion, i) for motion in (2 * axis, 2 * axis + 1)]
  if all(path.exists() for path in paths):
    return
  rng = np.random.default_rng((seed, split == 'test', scene, axis, i))
  frames = moves_render.render(SCENES[scene], axis, rng, split)
  for path, ordered in zip(paths, (frames, frames[::-1]), strict=True):
    if not path.exists():
      files.write_bytes(path, moves_render.encode(ordered), shared=True)
