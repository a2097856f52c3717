"""The figures of ctx_flax.analysis.grad_cam."""

import pathlib

import numpy as np

from ctx_flax.analysis import class_activation, faithfulness, figures
from ctx_flax.analysis.figures import short

OPACITY = 0.75  # of the highest value
SIDE = 2.3  # of a picture, inches
FRAME = 0.6  # of a frame of a clip, as a share of it
COLUMNS = 6  # of maps in a line
LINES = 36  # of pictures in a figure
NAMES = {'grad_cam': 'Grad-CAM', 'hirescam': 'HiResCAM', 'grad_cam++': 'Grad-CAM++'}
FIRST = {'true': 'the true class', 'predicted': 'the predicted class', 'given': 'the first class given'}


def overlays(images, found, class_names, method):
  """A Figure with a row per image: the image, then each network's map of each class over it.

  A clip is a line of its frames, and each map a line below it. Of many images the first ones are drawn; of
  many maps of an image each network's begin a new line.

  Args:
    images: Images.
    found: what `grad_cam.write` returns of them.
    class_names: by number.
    method: of class_activation.METHODS.
  """
  networks, side = list(found['maps']), images.pixels.shape[1]
  m, k = found['classes'].shape
  clips = images.frames.ndim == 5
  lines = arranged(networks, k)
  if clips:
    lines = [[], *([one] for line in lines for one in line)]
  shown = min(m, max(1, LINES // len(lines)))
  first = 0 if clips else 1  # column of maps
  rows, columns = shown * len(lines), first + max(map(len, lines))
  width = SIDE * FRAME * images.frames.shape[1] if clips else SIDE
  height = SIDE * FRAME if clips else SIDE
  figure, axes = figures.new_figure(rows, columns, width=width, height=height + 0.7)
  for panel in axes.flat:
    panel.set_axis_off()
  heat = None
  for i in range(shown):
    maps = {
      network: class_activation.upsample(
        class_activation.normalised(found['maps'][network][i]),
        side,
        found['strides'][network],
        found['centres'][network],
      )
      for network in networks
    }
    panel = axes[i * len(lines), 0]
    panel.set_axis_on()
    picture = side_by_side(images.frames[i]) if clips else images.frames[i]
    figures.show_image(panel, picture)
    panel.set_title(caption(images, found, class_names, i), fontsize=9)
    for row, line in enumerate(lines, i * len(lines)):
      for panel, (network, c) in zip(axes[row, first:], line, strict=False):
        panel.set_axis_on()
        figures.show_image(panel, picture)
        name = class_names[found['classes'][i, c]]
        words = short(network), short(name), chance(found, network, i, c)
        panel.set_title((', ' if clips else '\n').join(words), fontsize=9)
        state = found['states'][network][i][c]
        if state:
          panel.set_xlabel(f'map is {state}', fontsize=9)
          continue
        a_map = side_by_side(maps[network][c]) if clips else maps[network][c]
        heat = panel.imshow(
          a_map, cmap=figures.HEAT, vmin=0, vmax=1, alpha=OPACITY * np.sqrt(a_map), interpolation='nearest'
        )
  if heat is not None:
    bar = figure.colorbar(heat, ax=axes, shrink=min(1.0, 2 / rows), pad=0.01)
    bar.solids.set_alpha(1)
    bar.set_label("share of the map's highest value")
  stages = found['stages']
  where = f'stage {stages[networks[0]]}'
  if len(set(stages.values())) > 1:
    where = ', '.join(f'stage {stage} of {short(network)}' for network, stage in stages.items())
  figure.suptitle(
    f'{NAMES[method]} at {where}: class and its probability'
    + (f'; the first {shown} of {m:,} images' if shown < m else '')
  )
  return figure


def side_by_side(frames):
  """The frames of a clip (t, h, w, ...) as one picture (h, t * w, ...)."""
  t, h, w, *rest = frames.shape
  return np.moveaxis(frames, 0, 1).reshape(h, t * w, *rest)


def arranged(networks, k):
  """The maps of an image in lines of at most COLUMNS: lists of (network, place of the class among k)."""
  if len(networks) * k <= COLUMNS:
    return [[(network, c) for network in networks for c in range(k)]]
  return [
    [(network, c) for c in range(start, min(start + COLUMNS, k))]
    for network in networks
    for start in range(0, k, COLUMNS)
  ]


def caption(images, found, class_names, i):
  """What an image is; where that is not known its file, and what it was taken for if that is explained."""
  if images.labels[i] >= 0:
    return f'is {short(class_names[images.labels[i]])}'
  predicted = found['roles'][0] == 'predicted'
  answer = f'\npredicted\n{short(class_names[found["classes"][i, 0]])}' if predicted else ''
  return short(pathlib.Path(images.names[i]).name) + answer


def chance(found, network, i, c):
  """'93 %', or before which stage the class was dropped."""
  dropped = found['dropped'][network][i, c]
  return (
    f'dropped before stage {dropped}' if dropped else f'{100 * found["probabilities"][network][i, c]:.0f} %'
  )


def curves(found):
  """A Figure of the deletion and insertion curves, the mean over the images, of each network."""
  figure, axes = figures.new_figure(1, 2, width=5, height=4.4)
  for panel, kind in zip(axes[0], faithfulness.KINDS, strict=True):
    for number, (network, all_of) in enumerate(found['curves'].items()):
      for what, dash in (('map', '-'), ('random', ':')):
        curve = 100 * np.mean([one[kind][what] for one in all_of], axis=0)
        mean = found['mean_areas'][network][kind][what]
        label = f'{short(network)}, {"by the map" if what == "map" else "random order"}: area {mean:.3f}'
        style = figures.series_style(number) | {'linestyle': dash, 'markevery': max(len(curve) // 8, 1)}
        panel.plot(np.linspace(0, 100, len(curve)), curve, **style, label=label)
    verb = 'removed' if kind == 'deletion' else 'restored'
    panel.set_title(f'{kind}: {"lower" if kind == "deletion" else "higher"} is better')
    panel.set_xlabel(f'pixels {verb}, most salient first (%)')
    panel.set_ylabel('probability of the class (%)')
    panel.set_ylim(bottom=0)
    # Below: the curves of different networks leave no corner free.
    panel.legend(frameon=False, fontsize='small', loc='upper center', bbox_to_anchor=(0.5, -0.16))
  images = len(next(iter(found['curves'].values())))
  figure.suptitle(f'Mean of {images} image{"s" if images > 1 else ""}: {FIRST[found["roles"][0]]}')
  return figure
