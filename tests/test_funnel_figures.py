"""Figures of class funnels: how long their bars are, what is marked, and that any name can be read."""

import os

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from ctx_flax.analysis import figures, funnel_figures

PIXELS = np.zeros((8, 8, 3), np.uint8)
NAMES = tuple(f'class {i}' for i in range(10))
LONG = (
  'person-in-a-very-steamy-room',
  'W' * 40,
  '猫' * 30,
  os.fsdecode(b'caf\xe9\n\xff'),
  r'$\frac b$',
  '🐈‍⬛',
)


def prediction(counts=(1000, 500, 200, 10), names=NAMES, answer=(7, 2, 1, 1), true=(), decided=None):
  """What stages say that give their i-th best class 2**-i; ranks of the answer and of the true class."""
  steps = []
  for i, count in enumerate(counts):
    step = {'stage': 5 - len(counts) + i, 'considered': count, 'decided': decided or count}
    step['classes'] = [{'class': name, 'probability': 0.5**n} for n, name in enumerate(names[:5], 1)]
    step |= {'answer_rank': answer[i], 'answer_probability': 0.5 ** answer[i]}
    if true:
      step |= {'true_rank': true[i], 'true_probability': 0.5 ** true[i] if true[i] else 0.0}
      step['true_considered'] = bool(true[i]) and not (decided and i >= 2)
    steps.append(step)
  known = {'true': 'the truth'} if true else {}
  return {'image': 'a/photo.png', 'classes': steps[-1]['classes'], 'funnel': steps, **known}


def texts(figure):
  return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def bars(axes):
  """[(left, width, colour, hatch)] of the bars, from the top."""
  patches = [p for p in axes.patches if hasattr(p, 'get_width')]
  return [(p.get_x(), p.get_width(), p.get_facecolor(), p.get_hatch()) for p in patches]


def lines(said, stage, top=5):
  return [(line.name, line.note) for line in funnel_figures.lines_of(said, said['funnel'][stage - 1], top)]


def test_funnel():
  """As wide as the numbers of classes, in the middle, and never too narrow to be seen."""
  figure = funnel_figures.draw(prediction((1000, 500, 200, 3)), PIXELS)
  image, funnel, classes = figure.axes
  np.testing.assert_allclose([bar[1] for bar in bars(funnel)], [1, 0.5, 0.2, funnel_figures.LEAST])
  np.testing.assert_allclose([bar[0] + bar[1] / 2 for bar in bars(funnel)], 0, atol=1e-12)
  assert [t.get_text() for t in funnel.texts] == [
    'stage 1: all 1,000',
    'stage 2: 500',
    'stage 3: 200',
    'stage 4: 3',
  ]
  # Each in the middle of the classes of its stage: seven of the first, whose answer is not among the best.
  assert funnel.get_ylim() == classes.get_ylim()
  middles = [p.get_y() + p.get_height() / 2 for p in funnel.patches if hasattr(p, 'get_width')]
  assert middles == [
    2.5,
    6 + funnel_figures.GAP + 2,
    11 + 2 * funnel_figures.GAP + 2,
    16 + 3 * funnel_figures.GAP + 2,
  ]
  np.testing.assert_array_equal(image.images[0].get_array(), PIXELS)
  assert {
    'classes considered',
    'best classes and their probabilities',
    'photo.png',
    'answer, 50.0 %:',
  } <= set(texts(figure))


def test_probabilities():
  classes = funnel_figures.draw(prediction((40,), answer=(1,)), PIXELS).axes[-1]
  drawn = bars(classes)
  assert [bar[1] for bar in drawn[::2]] == [1] * 5  # what 100 % would be, behind each
  np.testing.assert_allclose([bar[1] for bar in drawn[1::2]], 0.5 ** np.arange(1, 6))
  assert {'50.0 %', '3.1 %', 'class 4', 'answer'} <= {t.get_text() for t in classes.texts}
  assert funnel_figures.percent(0.0004) == '<0.1 %' and funnel_figures.percent(0.0) == '0.0 %'


def test_what_is_marked():
  said = prediction(true=(9, 3, 8, 0))
  best = [(name, '') for name in NAMES[:5]]
  assert lines(said, 1) == [*best, ('class 0', 'answer, no. 7'), ('the truth', 'true class, no. 9')]
  assert lines(said, 2) == [best[0], ('class 1', 'answer'), ('class 2', 'true class'), *best[3:]]
  assert lines(said, 4, top=2) == [('class 0', 'answer'), best[1], ('the truth', '✗ true class: dropped')]
  assert lines(prediction(true=(4, 2, 1, 1)), 4)[0] == ('class 0', 'right answer')
  # In colours, and for greyscale by a hatch; a class that was dropped has no bar.
  drawn = bars(funnel_figures.draw(said, PIXELS).axes[-1])
  assert len(drawn) == 2 * (7 + 5 + 6 + 5)
  vermilion, green = (matplotlib_colour(c) for c in (funnel_figures.VERMILION, funnel_figures.GREEN))
  assert drawn[11][2] == vermilion and not drawn[11][3] and drawn[13][2] == green and drawn[13][3]
  right = bars(funnel_figures.draw(prediction(true=(7, 2, 1, 1)), PIXELS).axes[-1])
  assert right[-9][2] == green and not right[-9][3]


def matplotlib_colour(code):
  return (*(int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1)


@pytest.mark.parametrize(
  'true, expected',
  [
    ((), ['answer, 50.0 %:', 'class 0']),
    ((9, 3, 1, 1), ['right answer, 50.0 %:', 'class 0']),
    ((9, 3, 3, 3), ['wrong answer, 50.0 %:', 'class 0', 'true class:', 'the truth']),
    (
      (9, 3, 0, 0),
      ['wrong answer, 50.0 %:', 'class 0', 'true class:', 'the truth', 'dropped before stage 3'],
    ),
  ],
)
def test_verdict(true, expected):
  image = funnel_figures.draw(prediction(true=true), PIXELS).axes[0]
  assert [text.get_text() for text in image.texts] == ['photo.png', *expected]


def test_other_networks():
  """What reranks drops nothing, but leaves classes out of its contexts; a plain one has no funnel."""
  said = prediction(true=(9, 3, 2, 9), decided=1000)
  assert lines(said, 3)[1] == ('class 1', 'true class, left out')
  assert 'classes in the context' in texts(funnel_figures.draw(said, PIXELS))
  figure = funnel_figures.draw(prediction((1000,), answer=(1,)), PIXELS)
  assert not figure.axes[1].patches and not figure.axes[1].texts and 'classes considered' not in texts(figure)
  naive = funnel_figures.draw(prediction((20, 20, 20)), PIXELS).axes[1]
  assert [bar[1] for bar in bars(naive)] == [1] * 3 and naive.texts[2].get_text() == 'stage 4: all 20'


def test_several(monkeypatch):
  monkeypatch.setattr(funnel_figures, 'MOST', 3)
  figure = funnel_figures.draw_several([prediction()] * 4, [PIXELS] * 4)
  assert len(figure.axes) == 9 and 'The first 3 of 4 images' in texts(figure)
  tops = [axes.get_position().y1 for axes in figure.axes[::3]]
  bottoms = [axes.get_position().y0 for axes in figure.axes[1::3]]
  assert all(above > below for above, below in zip(bottoms, tops[1:], strict=False)) and bottoms[-1] > 0


def test_any_name_can_be_read(tmp_path, monkeypatch):
  """Names that are cut, are no mathematics, or have letters that the font lacks: none outside the figure."""
  monkeypatch.setattr(figures, 'DPI', 20)
  said = prediction(names=LONG, true=(1000, 999, 5, 0))
  said |= {'image': f'a/{LONG[3]}.png', 'true': LONG[2]}
  figure = funnel_figures.draw(said, PIXELS)
  png, svg = figures.save(figure, tmp_path / LONG[3].replace('\n', ''))
  assert png.stat().st_size and '猫猫' in svg.read_text(encoding='utf-8')
  shown = texts(figure)
  assert any(text.startswith('person-in-a-very') and text.endswith('…') for text in shown)
  assert r'\$\frac b\$' in shown and r'caf\xe9\n\xff' in shown
  said = prediction(names=(LONG[1], *NAMES), true=(10_000, 999, 5, 0))
  said['funnel'][3]['classes'][0]['probability'] = 1.0
  figure = funnel_figures.draw(said, PIXELS)
  FigureCanvasAgg(figure).draw()
  renderer = figure.canvas.get_renderer()
  boxes = [text.get_window_extent(renderer) for text in figure.findobj(Text) if text.get_text()]
  assert min(box.x0 for box in boxes) >= 0 and max(box.x1 for box in boxes) <= figure.bbox.width
  _, funnel, classes = figure.axes
  sure = next(text for text in classes.texts if text.get_text() == '100.0 %')
  assert sure.get_window_extent(renderer).x0 > classes.get_window_extent(renderer).x1  # beside its bar
  names = [text for text in classes.texts if text.get_text().startswith('WWW')]
  assert names[0].get_window_extent(renderer).x0 >= funnel.get_window_extent(renderer).x1


def test_wide_letters_take_two_places():
  assert figures.short('猫' * 11) == '猫' * 11 and figures.short('猫' * 12) == '猫' * 10 + '…'
  assert (
    figures.short('a' * 22) == 'a' * 22
    and figures.short('a' * 23) == 'a' * 21 + '…'
    and figures.short('') == ''
  )
