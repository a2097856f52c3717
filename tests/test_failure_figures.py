"""The figures of failures: what is in them, and that all of it can be read."""

import itertools

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from ctx_flax.analysis import failure_figures, figures

TABLE = {
  'predicted': ['$', 'a very long name of a class indeed'],
  'true': ['_', r'$\frac b$'],
  'probability': [0.954, 0.6],
  'true_probability': [0.0, 0.3],
  'dropped_at_stage': [3, '-'],
}
PAIRS = [
  {'true': 0, 'predicted': 1, 'images': 4, 'share': 0.5},
  {'true': 1, 'predicted': 0, 'images': 3, 'share': 1},
]


def drawn_texts(figure):
  """[(text, whether all of it lies within the figure)] of what is really drawn."""
  canvas = FigureCanvasAgg(figure)  # a Figure's own canvas draws nothing
  canvas.draw()
  ticks = {label for axes in figure.axes for label in axes.get_xticklabels() + axes.get_yticklabels()}
  texts = [t for t in figure.findobj(Text) if t.get_text() and t.get_visible() and t not in ticks]
  boxes = [t.get_window_extent(canvas.get_renderer()) for t in texts]
  width, height = figure.bbox.size
  inside = [min(b.x0, b.y0) > -1 and b.x1 < width + 1 and b.y1 < height + 1 for b in boxes]
  return [(t.get_text(), fits) for t, fits in zip(texts, inside, strict=True)]


def test_gallery():
  pixels = np.zeros((2, 8, 8, 3), np.uint8)
  figure = failure_figures.gallery(pixels, TABLE, 'a run')
  first, second = (axes.get_title() for axes in figure.axes)
  assert first == 'true _ (0 %)\npredicted \\$ (95 %)\ndropped at stage 3'
  assert second.endswith('\npredicted a very long name of… (60 %)\nnot dropped')
  assert [axes.images[0].get_interpolation() for axes in figure.axes] == ['nearest'] * 2
  assert all(fits for _, fits in drawn_texts(figure))  # and a dollar is no mathematics
  plain = failure_figures.gallery(pixels, TABLE, 'a run', contextual=False)
  assert 'drop' not in plain.axes[0].get_title()  # a plain network drops nothing


def test_captions_do_not_touch():
  table = {name: ['motorcycle and its wheel'] * 7 for name in ('true', 'predicted')}
  table |= {name: [1.0] * 7 for name in ('probability', 'true_probability')}
  table['dropped_at_stage'] = [2] * 7
  figure = failure_figures.gallery(np.zeros((7, 8, 8, 3), np.uint8), table, 'a run')
  assert all(fits for _, fits in drawn_texts(figure))
  renderer = figure.canvas.get_renderer()
  boxes = [axes.title.get_window_extent(renderer) for axes in figure.axes[:6]]
  assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
  assert len(figure.axes) == 12 and sum(axes.axison for axes in figure.axes) == 7


def test_confusion_bars():
  (axes,) = failure_figures.confusion_bars(PAIRS, ['cat', 'dog'], 'a run').axes
  assert [bar.get_width() for bar in axes.patches] == [4, 3] and 'test images' in axes.get_xlabel()
  assert [text.get_text() for text in axes.get_yticklabels()] == ['cat  →  dog', 'dog  →  cat']
  assert [text.get_text() for text in axes.texts] == ['4 (50 %)', '3 (100 %)']
  assert axes.patches[0].get_y() > axes.patches[1].get_y()


def test_confusion_bars_fit_long_names():
  names = ['motorcycle 252,336 left', r'motorcycle $\frac b$ left']
  pairs = [pair | {'images': 4000} for pair in PAIRS]
  texts = drawn_texts(failure_figures.confusion_bars(pairs, names, 'patches-reduction-warmup, step 600'))
  assert any('step 600' in text for text, _ in texts) and all(fits for _, fits in texts)


def test_stage_bars():
  stages = {'accuracy': {1: 0.25, 2: 0.5}, 'recall': {2: 0.75}}
  (axes,) = failure_figures.stage_bars(stages, 'a run').axes
  assert [bar.get_height() for bar in axes.patches] == [25, 50, 75] and '%' in axes.get_ylabel()
  (axes,) = failure_figures.stage_bars({'accuracy': {4: 0.5}, 'recall': {}}, 'a run').axes
  assert [bar.get_height() for bar in axes.patches] == [50]
  low, high = axes.get_xlim()
  assert high - low > 1  # one bar alone does not fill the figure


def test_titles_of_runs():
  assert figures.run_title('a$b, step 1') == r'a\$b, step 1'
  long = figures.run_title('r' * 60 + ', step 600')
  assert len(long) <= figures.LONGEST_TITLE and long.endswith(', step 600') and '…' in long


def test_no_mistakes_are_said():
  empty = {name: [] for name in TABLE}
  gallery = failure_figures.gallery(np.zeros((0, 8, 8, 3), np.uint8), empty, 'a run')
  assert ('no mistakes', True) in drawn_texts(gallery)
  for counted in ('images', 'objects'):
    bars = failure_figures.confusion_bars([], ['cat'], 'a run', counted)
    assert (f'no confused {counted}', True) in drawn_texts(bars)


def test_confused_objects():
  pairs = [{'true': 0, 'predicted': 1, 'objects': 4000, 'share': 0.5}]
  (axes,) = failure_figures.confusion_bars(pairs, ['cat', 'dog'], 'a run', 'objects').axes
  assert [text.get_text() for text in axes.texts] == ['4,000 (50 %)'] and 'objects' in axes.get_xlabel()
