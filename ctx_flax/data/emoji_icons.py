"""Pictures in Iconify's JSON: SVG bodies by name, and aliases that may mirror and turn them.

The format: https://iconify.design/docs/types/iconify-json.html
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

SIZE = 16  # width and height of pictures that state none
NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


@dataclasses.dataclass(frozen=True)
class Icon:
  """A picture: SVG elements, the visible rectangle of them, and how that is flipped and turned.

  Attributes:
    body: SVG elements.
    left, top, width, height: the rectangle, in units of the body.
    mirrored, upside_down: flipped from left to right, and from top to bottom.
    quarters: quarter turns clockwise, after the flips.
  """

  body: str
  left: float
  top: float
  width: float
  height: float
  mirrored: bool = False
  upside_down: bool = False
  quarters: int = 0

  def svg(self, size: int) -> str:
    """An SVG document, `size` pixels wide and high, with the rectangle in its centre, not distorted."""
    body = self.body
    width, height = (self.height, self.width) if self.quarters % 2 else (self.width, self.height)
    box = f'{self.left:g} {self.top:g} {self.width:g} {self.height:g}'
    if self.mirrored or self.upside_down or self.quarters:
      # About the centre of the rectangle, applied from right to left; the visible part then starts at (0, 0).
      steps = (
        f'translate({width / 2:g} {height / 2:g})',
        f'rotate({90 * self.quarters})',
        f'scale({-1 if self.mirrored else 1} {-1 if self.upside_down else 1})',
        f'translate({-self.left - self.width / 2:g} {-self.top - self.height / 2:g})',
      )
      body = f'<g transform="{" ".join(steps)}">{body}</g>'
      box = f'0 0 {width:g} {height:g}'
    return f'<svg {NAMESPACES} width="{size}" height="{size}" viewBox="{box}">{body}</svg>'


class Icons(Mapping[str, Icon]):
  """The pictures of an icons.json, its aliases among them.

  Args:
    content: the file's JSON.

  Raises:
    ValueError: it is something else.
  """

  def __init__(self, content: Any) -> None:
    self._icons = _objects(content, 'icons')
    self._aliases = _objects(content, 'aliases') if 'aliases' in content else {}
    self._defaults = {key: content[key] for key in ('left', 'top', 'width', 'height') if key in content}
    # A name that is both is the picture, as for Iconify.
    self._names = tuple({**self._icons, **self._aliases})

  def __len__(self) -> int:
    return len(self._names)

  def __contains__(self, name: object) -> bool:
    return name in self._icons or name in self._aliases

  def __iter__(self) -> Iterator[str]:
    return iter(self._names)

  def __getitem__(self, name: str) -> Icon:
    """The picture of a name.

    Raises:
      KeyError: the name is not known.
      ValueError: its entry is broken.
    """
    entry, turns = self._resolve(name)
    shape = {'left': 0, 'top': 0, 'width': SIZE, 'height': SIZE} | self._defaults | entry
    sides = {key: shape[key] for key in ('left', 'top', 'width', 'height')}
    if not all(isinstance(side, int | float) for side in sides.values()):
      raise ValueError(f'{name!r} has sides that are no numbers: {sides}')
    if min(sides['width'], sides['height']) <= 0:
      raise ValueError(f'{name!r} is {sides["width"]} x {sides["height"]} units large')
    if not isinstance(entry.get('body'), str):
      raise ValueError(f'{name!r} has no body')
    return Icon(
      body=entry['body'],
      **sides,
      mirrored=turns['hFlip'] % 2 == 1,
      upside_down=turns['vFlip'] % 2 == 1,
      quarters=turns['rotate'] % 4,
    )

  def _resolve(self, name: str) -> tuple[dict[str, Any], dict[str, int]]:
    """The entry that a name leads to, with the changes of its aliases; and the turns of all, added up."""
    if name not in self:
      raise KeyError(name)
    names = [name]
    while names[-1] not in self._icons:
      names.append(str(self._aliases[names[-1]].get('parent', '')))
      if names[-1] in names[:-1] or names[-1] not in self:
        raise ValueError(f'the alias {name!r} leads to no picture: {" -> ".join(names)}')
    entry: dict[str, Any] = {}
    turns = {'hFlip': 0, 'vFlip': 0, 'rotate': 0}
    for link in (self._icons[names[-1]], *(self._aliases[alias] for alias in reversed(names[:-1]))):
      entry |= link
      for key in turns:
        if not isinstance(link.get(key, 0), int):
          raise ValueError(f'{name!r} has a {key} of {link[key]!r}')
        turns[key] += link.get(key, 0)
    return entry, turns


def _objects(content: Any, key: str) -> dict[str, dict[str, Any]]:
  entries = content.get(key) if isinstance(content, dict) else None
  if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
    raise ValueError(f'holds no {key!r} by name')
  return entries
