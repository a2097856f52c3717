"""Frames that pan over, zoom into and turn a photograph, and mp4 files of them. NumPy, OpenCV, PyAV.

The frames of a motion are those of its opposite in reverse order. They are coded one by one (no frame refers
to another) at a fixed quantiser, so that this holds bit for bit after decoding: with predicted frames or rate
control the quality of a frame would depend on its place, and tell the direction.
"""

import functools
import io

import numpy as np

from ctx_flax.data.patches import photograph
from ctx_flax.data.video import require_pyav

SCENES = ('astronaut', 'cat', 'coffee', 'motorcycle', 'temple')  # of ctx_flax.data.patches.PHOTOGRAPHS
MOTIONS = (
  'left',
  'right',
  'up',
  'down',
  'in',
  'out',
  'clockwise',
  'anticlockwise',
)  # opposites are neighbours
# 8 * an odd number: the middles of eight equal parts are the same set of frames read backwards.
FRAMES = 24
RATE = 12  # frames per second
SIDE = 64  # of a frame, pixels
# Pixels across that hold the detail of a frame: it is reduced to them and enlarged to SIDE again. What moves
# by several pixels between two sampled frames is learned faster if it is smooth. Divides SIDE.
CONTENT = 32
SHORT_SIDE = 420  # of the photograph, pixels
WINDOW = 110.0  # pixels of the photograph across a frame, at scale 1
MARGIN = 105.0  # of the window's centre from the photograph's edges
CELL = 48  # centres are to train and to test by turns, like fields of this size on a chessboard
CONTRAST = 25.0  # least standard deviation of the pixels in the middle window: nobody sees a plain sky move
ROTATE = 20.0  # degrees either way, of the whole video
SCALE = 0.15  # logarithm of the scale, either way, of the whole video
GAIN = (0.85, 1.15)  # of each channel
AMOUNT = (0.6, 1.0)  # share of the largest motion
PAN = 40.0  # pixels of the photograph from the middle of the video to its end
ZOOM = 0.45  # logarithm of the scale, from the middle to the end
TURN = 50.0  # degrees from the middle to the end
QP = 20  # H.264 quantiser


def settings() -> dict[str, object]:
  """Everything that the videos follow from, but for their seed and number."""
  values = {name: value for name, value in globals().items() if name.isupper()}
  return {name: list(value) if isinstance(value, tuple) else value for name, value in sorted(values.items())}


def render(scene: str, axis: int, rng: np.random.Generator, split: str) -> np.ndarray:
  """Frames of MOTIONS[2 * axis] over a photograph; reversed, they are those of MOTIONS[2 * axis + 1].

  Args:
    scene: of SCENES.
    axis: 0 to 3: across, up and down, zoom, turn.
    rng: draws place, angle, scale, colour and the amount of motion.
    split: 'train' or 'test'; their places differ.

  Returns:
    uint8 (FRAMES, SIDE, SIDE, 3) RGB.
  """
  image = _scene(scene)
  y, x = _centre(rng, image, split)
  angle, scale = rng.uniform(-ROTATE, ROTATE), np.exp(rng.uniform(-SCALE, SCALE))
  amount, gain = rng.uniform(*AMOUNT), rng.uniform(*GAIN, 3)
  frames = []
  for k in range(FRAMES):
    u = amount * (2 * k - (FRAMES - 1)) / (FRAMES - 1)
    # The window goes the other way than what is seen in it; y points down, so that angles turn clockwise.
    window = (
      (x + PAN * u, y, angle, scale),
      (x, y + PAN * u, angle, scale),
      (x, y, angle, scale * np.exp(ZOOM * u)),
      (x, y, angle - TURN * u, scale),
    )[axis]
    frames.append(_frame(image, window, gain))
  return np.stack(frames)


def encode(frames: np.ndarray) -> bytes:
  """An mp4 file of uint8 (n, h, w, 3) RGB.

  Raises:
    ImportError: PyAV is not installed.
  """
  require_pyav()
  import av

  content = io.BytesIO()
  with av.open(content, 'w', format='mp4') as container:
    options = {'qp': str(QP), 'g': '1', 'bf': '0', 'preset': 'veryfast'}
    stream = container.add_stream('libx264', rate=RATE, options=options)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = 'yuv420p'
    stream.codec_context.thread_count = 1
    for frame in frames:
      container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
    container.mux(stream.encode(None))
  return content.getvalue()


@functools.cache
def _scene(name: str) -> np.ndarray:
  import cv2

  image = photograph(name)
  h, w = image.shape[:2]
  factor = SHORT_SIDE / min(h, w)
  return cv2.resize(image, (round(w * factor), round(h * factor)), interpolation=cv2.INTER_AREA)


def _centre(rng: np.random.Generator, image: np.ndarray, split: str) -> tuple[float, float]:
  half = int(WINDOW / 2)
  while True:
    y, x = (rng.uniform(MARGIN, side - MARGIN) for side in image.shape[:2])
    if (y // CELL + x // CELL) % 2 != (split == 'test'):
      continue
    window = image[int(y) - half : int(y) + half, int(x) - half : int(x) + half]
    if window.mean(-1).std() >= CONTRAST:
      return y, x


def _frame(image: np.ndarray, window: tuple[float, float, float, float], gain: np.ndarray) -> np.ndarray:
  """What a window of a photograph shows: (centre x, centre y, degrees, scale) -> uint8 (SIDE, SIDE, 3)."""
  import cv2

  x, y, angle, scale = window
  # From the frame's pixels to the photograph's.
  step = WINDOW / SIDE / scale
  across, down = step * np.cos(np.radians(angle)), step * np.sin(np.radians(angle))
  middle = (SIDE - 1) / 2
  matrix = np.array(
    [
      [across, -down, x - (across - down) * middle],
      [down, across, y - (down + across) * middle],
    ]
  )
  flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
  frame = cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
  small = cv2.resize(frame, (CONTENT, CONTENT), interpolation=cv2.INTER_AREA)
  smooth = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
  return np.clip(smooth * gain, 0, 255).astype(np.uint8)
