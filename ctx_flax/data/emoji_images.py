"""Images of emoji: SVG pictures drawn as PNG files of 96 and 48 pixels, in several processes."""

import concurrent.futures.process
import contextlib
import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from ctx_flax.data.emoji_icons import Icon

# Drawn twice as large: the filters of fluent-emoji leave jagged edges, which means of 2x2 pixels smooth.
DRAWN = 192
SIZES = (96, 48)  # each half of the one before

DrawAll = Callable[[Iterable[Icon]], Iterator[dict[int, bytes] | str]]


def draw(icon: Icon) -> dict[int, bytes]:
  """A picture as PNG files, by their size: RGBA with straight alpha.

  Raises:
    ValueError: it is no SVG, or shows nothing.
    ImportError: resvg-py is not installed.
  """
  resvg_py = require_resvg()
  # Without the fonts of the system the pixels depend on the picture alone; no picture has text.
  drawn = resvg_py.svg_to_bytes(svg_string=icon.svg(DRAWN), skip_system_fonts=True)
  pixels = np.asarray(Image.open(io.BytesIO(drawn)).convert('RGBA'))
  if not pixels[..., 3].any():
    raise ValueError('it shows nothing')
  images = {}
  for size in SIZES:
    pixels = halved(pixels)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, 'PNG', optimize=True)
    images[size] = content.getvalue()
  return images


def halved(pixels: np.ndarray) -> np.ndarray:
  """Means of 2x2 pixels: (h, w, 4) -> (h/2, w/2, 4), uint8 with straight alpha.

  Colours are weighted by alpha: those of transparent pixels would darken the edges.
  """
  h, w, _ = pixels.shape
  blocks = pixels.reshape(h // 2, 2, w // 2, 2, 4).astype(np.int64)
  weight = blocks[..., 3:]
  total = weight.sum(axis=(1, 3))
  alpha = (total + 2) // 4
  colour = (2 * (blocks[..., :3] * weight).sum(axis=(1, 3)) + total) // np.maximum(2 * total, 1)  # rounded
  return np.concatenate([np.where(alpha, colour, 0), alpha], axis=-1).astype(np.uint8)


@contextlib.contextmanager
def drawing(processes: int) -> Iterator[DrawAll]:
  """Yields a function that draws pictures in so many processes and gives, in order, images or error messages.

  Processes instead of threads, because resvg-py holds Python's lock while it draws.

  Raises:
    OSError: a process was killed.
  """
  if processes == 1:
    yield lambda icons: map(_draw_or_say, icons)
    return
  executor = concurrent.futures.ProcessPoolExecutor(
    processes, multiprocessing.get_context('spawn'), _follow_parent
  )
  try:
    yield lambda icons: executor.map(_draw_or_say, icons, chunksize=8)
  except concurrent.futures.process.BrokenProcessPool as error:
    raise OSError('a process was killed, perhaps for want of memory: try fewer --processes') from error
  finally:
    executor.shutdown(cancel_futures=True)


def require_resvg() -> Any:
  """The module resvg_py.

  Raises:
    ImportError: it is not installed; says how to get it.
  """
  try:
    import resvg_py
  except ImportError as error:
    raise ImportError(
      f'drawing the pictures needs resvg-py, which cannot be imported ({error}): pip install resvg-py'
    ) from None
  return resvg_py


def _draw_or_say(icon: Icon) -> dict[int, bytes] | str:
  try:
    return draw(icon)
  except ValueError as error:
    return str(error)


def _follow_parent() -> None:
  """Ends this process when its parent ends, even if that is killed, and ignores Ctrl-C until then."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  threading.Thread(target=_exit_after, args=[multiprocessing.parent_process()], daemon=True).start()


def _exit_after(parent: Any) -> None:
  parent.join()
  os._exit(1)
