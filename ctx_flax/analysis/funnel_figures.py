"""Figures of class funnels: how many classes each stage considers, and the best of them."""

import itertools
import pathlib
import warnings
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from matplotlib.textpath import text_to_path

from ctx_flax.analysis import figures
from ctx_flax.analysis.figures import short

TOP = 5  # best classes of a stage in the figure of one image
TOP_OF_SEVERAL = 3
MOST = 12  # images in a figure
# Inches. Text of 9 points has 12 pixels where the figure is 800 wide.
WIDTH, SIZE = 8.0, 9
MARGIN, IMAGE, CAPTION = 0.05, 1.45, 1.7  # of the figure; sides of the image; width of the text below it
FUNNEL = 1.8, 1.4  # left end and width
NAMES = 1.5  # width
BARS = 4.85, 1.08  # left end, and width of a bar of 100 %
PERCENT, NOTE = 0.56, 0.64  # right end of the probability and left end of the note, from the end of the bars
LINE = 0.18  # height of a class
HEADING, BETWEEN = 0.3, 0.3  # above the first image, and between two
GAP = 1.2  # between the classes of two stages, in lines
BAR = 0.8  # height of a bar of the funnel, in lines
LEAST = 0.012  # its least width, as a share of the widest: one that can still be seen
BLUE, VERMILION, GREEN = figures.COLOURS[1:4]
LIGHT_BLUE, TRACK, GREY, DARK_GREY = '#D9EAF4', '#EEEEEE', '#AAAAAA', '#444444'
ANSWER, TRUE = 'answer', 'true class'
COLOURS = {(): GREY, (ANSWER,): VERMILION, (TRUE,): GREEN, (ANSWER, TRUE): GREEN}


class Line(NamedTuple):
  """A class in the list of a stage."""

  name: str
  probability: float
  roles: tuple[str, ...]  # of ANSWER and TRUE
  rank: int  # among those between which the stage decides, from 1; 0 if it was dropped
  note: str


def draw(prediction: dict[str, Any], pixels: Any, top: int = TOP) -> Figure:
  """A Figure of the class funnel of an image.

  The image at the left; the funnel, a bar for each stage, as wide as the number of classes that it considers;
  at the right the best classes of each stage with their probabilities. The network's answer and the true
  class, if that is known, are marked, and listed even if they are not among the best.

  Args:
    prediction: what `funnel.describe` returns, or a line of the JSON that --mode=predict writes.
    pixels: the image, uint8 (h, w, 3).
    top: how many of the best classes of each stage; no more than the prediction holds are shown.
  """
  return draw_several([prediction], [pixels], top)


def draw_several(predictions: Any, pixels: Any, top: int = TOP_OF_SEVERAL) -> Figure:
  """A Figure of the class funnels of several images, one below the other; of many the first ones.

  Args:
    predictions, pixels, top: see `draw`; a prediction and an image each.
  """
  shown = list(predictions)[:MOST]
  lists = [[lines_of(prediction, step, top) for step in prediction['funnel']] for prediction in shown]
  selects = any(len(stages) > 1 for stages in lists)
  heights = [_height(stages, prediction) for stages, prediction in zip(lists, shown, strict=True)]
  heading = HEADING * (1 + (len(shown) < len(predictions)))
  total = heading + sum(heights) + BETWEEN * len(shown)
  figure, axes = figures.new_figure(len(shown), 3, width=WIDTH / 3, height=total / len(shown))
  figure.set_layout_engine('none')  # the places are known, and the same for all images

  def place(panel, left, top, width, height):
    panel.set_position((left / WIDTH, (total - top - height) / total, width / WIDTH, height / total))

  # A plain network selects nothing: without the funnel the classes move to its place.
  bars = BARS[0] if selects else BARS[0] - FUNNEL[1]
  y = heading
  for row, prediction, image, stages, height in zip(axes, shown, pixels, lists, heights, strict=False):
    place(row[0], MARGIN, y, IMAGE, IMAGE)
    _draw_image(row[0], prediction, image)
    place(row[1], FUNNEL[0], y, FUNNEL[1], height)
    place(row[2], bars, y, BARS[1], height)
    for panel in row[1:]:
      panel.set_axis_off()
      panel.set_ylim(height / LINE - GAP, -GAP)  # a line is a unit
    if selects:
      _draw_funnel(row[1], prediction['funnel'], stages)
    _draw_classes(row[2], stages, 'true' in prediction)
    if y > heading:
      ends, above = (MARGIN / WIDTH, 1 - MARGIN / WIDTH), 1 - (y - BETWEEN / 2) / total
      figure.add_artist(Line2D(ends, (above, above), color=GREY, linewidth=0.6))
    y += height + BETWEEN
  reranks = any(step['decided'] > step['considered'] for p in shown for step in p['funnel'])
  middle = 1 - (heading - 0.1) / total
  if selects:
    text = 'classes in the context' if reranks else 'classes considered'
    figure.text(
      (FUNNEL[0] + FUNNEL[1] / 2) / WIDTH, middle, text, ha='center', va='bottom', fontsize=SIZE + 1
    )
  text = 'best classes and their probabilities'
  figure.text((bars - NAMES / 2) / WIDTH, middle, text, va='bottom', fontsize=SIZE + 1)
  if len(shown) < len(predictions):
    text = f'The first {len(shown)} of {len(predictions):,} images'
    figure.text(MARGIN / WIDTH, 1 - 0.08 / total, text, va='top', fontsize=SIZE + 1)
  return figure


def lines_of(prediction: dict[str, Any], step: dict[str, Any], top: int) -> list[Line]:
  """The classes that are listed for a stage: its best ones, then the answer and the true class if missing."""
  best = step['classes'][:top]
  listed = {rank: (c['class'], c['probability']) for rank, c in enumerate(best, 1)}
  roles: dict[int, tuple[str, ...]] = {}
  # By rank: several classes may have the same name.
  followed = {ANSWER: prediction['classes'][0]['class']}
  if 'true' in prediction:
    followed[TRUE] = prediction['true']
  for role, name in followed.items():
    which = 'true' if role == TRUE else 'answer'
    rank = step[f'{which}_rank']
    listed.setdefault(rank, (name, step[f'{which}_probability']))
    roles[rank] = (*roles.get(rank, ()), role)
  lines = []
  for rank in sorted(listed, key=lambda rank: rank or float('inf')):
    of_class = roles.get(rank, ())
    words = ['right answer'] if len(of_class) > 1 else list(of_class)
    if TRUE in of_class and rank and not step['true_considered']:
      words.append('left out')
    elif rank > len(best):
      words.append(f'no. {rank:,}')
    lines.append(Line(*listed[rank], of_class, rank, ', '.join(words) if rank else f'✗ {TRUE}: dropped'))
  return lines


def _height(stages: list[list[Line]], prediction: dict[str, Any]) -> float:
  """Inches that an image's row takes: its lists of classes, or the image with its text."""
  lists = LINE * (sum(len(lines) + GAP for lines in stages) - 0.5)
  return max(lists, IMAGE + LINE * (1.5 + len(_verdict(prediction))))


def _draw_image(panel: Axes, prediction: dict[str, Any], pixels: Any) -> None:
  """The image, and below it its name, the answer, and the true class if that is another one."""
  figures.show_image(panel, pixels)
  panel.set_anchor('NW')
  name = pathlib.PurePath(str(next(iter(prediction.values())))).name
  for number, (text, bold) in enumerate([(name, False), *_verdict(prediction)]):
    panel.annotate(
      fitted(text, CAPTION, bold),
      (0, 0),
      (0, -4 - 72 * LINE * number),
      xycoords='axes fraction',
      textcoords='offset points',
      va='top',
      fontsize=SIZE,
      fontweight='bold' if bold else 'normal',
      color='black' if bold else DARK_GREY,
    )


def _verdict(prediction: dict[str, Any]) -> list[tuple[str, bool]]:
  """What the network answers, and what is right: lines of text and whether they are bold."""
  answer, last = prediction['classes'][0], prediction['funnel'][-1]
  verdict, wrong = '', False
  if 'true' in prediction:
    wrong = last['true_rank'] != last['answer_rank']
    verdict = 'wrong ' if wrong else 'right '
  lines = [(f'{verdict}answer, {percent(answer["probability"])}:', False), (answer['class'], True)]
  if wrong:
    lines += [('true class:', False), (prediction['true'], True)]
    dropped = [step['stage'] for step in prediction['funnel'] if not step['true_rank']]
    if dropped:
      lines.append((f'dropped before stage {dropped[0]}', False))
  return lines


def _draw_funnel(panel: Axes, steps: list[dict[str, Any]], stages: list[list[Line]]) -> None:
  """A bar for each stage in the middle of its classes, and what narrows from one to the next."""
  most = max(step['considered'] for step in steps)
  widths = [max(step['considered'] / most, LEAST) for step in steps]
  places = [first + (len(lines) - 1) / 2 for first, lines in zip(_firsts(stages), stages, strict=True)]
  for (y, width), (next_y, next_width) in itertools.pairwise(zip(places, widths, strict=True)):
    corners = [(-width / 2, y), (width / 2, y), (next_width / 2, next_y), (-next_width / 2, next_y)]
    panel.add_patch(Polygon(corners, color=LIGHT_BLUE, linewidth=0, zorder=1))
  panel.barh(places, widths, BAR, left=[-width / 2 for width in widths], color=BLUE, zorder=2)
  for step, y in zip(steps, places, strict=True):
    count = f'{"all " if step["considered"] == most else ""}{step["considered"]:,}'
    text = f'stage {step["stage"]}: {count}'
    panel.text(0, y - BAR / 2 - 0.1, text, ha='center', va='bottom', fontsize=SIZE, zorder=3)
  panel.set_xlim(-0.5, 0.5)


def _draw_classes(panel: Axes, stages: list[list[Line]], known: bool) -> None:
  """The classes of each stage, a bar as long as its probability for each; `known`: the true class is."""
  for first, lines in zip(_firsts(stages), stages, strict=True):
    for y, line in enumerate(lines, 0):
      write = lambda x, text, y=first + y, **how: panel.text(
        x, y, text, va='center_baseline', fontsize=SIZE, **how
      )
      bold = bool(line.roles)
      write(-0.05, fitted(line.name, NAMES, bold), ha='right', fontweight='bold' if bold else 'normal')
      write(1 + NOTE / BARS[1] if line.rank else 0, line.note)
      if not line.rank:
        continue
      write(1 + PERCENT / BARS[1], percent(line.probability), ha='right')
      panel.barh(first + y, 1, 0.75, color=TRACK)
      colour = COLOURS[line.roles] if known or not line.roles else BLUE
      hatch = '//////' if line.roles == (TRUE,) else ''
      panel.barh(first + y, line.probability, 0.75, color=colour, hatch=hatch, edgecolor='white', linewidth=0)
  panel.set_xlim(0, 1)


def _firsts(stages: list[list[Line]]) -> list[float]:
  """Where the list of each stage begins, in lines from the top."""
  return list(itertools.accumulate((len(lines) + GAP for lines in stages[:-1]), initial=0.0))


def fitted(name: str, width: float, bold: bool = False) -> str:
  """A name for a text of the figure, cut to what fits into so many inches."""
  font = FontProperties(size=SIZE, weight='bold' if bold else 'normal')
  longest = figures.LONGEST + 8
  with warnings.catch_warnings():
    warnings.filterwarnings('ignore', 'Glyph .* missing from font', UserWarning)
    while longest > 2:
      text = short(name, longest)
      measured, _, _ = text_to_path.get_text_width_height_descent(text.replace(r'\$', '$'), font, False)
      if measured <= 72 * width:
        break
      longest -= 1
  return text


def percent(probability: float) -> str:
  """'78.1 %'."""
  return '<0.1 %' if 0 < probability < 0.0005 else f'{100 * probability:.1f} %'
