"""How figures look and are written: legible in greyscale and to the colour-blind, as PNG and SVG."""

import io
import json
import os
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ctx_flax.training import run_folder

# Okabe and Ito's colours, which the colour-blind tell apart (https://jfly.uni-koeln.de/color/); every series
# has a dash and a marker of its own besides, for greyscale.
COLOURS = ('#000000', '#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
DASHES = ('-', '--', '-.', ':', (0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (2, 2)))
MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X')
HEAT = 'inferno'  # its lightness rises evenly: the same order in greyscale
DPI = 150
# SVG's text stays text, to be searched and copied; the salt makes the same figure the same file.
SETTINGS: Any = {
  'font.size': 10,
  'axes.titlesize': 11,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'svg.fonttype': 'none',
  'svg.hashsalt': 'ctx_flax',
}


def new_figure(rows=1, columns=1, width=4.5, height=3.4, **keywords):
  """(figure, axes (rows, columns)) with `width` x `height` inches an axes, without any state of pyplot."""
  with matplotlib.rc_context(SETTINGS):
    figure = Figure(figsize=(width * columns, height * rows), layout='constrained')
    return figure, figure.subplots(rows, columns, squeeze=False, **keywords)


def series_style(number):
  """Keywords of plot for the series of that number: colour, dash and marker."""
  return {
    'color': COLOURS[number % len(COLOURS)],
    'linestyle': DASHES[number % len(DASHES)],
    'marker': MARKERS[number % len(MARKERS)],
    'markersize': 4,
  }


def show_image(axes, pixels, title=''):
  """Draws uint8 (h, w, 3) with its own pixels as units and no ticks."""
  axes.imshow(pixels, interpolation='nearest')
  axes.set_xticks([])
  axes.set_yticks([])
  axes.spines[:].set_visible(False)
  axes.set_title(title)


def save(figure, path):
  """Writes path.png and path.svg, each whole or not at all; `path` has no suffix. Returns both paths."""
  path.parent.mkdir(parents=True, exist_ok=True)
  written = []
  for kind in ('png', 'svg'):
    content = io.BytesIO()
    with matplotlib.rc_context(SETTINGS):
      figure.savefig(content, format=kind, dpi=DPI, metadata={'Date': None} if kind == 'svg' else None)
    target = path.with_name(f'{path.name}.{kind}')
    part = path.with_name(f'{path.name}.{kind}.part')
    part.write_bytes(content.getvalue())
    os.replace(part, target)
    written.append(target)
  return written


def save_json(values, path):
  """Writes nested dicts and lists, arrays among them, as JSON; numbers that are not finite become null."""
  run_folder.write_text(path, json.dumps(plain(values), indent=2, allow_nan=False) + '\n')


def plain(value):
  """Arrays as lists, scalars as numbers, what is not finite as None."""
  if isinstance(value, dict):
    return {str(name): plain(part) for name, part in value.items()}
  if isinstance(value, np.ndarray | list | tuple):
    return [plain(part) for part in value]
  if isinstance(value, np.generic):
    value = value.item()
  if isinstance(value, float) and not np.isfinite(value):
    return None
  return value
