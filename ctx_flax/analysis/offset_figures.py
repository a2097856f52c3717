"""The figures of ctx_flax.analysis.offsets."""

import numpy as np

from ctx_flax.analysis import figures
from ctx_flax.analysis.failure_figures import short

COLUMNS = 4  # of images
AREA = 60  # of a point of the largest weight, square points of print
TOLD_APART = len(figures.MARKERS)  # classes that have a colour and a mark of their own


def points(images, sampling, position, class_names, mask_gain):
  """A Figure of each image with the points that a kernel samples at a position, as large as their weights.

  Args:
    images: Images.
    sampling: a Sampling of these images.
    position: (u, v) of the kernel in the output grid.
    class_names: by number.
    mask_gain: the largest weight there can be.
  """
  columns = min(COLUMNS, len(images))
  rows = -(-len(images) // columns)
  figure, axes = figures.new_figure(rows, columns, width=3.2, height=4.0)
  for panel in axes.flat[len(images) :]:
    panel.set_axis_off()
  side = images.pixels.shape[1]
  y, x = position
  base = sampling.regular[y, x]
  everything = sampling.points[:, y, x].reshape(-1, 2)
  low = min(-0.5, everything.min() - 1, base.min() - 1)
  high = max(side - 0.5, everything.max() + 1, base.max() + 1)
  dots = None
  for i, panel in zip(range(len(images)), axes.flat, strict=False):
    at, weights = sampling.points[i, y, x], sampling.mask[i, y, x]
    figures.show_image(panel, images.pixels[i])
    panel.spines[:].set_visible(True)
    for start, end in zip(base, at, strict=True):
      panel.plot([start[1], end[1]], [start[0], end[0]], color='white', linewidth=0.8, zorder=2)
    panel.plot(base[:, 1], base[:, 0], linestyle='', marker='+', color='white', markersize=4, zorder=2)
    dots = panel.scatter(
      at[:, 1],
      at[:, 0],
      s=AREA * weights / mask_gain,
      c=weights,
      cmap=figures.HEAT,
      vmin=0,
      vmax=mask_gain,
      edgecolors='white',
      linewidths=0.6,
      zorder=3,
    )
    centre = base.mean(0)
    panel.plot(centre[1], centre[0], marker='x', color='white', markersize=9, markeredgewidth=2, zorder=4)
    panel.set_xlim(low, high)
    panel.set_ylim(high, low)
    panel.set_facecolor('0.35')
    length = np.linalg.norm(at - base, axis=-1).mean()
    panel.set_title(
      f'{_name(images, i, class_names)}\nmean offset {length:.1f} image px, '
      f'{length / sampling.scale:.2f} of the map',
      fontsize=9,
    )
  bar = figure.colorbar(dots, ax=axes, shrink=0.8, pad=0.01)
  bar.set_label('mask weight (also the area)')
  figure.suptitle(f'Block {sampling.block}: + regular grid, discs where it samples, x its centre')
  return figure


def fields(images, found, blocks, samplings, class_names):
  """A Figure with a row per image and a column per stage: the mean offset of each position as an arrow.

  Args:
    images: Images.
    found: {stage: (b, u, v, 2)} in image pixels.
    blocks: {stage: name of the block}.
    samplings: {block: Sampling}.
    class_names: by number.
  """
  m = len(images)
  figure, axes = figures.new_figure(m, len(found), width=3.1, height=3.2)
  for j, (stage, field) in enumerate(found.items()):
    centres = samplings[blocks[stage]].regular.mean(2)
    spacing = centres[1, 0, 0] - centres[0, 0, 0] if len(centres) > 1 else images.pixels.shape[1]
    largest = np.linalg.norm(field, axis=-1).max()
    # Arrows of the true length are hard to see or run into one another: the longest gets most of a cell.
    scale = largest / (0.9 * spacing) if largest > 0 else 1.0
    for i in range(m):
      panel = axes[i, j]
      figures.show_image(panel, images.pixels[i])
      arrows = panel.quiver(
        centres[..., 1],
        centres[..., 0],
        field[i, ..., 1],
        field[i, ..., 0],
        angles='xy',
        scale_units='xy',
        scale=scale,
        color='white',
        edgecolor='black',
        linewidth=0.5,
        width=0.012,
        zorder=3,
      )
      if i == 0:
        drawn = f'longest {largest:.2g} px, drawn {1 / scale:.3g} times as long'
        panel.set_title(f'stage {stage}, block {blocks[stage]}\n{drawn}', fontsize=9)
      if j == 0:
        panel.set_ylabel(_name(images, i, class_names), fontsize=9)
      arrows.set_label('mean offset')
  figure.suptitle('Mean offset of the taps, weighted by the mask, in image pixels')
  return figure


def contexts(found, labels, class_names):
  """A Figure of the contexts of stages 2, 3, 4: {stage: {'coordinates', 'shares'}}, a point an image."""
  figure, axes = figures.new_figure(1, len(found), width=3.9, height=4.2)
  for panel, (stage, one) in zip(axes[0], found.items(), strict=True):
    _scatter(panel, one, labels, class_names)
    panel.set_title(f'context of stage {stage}')
  _legend(figure, axes[0, 0], labels)
  figure.suptitle(f'Contexts of {len(labels)} test images, principal components')
  return figure


def kernel_deltas(found, labels, class_names, block):
  """A Figure of the kernel deltas of a block, and in words how they follow the classes."""
  figure, axes = figures.new_figure(width=6, height=4.8)
  panel = axes[0, 0]
  _scatter(panel, found, labels, class_names)
  panel.set_title(distances_in_words(found).replace('; ', '\n'), fontsize=9)
  _legend(figure, panel, labels)
  figure.suptitle(f'Kernel deltas of block {block}, {len(labels)} test images, principal components')
  return figure


def distances_in_words(found):
  """What `principal_components.distances_by_class` returned, as a sentence."""
  if not found['shares'].any():
    return 'the same for all images'
  text = f'mean distance {found["same_class"]:.3g} within a class, {found["other_class"]:.3g} between classes'
  if np.isnan(found['correlation']):
    return text + '; all images consider the same classes'
  return text + f'; correlation of distance and shared classes {found["correlation"]:.2f}'


def shown_classes(labels):
  """The classes that get a colour: those with most images, equal ones by number."""
  images = np.bincount(labels)
  order = np.argsort(-images, kind='stable')[:TOLD_APART]
  return [int(c) for c in order if images[c]]


def _scatter(panel, one, labels, class_names):
  if not one['shares'].any():
    panel.text(0.5, 0.5, 'the same for all images', ha='center', va='center', transform=panel.transAxes)
    panel.set_xticks([])
    panel.set_yticks([])
    return
  at, shares = one['coordinates'], 100 * one['shares']
  shown = shown_classes(labels)
  rest = ~np.isin(labels, shown)
  if rest.any():
    panel.scatter(*at[rest].T, s=8, c='0.8', label='other classes')
  for number, c in enumerate(shown):
    style = {'color': figures.COLOURS[number], 'marker': figures.MARKERS[number]}
    panel.scatter(
      *at[labels == c].T, s=26, edgecolors='white', linewidths=0.4, **style, label=short(class_names[c])
    )
  panel.set_xlabel(f'first component ({shares[0]:.0f} % of the variance)')
  panel.set_ylabel(f'second component ({shares[1]:.0f} %)')


def _legend(figure, panel, labels):
  handles, names = next(
    (found for axes in figure.axes if (found := axes.get_legend_handles_labels())[1]), ([], [])
  )
  if names:
    figure.legend(handles, names, loc='outside lower center', ncols=4, frameon=False, fontsize='small')


def _name(images, i, class_names):
  return short(class_names[images.labels[i]] if images.labels[i] >= 0 else images.names[i])
