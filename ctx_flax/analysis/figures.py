"""How figures look and are written: legible in greyscale and to the colour-blind, as PNG and SVG."""

import bisect
import itertools
import unicodedata
import warnings
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from ctx_flax import files

# Okabe and Ito's colours, which the colour-blind tell apart (https://jfly.uni-koeln.de/color/); every series
# has a dash and a marker of its own besides, for greyscale.
COLOURS = ('#000000', '#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
DASHES = ('-', '--', '-.', ':', (0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (2, 2)))
MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X')
HEAT = 'inferno'  # its lightness rises evenly: the same order in greyscale
DPI = 150
LONGEST = 22  # letters of a class name in a caption
LONGEST_TITLE = 42  # of a run's title
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
  written = [path.with_name(f'{path.name}.{kind}') for kind in ('png', 'svg')]
  for kind, target in zip(('png', 'svg'), written, strict=True):
    with files.replacing(target) as part, matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
      # A letter that the font lacks is a box in a PNG; an SVG has the letter itself.
      warnings.filterwarnings('ignore', 'Glyph .* missing from font', UserWarning)
      figure.savefig(part, format=kind, dpi=DPI, metadata={'Date': None} if kind == 'svg' else None)
  return written


def short(name, longest=LONGEST):
  """A class or file name for a caption: on one line, cut if it is long, and no mathematics.

  Wide letters, such as those of Chinese and Japanese, count as two.
  """
  name = files.printable(name)
  ends = list(itertools.accumulate(2 if unicodedata.east_asian_width(c) in 'WF' else 1 for c in name))
  if ends and ends[-1] > longest:
    name = name[: bisect.bisect(ends, longest - 1)] + '…'
  return name.replace('$', r'\$')


def run_title(title):
  """The title of a run for a figure: cut in the middle, as its end says which step it is."""
  title = files.printable(title)
  if len(title) > LONGEST_TITLE:
    title = f'{title[: LONGEST_TITLE // 2]}…{title[1 - LONGEST_TITLE // 2 :]}'
  return title.replace('$', r'\$')
