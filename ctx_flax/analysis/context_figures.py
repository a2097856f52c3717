"""Maps of contexts and kernel deltas by their principal components, a point an image, coloured by class."""

import numpy as np

from ctx_flax.analysis import figures
from ctx_flax.analysis.figures import short

TOLD_APART = len(figures.MARKERS)  # classes that have a colour and a mark of their own


def contexts(found, labels, class_names):
  """A Figure of the contexts of stages 2, 3, 4, a point an image.

  Args:
    found: {stage: {'coordinates' (m, 2), 'shares' (2,), 'same_considered'}}.
    labels: int (m,).
    class_names: by number.
  """
  vary = any(one['shares'].any() for one in found.values())
  figure, axes = figures.new_figure(1, len(found), width=3.9, height=4.2 if vary else 1.6)
  for panel, (stage, one) in zip(axes[0], found.items(), strict=True):
    _scatter(panel, one, labels, class_names)
    panel.set_title(f'context of stage {stage}')
  _legend(figure)
  figure.suptitle(f'Contexts of {len(labels)} test images, principal components')
  return figure


def kernel_deltas(found, labels, class_names, block):
  """A Figure of the kernel deltas of a block, beside them how far apart they are within and between classes.

  Args:
    found: {'coordinates' (m, 2), 'shares' (2,)} and what `principal_components.distances_by_class` returned.
    labels: int (m,).
    class_names: by number.
    block: 'stage.block'.
  """
  figure, axes = figures.new_figure(1, 2, width=5, height=4.8, gridspec_kw={'width_ratios': [5, 3]})
  panel, beside = axes[0]
  _scatter(panel, found, labels, class_names)
  panel.set_title('a point an image')
  _legend(figure)
  if found['shares'].any():
    rows = {'any': 'all_images', 'of one class': 'same_class', 'of two classes': 'other_class'}
    rows = {name: found[key] for name, key in rows.items() if not np.isnan(found[key])}
    bars = beside.bar(list(rows), list(rows.values()), color=figures.COLOURS[6], edgecolor='black')
    beside.bar_label(bars, fmt='%.3g')
    beside.margins(y=0.1)
    beside.set_xlabel('two images')
    beside.set_ylabel('mean distance')
    beside.set_title(correlation_in_words(found), fontsize=9)
  else:
    beside.set_axis_off()
  figure.suptitle(f'Kernel deltas of block {block}, {len(labels)} test images, principal components')
  return figure


def distances_in_words(found):
  """What `principal_components.distances_by_class` returned, as a sentence."""
  if not found['shares'].any():
    return 'the same for all images'
  parts = {
    'all_images': 'between all images',
    'same_class': 'within a class',
    'other_class': 'between classes',
  }
  known = [f'{found[key]:.3g} {text}' for key, text in parts.items() if not np.isnan(found[key])]
  return f'mean distance {", ".join(known)}; {correlation_in_words(found, " ")}'


def correlation_in_words(found, end='\n'):
  """How distances follow the considered classes, or why that cannot be said; `end` is between its halves."""
  if found['same_considered']:
    return f'all images consider{end}the same classes'
  if np.isnan(found['correlation']):
    return f'too little varies for a correlation{end}with shared classes'
  return f'correlation of distance and{end}shared classes (Jaccard index) {found["correlation"]:.2f}'


def shown_classes(labels):
  """The classes that get a colour: those with most images, equal ones by number."""
  images = np.bincount(labels)
  order = np.argsort(-images, kind='stable')[:TOLD_APART]
  return [int(c) for c in order if images[c]]


def _scatter(panel, one, labels, class_names):
  if not one['shares'].any():
    why = ',\nwhich consider the same classes' if one['same_considered'] else ''
    panel.text(0.5, 0.5, f'the same for all images{why}', ha='center', va='center', transform=panel.transAxes)
    panel.set_axis_off()
    return
  at, shares = one['coordinates'], 100 * one['shares']
  shown = shown_classes(labels)
  rest = ~np.isin(labels, shown)
  if rest.any():
    others = len(np.unique(labels[rest]))
    panel.scatter(
      *at[rest].T, s=8, c='0.8', label='another class' if others == 1 else f'{others} other classes'
    )
  for number, c in enumerate(shown):
    style = {'color': figures.COLOURS[number], 'marker': figures.MARKERS[number]}
    panel.scatter(
      *at[labels == c].T, s=26, edgecolors='white', linewidths=0.4, **style, label=short(class_names[c])
    )
  panel.set_xlabel(f'first component ({shares[0]:.0f} % of the variance)')
  panel.set_ylabel(f'second component ({shares[1]:.0f} %)')


def _legend(figure):
  handles, names = next(
    (found for axes in figure.axes if (found := axes.get_legend_handles_labels())[1]), ([], [])
  )
  if names:
    figure.legend(handles, names, loc='outside lower center', ncols=4, frameon=False, fontsize='small')
