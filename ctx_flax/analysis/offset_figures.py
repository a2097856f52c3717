"""The figures of ctx_flax.analysis.offsets."""

from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from ctx_flax.analysis import figures
from ctx_flax.analysis.figures import short

COLUMNS = 4  # of images
AREA = 80  # of a point of the largest weight, square points of print
SIZES = 0.25, 0.5, 1.0  # of the largest weight, in the legend
ON_ANY = [withStroke(linewidth=2, foreground='black')]  # white that is seen on a white image too
GRID: Any = {'marker': 's', 'markersize': 3.5, 'markerfacecolor': 'none', 'color': 'white', 'linestyle': ''}
CENTRE: Any = {'marker': 'x', 'markersize': 9, 'markeredgewidth': 2, 'color': 'white', 'linestyle': ''}
BEHIND = '0.35'  # grey, what is not image


def points(images, sampling, position, class_names, mask_gain):
  """A Figure of each image with the points that a kernel samples at a position, as large as their weights.

  The view holds the image, the regular grid and what is sampled up to one image side further out; how many
  taps look beyond that is said.

  Args:
    images: Images.
    sampling: a Sampling of these images.
    position: (u, v) of the kernel in the output grid.
    class_names: by number.
    mask_gain: the largest weight there can be.
  """
  columns = min(COLUMNS, len(images))
  rows = -(-len(images) // columns)
  figure, axes = figures.new_figure(rows, columns, width=3.3 if columns > 1 else 4.6, height=3.9)
  for panel in axes.flat[len(images) :]:
    panel.set_axis_off()
  side = images.pixels.shape[1]
  y, x = position
  base = sampling.regular[y, x]
  low, high = view(base, sampling.points[:, y, x], side)
  dots = None
  for i, panel in zip(range(len(images)), axes.flat, strict=False):
    at, weights = sampling.points[i, y, x], sampling.mask[i, y, x]
    figures.show_image(panel, images.pixels[i])
    panel.spines[:].set_visible(True)
    panel.set_facecolor(BEHIND)
    panel.add_patch(Rectangle((-0.5, -0.5), side, side, fill=False, edgecolor='white', path_effects=ON_ANY))
    for start, end in zip(base, at, strict=True):
      panel.plot(
        [start[1], end[1]], [start[0], end[0]], color='white', linewidth=0.9, zorder=2, path_effects=ON_ANY
      )
    panel.plot(base[:, 1], base[:, 0], **GRID, zorder=3, path_effects=ON_ANY)
    dots = panel.scatter(
      at[:, 1],
      at[:, 0],
      s=AREA * weights / mask_gain,
      c=weights,
      cmap=figures.HEAT,
      vmin=0,
      vmax=mask_gain,
      edgecolors='white',
      linewidths=0.7,
      zorder=4,
    )
    centre = base.mean(0)
    panel.plot(centre[1], centre[0], **CENTRE, zorder=5, path_effects=ON_ANY)
    panel.set_xlim(low, high)
    panel.set_ylim(high, low)
    length = np.linalg.norm(at - base, axis=-1).mean()
    lines = [
      f'{_name(images, i, class_names)}, block {sampling.block}',
      f'mean |offset| {length / sampling.scale:.2f} feature px = {length:.1f} image px',
    ]
    beyond = int(((at < low) | (at > high)).any(1).sum())
    panel.set_title('\n'.join(lines + [f'{beyond} taps look further out'] * (beyond > 0)), fontsize=8)
  bar = figure.colorbar(dots, ax=axes, shrink=0.8, pad=0.01)
  bar.set_label('mask weight (also the area)')
  figure.legend(
    handles=_marks(mask_gain),
    loc='outside lower center',
    ncols=5 if columns > 1 else 3,
    fontsize=8,
    facecolor=BEHIND,
    framealpha=1,
  )
  for text in figure.legends[0].get_texts():
    text.set_color('white')
  figure.suptitle(f'Block {sampling.block}: where its {len(base)} taps sample')
  return figure


def view(base, sampled, side):
  """(low, high) of a square view in image pixels: all of the grid, and points up to a side beyond it."""
  grid_low, grid_high = min(-0.5, base.min()), max(side - 0.5, base.max())
  low = max(min(grid_low, sampled.min()), grid_low - side)
  high = min(max(grid_high, sampled.max()), grid_high + side)
  margin = 0.03 * (high - low)  # so that no disc is cut
  return float(low - margin), float(high + margin)


def _marks(mask_gain):
  """What the legend of `points` explains."""
  disc: Any = {'marker': 'o', 'linestyle': '', 'color': '0.8', 'markeredgecolor': 'white'}
  marks = [
    Line2D([], [], **disc, markersize=(AREA * share) ** 0.5, label=f'weight {share * mask_gain:g}')
    for share in SIZES
  ]
  marks.append(Line2D([], [], **GRID, label='regular grid'))
  marks.append(Line2D([], [], **CENTRE, label='the position'))
  return marks


def fields(images, found, blocks, samplings, class_names):
  """A Figure with a row per image and a column per stage: the mean offset of each position as an arrow
  whose middle is there.

  A map of one position has an arrow of a fixed length, with its true length beside it.

  Args:
    images: Images.
    found: {stage: (b, u, v, 2)} in image pixels.
    blocks: {stage: name of the block}.
    samplings: {block: Sampling}.
    class_names: by number.
  """
  m = len(images)
  figure, axes = figures.new_figure(m, len(found), width=3.1, height=3.3)
  for j, (stage, field) in enumerate(found.items()):
    centres = samplings[blocks[stage]].regular.mean(2)
    single = centres.shape[:2] == (1, 1)
    lengths = np.linalg.norm(field, axis=-1)
    largest = float(lengths.max())
    spacing = images.pixels.shape[1] / max(centres.shape[:2])
    # Arrows of the true length are hard to see or run into one another: the longest gets most of a cell.
    factor = 0.9 * spacing / largest if largest > 0 else 1.0
    if single:
      field, factor = field / np.maximum(lengths, 1e-12)[..., None], spacing / 3
      note = 'one position: the direction alone'
    elif largest > 0:
      note = f'longest {largest:.2g} px, drawn at {factor:.3g} x true scale'
    else:
      note = 'no offsets'
    for i in range(m):
      panel = axes[i, j]
      figures.show_image(panel, images.pixels[i])
      arrows = panel.quiver(
        centres[..., 1],
        centres[..., 0],
        field[i, ..., 1],
        field[i, ..., 0],
        pivot='middle',  # with the tail there, arrows would leave the image
        angles='xy',
        scale_units='xy',
        scale=1 / factor,
        color='white',
        edgecolor='black',
        linewidth=0.5,
        width=0.012,
        zorder=3,
      )
      panel.set_xlabel(' ')  # room for the key below
      if single:
        panel.set_xlabel(f'length {lengths[i].item():.2g} image px', fontsize=9)
      elif largest > 0:
        length = round_length(largest)
        panel.quiverkey(arrows, 0.4, -0.05, length, f'{length:g} image px', labelpos='E')
      if i == 0:
        panel.set_title(f'stage {stage}, first contextual block {blocks[stage]}\n{note}', fontsize=9)
      if j == 0:
        panel.set_ylabel(_name(images, i, class_names), fontsize=9)
  figure.suptitle('Mean offset of the taps, weighted by the mask, in image pixels')
  return figure


def round_length(largest):
  """The largest of 1, 2 and 5 times a power of ten that is no longer: the length of a key arrow."""
  power = 10.0 ** np.floor(np.log10(largest))
  return float(max(step * power for step in (1, 2, 5) if step * power <= largest * (1 + 1e-9)))


def _name(images, i, class_names):
  return short(class_names[images.labels[i]] if images.labels[i] >= 0 else images.names[i])
