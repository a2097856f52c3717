"""A folder of video files, encoded again so that single frames are read about four times as fast.

Frames get a short side of 256 pixels, if theirs is longer, and stand upright. The encoding is H.264 with a
keyframe every 16 frames and no B frames: little has to be decoded to read one. There is no sound.
"""

import argparse
import concurrent.futures.process
import dataclasses
import multiprocessing
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import rich.progress
from PIL import Image

from ctx_flax import files, terminal
from ctx_flax.data import image_files, video
from ctx_flax.data.claims import claim
from ctx_flax.data.clip_files import VIDEO
from ctx_flax.data.decode import BadImage

if TYPE_CHECKING:
  from ctx_flax.data.video_file import VideoFile

BAD_VIDEOS = 'bad_videos.txt'  # in the folder: what could not be read, and why
KEYFRAMES = 16  # frames from one to the next


@dataclasses.dataclass(frozen=True)
class Job:
  """A video to encode: from `source` to `target`, MP4, at most `short_side` pixels wide or high."""

  source: str
  target: str
  short_side: int
  crf: int


def add_options(parser: argparse.ArgumentParser, name: str) -> None:
  """Adds the options of the command."""
  parser.add_argument(
    '--from', dest='source', metavar='FOLDER', required=True, help='with the video files, in folders or not'
  )
  parser.add_argument(
    '--short_side', type=int, default=256, help='pixels, by default 256; 0 leaves all sizes'
  )
  parser.add_argument('--crf', type=int, default=23, help='constant rate factor of x264, by default 23')
  cores = os.cpu_count() or 1
  parser.add_argument('--processes', type=int, default=cores, help=f'by default as many as cores, {cores}')


def write_folder(name: str, root: pathlib.Path, options: argparse.Namespace) -> str:
  """Encodes every video below a folder, each as root/NAME.mp4 for NAME.ending; those that are there stay.

  What cannot be read is listed in root/bad_videos.txt, a line 'NAME: reason' each, and tried again next time.

  Args:
    name: of the command.
    root: the folder to write to, new or empty or from the same command.
    options: what `add_options` parses.

  Returns:
    What was done, and what to type to train on it.

  Raises:
    ValueError: an option is wrong, or the folder holds something else.
    OSError: the folder cannot be read or written; names it.
    ImportError: PyAV is not installed.
  """
  video.require_pyav()
  source = pathlib.Path(os.path.expanduser(options.source))
  _check(source, root, options)
  names = image_files.list_files(source, kind=VIDEO)
  if not names:
    raise ValueError(f'{files.printable(source)} holds no video files ({" ".join(VIDEO.suffixes())})')
  settings = {'name': name, 'from': files.utf8(os.path.realpath(source))}
  claim(root, settings | {'short_side': options.short_side, 'crf': options.crf})
  targets: dict[str, str] = {}
  bad: dict[str, str] = {}
  for video_name in names:
    target = f'{os.path.splitext(video_name)[0]}.mp4'
    other = targets.setdefault(target, video_name)
    if other != video_name:
      bad[video_name] = f'{other} is written to {target}'
  missing = {name: target for target, name in targets.items() if not (root / target).exists()}
  jobs = [
    Job(str(source / name), str(root / target), options.short_side, options.crf)
    for name, target in missing.items()
  ]
  try:
    with rich.progress.Progress(console=terminal.console(sys.stderr)) as progress:
      task = progress.add_task(name, total=len(names), completed=len(names) - len(jobs))
      for video_name, reason in zip(missing, _in_processes(encode, jobs, options.processes), strict=True):
        if reason:
          bad[video_name] = reason
        progress.advance(task)
  finally:
    _write_bad(root, bad)
  done = f'{image_files.counted(len(names) - len(bad), "video")}'
  if bad:
    done += f', and {len(bad):,} that cannot be read are listed in {BAD_VIDEOS}'
  return f'{done}: {files.shell_word(f"--config.data.path={root}")}'


def encode(job: Job) -> str:
  """Encodes one video, whole or not at all: '', or why it cannot be read.

  Raises:
    OSError: the target cannot be written; names it.
  """
  from ctx_flax.data.video_file import VideoFile

  try:
    clip = VideoFile(job.source)
  except (BadImage, OSError) as error:
    return _reason(error)
  try:
    with clip, files.replacing(job.target) as part:
      _write_video(clip, part, job)
  except BadImage as error:
    return _reason(error)
  return ''


def small_size(width: int, height: int, short_side: int) -> tuple[int, int]:
  """(width, height) of a frame made smaller, both even as H.264 wants; only 1 pixel is enlarged."""
  scale = min(1.0, short_side / min(width, height)) if short_side else 1.0
  w, h = (max(2, min(round(side * scale / 2), side // 2) * 2) for side in (width, height))
  return w, h


def _write_video(clip: 'VideoFile', path: pathlib.Path, job: Job) -> None:
  import av

  (first,) = clip.read([0])
  size = small_size(first.shape[1], first.shape[0], job.short_side)
  options = {'g': str(KEYFRAMES), 'sc_threshold': '0', 'bf': '0', 'tune': 'fastdecode', 'crf': str(job.crf)}
  try:
    with av.open(f'file:{path}', 'w', format='mp4') as output:
      stream = output.add_stream('libx264', rate=clip.rate, options=options)
      stream.width, stream.height = size
      stream.pix_fmt = 'yuv420p'
      stream.codec_context.thread_count = 1  # as many processes work as there are cores
      for index in range(clip.count):
        image = Image.fromarray(clip.read([index])[0]).resize(size, Image.Resampling.BICUBIC)
        output.mux(stream.encode(av.VideoFrame.from_image(image)))
      output.mux(stream.encode())
  except av.error.FFmpegError as error:  # of reading it would be BadImage
    raise OSError(error.errno, error.strerror or 'cannot be written', str(path)) from error


def _in_processes(work: Callable[[Job], str], jobs: list[Job], processes: int) -> Iterator[str]:
  """What a function returns for each, in their order."""
  if processes == 1 or len(jobs) < 2:
    yield from map(work, jobs)
    return
  context = multiprocessing.get_context('spawn')
  executor = concurrent.futures.ProcessPoolExecutor(min(processes, len(jobs)), context, _ignore_interrupts)
  try:
    # A few at a time: there may be hundreds of thousands.
    yield from executor.map(work, jobs, chunksize=max(1, min(8, len(jobs) // (4 * processes))))
  except concurrent.futures.process.BrokenProcessPool as error:
    raise OSError('a process was killed, perhaps for want of memory: try fewer --processes') from error
  finally:
    executor.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends, once what was begun is whole


def _write_bad(root: pathlib.Path, bad: dict[str, str]) -> None:
  path = root / BAD_VIDEOS
  if bad:
    lines = [f'{files.printable(name)}: {files.printable(reason)}\n' for name, reason in sorted(bad.items())]
    files.write_text(path, ''.join(lines))
  else:
    path.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
  return str(error.strerror if isinstance(error, OSError) and error.strerror else error)


def _check(source: pathlib.Path, root: pathlib.Path, options: argparse.Namespace) -> None:
  if not image_files.folder_exists(source):
    raise ValueError(f'{files.printable(source)} is not a folder; --from names it')
  inner, outer = pathlib.Path(os.path.realpath(root)), pathlib.Path(os.path.realpath(source))
  if inner == outer or outer in inner.parents:
    raise ValueError(f'{files.printable(root)} lies in the folder of --from: give another one')
  for name, low, high in (('short_side', 0, 8192), ('crf', 0, 51), ('processes', 1, 1024)):
    value = getattr(options, name)
    if not low <= value <= high:
      raise ValueError(f'--{name} must be {low} to {high}, but is {value}')
