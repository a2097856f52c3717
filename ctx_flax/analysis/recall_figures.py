"""The figure of ctx_flax.analysis.recall_curves."""

import numpy as np

from ctx_flax.analysis import figures

READINGS = {
  'all': 'relative to all classes: recall at $N_i$',
  'kept': 'relative to the classes kept before stage i',
}


def draw(found, target, title, naive=True):
  """A Figure with a panel per reading: recall in % against N_i, the chosen N_i marked."""
  figure, axes = figures.new_figure(1, 2, width=5.2, height=4.2)
  for panel, (reading, meaning) in zip(axes[0], READINGS.items(), strict=True):
    for number, stage in enumerate(found['recall'][reading]):
      curve = 100 * np.asarray(found['recall'][reading][stage])
      count = found['counts'][reading][number]
      style = figures.series_style(number)
      panel.plot(
        np.arange(1, len(curve) + 1), curve, **style | {'marker': ''}, label=f'stage {stage}: N = {count}'
      )
      panel.plot([count], [curve[count - 1]], **style | {'markersize': 8, 'linestyle': ''})
    panel.axhline(100 * target, color='0.6', linewidth=0.8)
    panel.set_title(meaning)
    panel.set_xlabel('$N_i$, classes kept for stage i')
    panel.set_ylabel('relative recall of the true class (%)')
    panel.set_ylim(0, 101)
    panel.set_xlim(left=0)
    panel.legend(title=f'smallest N at {100 * target:.6g} %', loc='lower right', frameon=False)
  title = figures.run_title(title)
  what = title if naive else f'{title} (not naive: it was trained with fewer classes)'
  figure.suptitle(what)
  return figure
