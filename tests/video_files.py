"""Small video files, written by PyAV, and what is wrong with some."""

import struct
from fractions import Fraction

import av
import numpy as np

HEIGHT, WIDTH = 32, 48  # of the videos of `write_video`
B_FRAMES = {'g': '8', 'bf': '2', 'preset': 'ultrafast', 'qp': '20'}
OPTIONS = {'libx264': B_FRAMES, 'mpeg4': {'g': '8', 'bf': '2'}, 'mpeg2video': {'g': '8', 'bf': '2'}}


def pictures(n, height=HEIGHT, width=WIDTH):
  """uint8 (n, h, w, 3): a ramp with a white bar that moves, and dark corners but one, so that turns show."""
  frames = np.empty((n, height, width, 3), np.uint8)
  frames[...] = np.linspace(30, 130, width, dtype=np.uint8)[:, None]
  for i, frame in enumerate(frames):
    frame[:, i * 3 % width : i * 3 % width + 5] = 255
    frame[:8, :8] = (250, 20, 6 * i % 250)
  return frames


def write_video(path, frames=24, codec='libx264', options=None, times=None, kind=None, container=None):
  """Writes a video; `frames` is how many, or the pixels of them, and `times` theirs in milliseconds."""
  frames = pictures(frames) if isinstance(frames, int) else frames
  with av.open(str(path), 'w', format=kind, options=container or {}) as output:
    stream = output.add_stream(codec, rate=12, options=options or OPTIONS.get(codec, {}))
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = 'yuv420p'
    stream.codec_context.thread_count = 1
    if times is not None:
      stream.codec_context.time_base = Fraction(1, 1000)
    for i, pixels in enumerate(frames):
      frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
      if times is not None:
        frame.pts, frame.time_base = times[i], Fraction(1, 1000)
      output.mux(stream.encode(frame))
    output.mux(stream.encode())
  return path


def write_sound(path):
  with av.open(str(path), 'w') as output:
    stream = output.add_stream('aac', rate=16000, layout='mono')
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format='fltp', layout='mono')
    frame.sample_rate = 16000
    output.mux(stream.encode(frame))
    output.mux(stream.encode())
  return path


def in_turn(path):
  """All frames, decoded one after the other: what numbers are compared with."""
  with av.open(str(path)) as container:
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    return [frame.to_ndarray(format='rgb24') for frame in container.decode(stream)]


def packets(path):
  """Of the first video stream, in their order in the file."""
  with av.open(str(path)) as container:
    return [packet for packet in container.demux(container.streams.video[0]) if packet.size]


def copy_packets(path, target, first=0, times=None):
  """Copies a stream from its packet `first` on, without decoding; `times`: number -> another time of it."""
  with av.open(str(path)) as source, av.open(str(target), 'w') as output:
    stream = source.streams.video[0]
    copy = output.add_stream_from_template(stream)
    for i, packet in enumerate([packet for packet in source.demux(stream) if packet.size][first:]):
      if times:
        packet.dts, packet.pts = 100 * i, times(i)
      packet.stream = copy
      output.mux(packet)
  return target


def damage(path, numbers):
  """Overwrites the data of packets with noise."""
  data = bytearray(path.read_bytes())
  for packet in [packets(path)[number] for number in numbers]:
    start = packet.pos + 5  # the length and the kind of an H.264 packet stay
    noise = np.random.default_rng(0).integers(0, 256, packet.size - 5, dtype=np.uint8)
    data[start : start + len(noise)] = noise.tobytes()
  path.write_bytes(data)
  return path


def turn(path, a, b, c, d):
  """Sets the matrix of an MP4 file that its frames are shown by: (x, y) goes to (a x + c y, b x + d y)."""
  data = bytearray(path.read_bytes())
  start = (
    data.index(b'tkhd') + 4 + 4 + 5 * 4 + 8 + 8
  )  # version, times and numbers, reserved, layer and volume
  one = 1 << 16
  data[start : start + 36] = struct.pack('>9i', a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
  path.write_bytes(data)
  return path


def cut_start(path, duration):
  """Makes the edit list of an MP4 file leave out a time at the start, in units of its stream."""
  data = bytearray(path.read_bytes())
  start = data.index(b'elst') + 4 + 4 + 4 + 4  # version, number of entries, duration of the first
  (time,) = struct.unpack_from('>i', data, start)
  struct.pack_into('>i', data, start, time + duration)
  path.write_bytes(data)
  return path
