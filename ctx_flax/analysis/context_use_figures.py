"""The figure of ctx_flax.analysis.context_use."""

import numpy as np

from ctx_flax.analysis import figures

# What the rows of tables and figures are called; * marks those that use the labels.
LABELS = {
  'own': 'its own',
  'other_image': "another image's",
  'all_classes': 'of all classes',
  'confused': 'true + confused *',
  'random': 'true + random *',
  'no_kernel_delta': 'no kernel delta',
  'no_offsets': 'no offsets',
  'half_mask': 'constant mask',
}
CARRIED = 5  # rows of contexts, above the rows without an adaptation
# Change -> (name with unit, factor, least half width of the panel, so that rounding does not fill it).
PANELS = {'accuracy_change': ('accuracy (points)', 100, 0.1), 'loss_change': ('loss (nats)', 1, 1e-3)}


def draw(rows, title):
  """A Figure of the changes from an image's own context by stage, with intervals.

  Args:
    rows: what `context_use.numbers_of` returned.
    title: of the run.
  """
  names = list(LABELS)[1:]
  figure, axes = figures.new_figure(1, 2, width=5.4, height=5, sharey=True)
  for panel, (kind, (label, factor, least)) in zip(axes[0], PANELS.items(), strict=True):
    stages = sorted(rows['own'][kind])[1:]  # the first one has no context
    for number, stage in enumerate(stages):
      style = figures.series_style(stage - 1) | {'linestyle': '', 'markersize': 6}
      step = 0.8 / len(stages)
      here = [(place, rows[name][kind][stage]) for place, name in enumerate(names) if rows[name]]
      value, low, high = (np.array([factor * e[x] for _, e in here]) for x in ('value', 'low', 'high'))
      places = [-place - step * (number - (len(stages) - 1) / 2) for place, _ in here]
      ends = np.stack([value - low, high - value]).clip(0)
      panel.errorbar(value, places, xerr=ends, **style, capsize=3, label=f'stage {stage}')
    left, right = panel.get_xlim()
    panel.set_xlim(min(left, -least), max(right, least))
    panel.axvline(0, color='0.4', linewidth=0.8)
    panel.axhline(1.5 - CARRIED, color='0.7', linewidth=0.8, linestyle=':')
    for place, name in enumerate(names):
      if not rows[name]:
        panel.text(0, -place, ' not in this network', va='center', fontsize=8, color='0.4')
    panel.set_xlabel(f'change of {label}')
    panel.set_ylim(0.6 - len(names), 0.6)
  axes[0, 0].set_yticks(-np.arange(len(names)), [LABELS[name] for name in names])
  axes[0, 1].legend(frameon=False, fontsize='small', loc='best')
  marked = any(rows[name] for name in ('confused', 'random'))
  below = '\n*: an oracle, in place of an upper bound: it uses the true class' if marked else ''
  figure.suptitle(
    f"Other contexts than an image's own, or without a part that reads it: 95 % intervals{below}\n"
    f'{figures.run_title(title)}',
    fontsize=10,
  )
  return figure
