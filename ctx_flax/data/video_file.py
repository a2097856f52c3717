"""Exactly the frames that are asked for, of a video file of any kind. PyAV.

What a file says of the number of its frames is a guess, and seeking goes to keyframes alone, or misses them.
So the packets are listed first, which takes no decoding: their times are those of the frames. To read a frame
is to decode from the last keyframe before it to the frame with its time.

This module needs PyAV: ctx_flax.data.video imports it when there is a video file to be read.
"""

import bisect
import contextlib
import fractions
import io
import itertools
import os
from collections.abc import Iterator, Sequence

import av
import numpy as np

from ctx_flax.data.decode import LARGEST, BadImage
from ctx_flax.data.video import checked

av.logging.set_level(av.logging.PANIC)  # FFmpeg tells of damaged files, which exceptions do here
AS_NEAR = 2  # frames: reading on to a keyframe costs no more than seeking it


class VideoFile:
  """The frames of the first video stream of a file; a Clip of ctx_flax.data.video. To be closed.

  Frames are upright: turned as the file says. One with damaged data is replaced by the next that can be
  decoded, or by the last of all. One thread decodes: data.threads and data.workers read many files at a time.

  Args:
    file: its path, or its bytes.

  Raises:
    BadImage: it is no video, or one without frames.
    OSError: it is not there, or cannot be read.
  """

  def __init__(self, file: str | os.PathLike[str] | bytes) -> None:
    self._file = file
    self._coming: Iterator[tuple[int, av.VideoFrame]] = iter(())  # times and frames, to be decoded
    self._last: tuple[int, av.VideoFrame] | None = None  # that was decoded
    self._open()
    try:
      with _as_bad_image():
        self._list_packets()
    except BaseException:
      self.close()
      raise

  @property
  def count(self) -> int:
    return len(self._times)

  @property
  def rate(self) -> fractions.Fraction:
    """Frames per second, on average, as the file says; 25 if it says nothing that could be true."""
    rate = self._stream.average_rate
    return rate if rate and 1 <= rate <= 1000 else fractions.Fraction(25)

  def __enter__(self) -> 'VideoFile':
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def close(self) -> None:
    self._coming = iter(())
    self._last = None
    self._container.close()

  def read(self, indices: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    different = sorted(checked(indices, self.count))
    with _as_bad_image():
      frames = {index: _pixels(self._frame(index)) for index in different}
    return [frames[int(index)] for index in indices]

  def _open(self) -> None:
    """Opens the file, or opens it anew, at its beginning."""
    self._container = _container(self._file)
    try:
      with _as_bad_image():
        if not self._container.streams.video or self._container.format.name == 'tty':
          raise BadImage('no video stream')  # FFmpeg draws text files
        self._stream = self._container.streams.video[0]
        self._stream.codec_context.thread_count = 1
    except BaseException:
      self._container.close()
      raise

  def _list_packets(self) -> None:
    """Sets _times of the frames and _keys, times of the keyframes, both sorted, from the packets."""
    packets = [(packet.pts, packet.is_keyframe, packet.is_discard) for packet in self._demux()]
    # A stream that was cut out of another begins with what cannot be decoded.
    packets = packets[next((i for i, (_, key, _) in enumerate(packets) if key), 0) :]
    shown = [time for time, _, discarded in packets if not discarded]
    if not shown:
      raise BadImage('no frames')
    times = [time for time in shown if time is not None]
    keys = [time for time, key, _ in packets if key and time is not None]
    self._in_turn = len(set(times)) < len(shown) or not keys
    # Packets of an AVI file have the times of their own order, not of the order in which frames are shown.
    if self._container.format.name == 'avi' and self._stream.codec_context.has_b_frames:
      self._in_turn |= times == sorted(times)
    if self._in_turn:  # times are of no use: frames are counted from the first on
      self._times, self._keys = list(range(len(shown))), [0]
    else:
      self._times, self._keys = sorted(times), sorted(keys)

  def _frame(self, index: int) -> av.VideoFrame:
    time = self._times[index]
    key = max(bisect.bisect_right(self._keys, time) - 1, 0)
    if not self._reads_on(time, self._keys[key]):
      self._start(key)
    while not self._advance(time):
      if key == 0:
        raise BadImage('no frame can be decoded')
      key -= 1
      self._start(key)
    assert self._last is not None
    return self._last[1]

  def _reads_on(self, time: int, key: int) -> bool:
    """Whether to decode on to a frame, and not from its keyframe."""
    if self._last is None or self._last[0] > time:
      return False
    skipped = bisect.bisect_left(self._times, key) - bisect.bisect_left(self._times, self._last[0])
    return skipped <= AS_NEAR

  def _advance(self, time: int) -> bool:
    """Decodes to the frame of a time, the first behind it, or the last; False if there is none at all."""
    while self._last is None or self._last[0] < time:
      following = next(self._coming, None)
      if following is None:
        break
      self._last = following
    return self._last is not None

  def _start(self, key: int) -> None:
    """Makes the frames from a keyframe on the coming ones, or those from an earlier place."""
    self._last = None
    packets = None if self._in_turn else self._seek(key)
    if packets is None:
      self.close()
      self._open()
      packets = self._demux()
    self._coming = self._decode(packets)

  def _seek(self, key: int) -> Iterator[av.Packet] | None:
    """Packets from a keyframe on, or from one before; None if seeking leads to neither, or is impossible."""
    for earlier in range(key, -1, -1):
      try:
        self._container.seek(self._keys[earlier], stream=self._stream)
      except av.error.FFmpegError:
        return None
      packets = self._demux()
      first = next((packet for packet in packets if packet.is_keyframe), None)
      # In an MPEG transport stream it may be one behind.
      if first is not None and first.pts is not None and first.pts <= self._keys[key]:
        return itertools.chain((first,), packets)
    return None

  def _demux(self) -> Iterator[av.Packet]:
    """The packets from here on, of a truncated file those that are left, without the empty one at the end."""
    with _skipping_damage():
      for packet in self._container.demux(self._stream):
        if packet.size and not packet.is_corrupt:
          yield packet

  def _decode(self, packets: Iterator[av.Packet]) -> Iterator[tuple[int, av.VideoFrame]]:
    """(time, frame) of each that can be decoded."""
    number = itertools.count()
    for packet in itertools.chain(packets, (None,)):  # None: what the decoder still holds
      with _skipping_damage():
        for frame in self._stream.codec_context.decode(packet):
          if self._in_turn:
            yield next(number), frame
          elif frame.pts is not None:
            yield frame.pts, frame


def _container(file: str | os.PathLike[str] | bytes) -> av.container.InputContainer:
  """An open file. OSError as Python's own functions raise it."""
  try:
    with _as_bad_image(but=OSError):
      if isinstance(file, bytes):
        return av.open(io.BytesIO(file), 'r', metadata_errors='replace')
      # A name with a colon is no protocol, and a list of addresses under the name of a video leads nowhere.
      options = {'protocol_whitelist': 'file'}
      return av.open(f'file:{os.fspath(file)}', 'r', container_options=options, metadata_errors='replace')
  except OSError as error:
    raise OSError(error.errno, os.strerror(error.errno or 0), file) from error


def _pixels(frame: av.VideoFrame) -> np.ndarray:
  if frame.width * frame.height > LARGEST:
    raise BadImage(f'{frame.width} x {frame.height} pixels are more than {LARGEST:,}')
  pixels = frame.to_ndarray(format='rgb24', threads=1)
  return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


@contextlib.contextmanager
def _skipping_damage() -> Iterator[None]:
  try:
    yield
  except av.error.FFmpegError as error:
    if isinstance(error, MemoryError):
      raise


@contextlib.contextmanager
def _as_bad_image(but: type[Exception] = BadImage) -> Iterator[None]:
  try:
    yield
  except (but, BadImage, MemoryError):
    raise
  except Exception as error:  # FFmpeg's own, and what PyAV itself raises for formats that it does not know
    reason = error.strerror if isinstance(error, av.error.FFmpegError) else str(error)
    raise BadImage(' '.join((reason or '').split()) or type(error).__name__) from error
