"""The figures of ctx_flax.analysis.grad_cam."""

import numpy as np

from ctx_flax.analysis import class_activation, faithfulness, figures
from ctx_flax.analysis.failure_figures import short

OPACITY = 0.75  # of the highest value
SIDE = 2.3  # of a picture, inches


def overlays(images, found, class_names, stages, method):
  """A Figure with a row per image: the image, then each network's map of each class over it.

  Args:
    images: Images.
    found: what `grad_cam.write` returns of them.
    class_names: by number.
    stages: {network: stage of its maps}.
    method: of class_activation.METHODS.
  """
  networks, side = list(found['maps']), images.pixels.shape[1]
  m, k = found['classes'].shape
  figure, axes = figures.new_figure(m, 1 + k * len(networks), width=SIDE, height=SIDE + 0.55)
  heat = None
  for i in range(m):
    known = images.labels[i] >= 0
    truth = f'is {short(class_names[images.labels[i]])}' if known else short(images.names[i])
    figures.show_image(axes[i, 0], images.pixels[i], truth)
    for j, network in enumerate(networks):
      maps = class_activation.upsample(class_activation.normalised(found['maps'][network][i]), side)
      for c in range(k):
        panel = axes[i, 1 + j * k + c]
        state = found['states'][network][i][c]
        name = short(class_names[found['classes'][i, c]])
        heading = f'{network}\n' if i == 0 and c == 0 else '\n' if i == 0 else ''
        figures.show_image(panel, images.pixels[i])
        panel.set_title(heading + f'{name}: {chance(found, network, i, c)}', fontsize=9)
        if state:
          panel.set_xlabel(f'map is {state}', fontsize=9)
        else:
          heat = panel.imshow(
            maps[c],
            cmap=figures.HEAT,
            vmin=0,
            vmax=1,
            alpha=OPACITY * np.sqrt(maps[c]),
            interpolation='nearest',
          )
  if heat is not None:
    bar = figure.colorbar(heat, ax=axes, shrink=min(1.0, 2 / m), pad=0.01)
    bar.solids.set_alpha(1)
    bar.set_label('of the highest value of the map')
  where = ', '.join(f'stage {s}' for s in sorted(set(stages.values())))
  figure.suptitle(f'{method} at {where}: class and its probability')
  return figure


def chance(found, network, i, c):
  """'93 %', or at which stage the class was dropped."""
  dropped = found['dropped'][network][i, c]
  probability = found['probabilities'][network][i, c]
  return f'out at stage {dropped}' if dropped and not probability else f'{100 * probability:.0f} %'


def curves(found):
  """A Figure of the deletion and insertion curves, the mean over the images, of each network."""
  figure, axes = figures.new_figure(1, 2, width=5, height=3.8)
  for panel, kind in zip(axes[0], faithfulness.KINDS, strict=True):
    for number, (network, all_of) in enumerate(found['curves'].items()):
      for what, dash in (('map', '-'), ('random', ':')):
        curve = 100 * np.mean([one[kind][what] for one in all_of], axis=0)
        mean = np.mean(found['areas'][network][kind][what])
        label = f'{network}, {"by the map" if what == "map" else "random order"}: area {mean:.3f}'
        style = figures.series_style(number) | {'linestyle': dash, 'markevery': max(len(curve) // 8, 1)}
        panel.plot(np.linspace(0, 100, len(curve)), curve, **style, label=label)
    verb = 'removed' if kind == 'deletion' else 'restored'
    panel.set_title(f'{kind}: {"lower" if kind == "deletion" else "higher"} is better')
    panel.set_xlabel(f'pixels {verb}, most salient first (%)')
    panel.set_ylabel('probability of the class (%)')
    panel.set_ylim(bottom=0)
    panel.legend(frameon=False, fontsize='small')
  images = len(next(iter(found['curves'].values())))
  figure.suptitle(f'Mean of {images} image{"s" if images > 1 else ""}, first class of each')
  return figure
