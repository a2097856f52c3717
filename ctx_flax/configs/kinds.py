"""The kinds of values that a field of a config may have.

Each has `problem(value)`: '' for a legal value, or how an error message goes on after the field's name. What
depends on several fields, or on the network and the data, is checked where it is used.
"""

import dataclasses
import math
import re
from typing import Any, Protocol

from ctx_flax.nearest import nearest

LONGEST = 10_000  # values of a tuple
SHOWN = 80  # characters of a tuple in a message


class Rule(Protocol):
  """Which values a field may have."""

  def problem(self, value: Any) -> str: ...


@dataclasses.dataclass(frozen=True)
class Flag:
  """True or False."""

  def problem(self, value: Any) -> str:
    return '' if isinstance(value, bool) else f'must be True or False, but is {value!r}'


@dataclasses.dataclass(frozen=True)
class Text:
  """A string that must match `pattern` wholly, if there is one; `text` says what it must be."""

  pattern: str = ''
  text: str = ''

  def problem(self, value: Any) -> str:
    if not isinstance(value, str):
      return f'must be a text, but is {value!r}'
    if self.pattern and not re.fullmatch(self.pattern, value):
      return f'is {value!r}: it must be {self.text}'
    return ''


@dataclasses.dataclass(frozen=True)
class Choice:
  """One of a few names; a misspelt one is answered with the nearest."""

  names: tuple[str, ...]

  def problem(self, value: Any) -> str:
    if value in self.names:
      return ''
    return f'is {value!r}: it must be one of {", ".join(self.names)}{nearest(value, self.names)}'


@dataclasses.dataclass(frozen=True)
class Whole:
  """A whole number between `low` and `high`; `text` says more about the range than the two numbers do."""

  low: int
  high: int = 2**31 - 1
  text: str = ''

  def problem(self, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int):
      return f'must be a whole number, but is {value!r}'
    return _out_of_range(value, value >= self.low, value <= self.high, self)


@dataclasses.dataclass(frozen=True)
class Number:
  """A finite number between `low` and `high`.

  Attributes:
    low, high: the ends of the range.
    above, below: leave that end out of the range.
    text: says more about the range than the two numbers do.
  """

  low: float
  high: float = math.inf
  above: bool = False
  below: bool = False
  text: str = ''

  def problem(self, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
      return f'must be a number, but is {value!r}'
    if not math.isfinite(value):
      return f'must be a finite number, but is {value!r}'
    enough = value > self.low if self.above else value >= self.low
    not_too_much = value < self.high if self.below else value <= self.high
    return _out_of_range(value, enough, not_too_much, self)


@dataclasses.dataclass(frozen=True)
class Scalar:
  """A text, True or False, or a finite number; or a tuple of them, where `tuples` says so."""

  tuples: bool = False

  def problem(self, value: Any) -> str:
    if self.tuples and isinstance(value, tuple | list):
      return Tuple(Scalar()).problem(value)
    if isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
      return ''
    return f'must be a text, True or False or a finite number, but is {value!r}'


@dataclasses.dataclass(frozen=True)
class Regex:
  """A regular expression."""

  def problem(self, value: Any) -> str:
    try:
      re.compile(value)
    except (re.error, TypeError) as error:
      return f'holds {value!r}, which is no regular expression: {error}'
    return ''


@dataclasses.dataclass(frozen=True)
class Tuple:
  """A tuple (or a list, which JSON makes of it) of values that each keep a rule.

  Attributes:
    element: the rule of every value; or several rules, one for each position.
    text: how the message goes on after the field's name; '' = as the rule of the value says.
    lengths: those that it may have; () = any up to LONGEST.
    ascending: no value may be below the one before it.
  """

  element: Rule | tuple[Rule, ...]
  text: str = ''
  lengths: tuple[int, ...] = ()
  ascending: bool = False

  def problem(self, value: Any) -> str:
    wrong = self._wrong(value)
    if wrong and self.text:
      shown = repr(value)
      return f'{self.text}, but is {shown if len(shown) <= SHOWN else shown[:SHOWN] + "..."}'
    return wrong

  def _wrong(self, value):
    if not isinstance(value, tuple | list):
      return f'must be a tuple, but is {value!r}'
    if len(value) > LONGEST or (self.lengths and len(value) not in self.lengths):
      return f'must not hold {len(value)} values'
    rules = self.element if isinstance(self.element, tuple) else (self.element,) * len(value)
    if len(rules) != len(value):
      return f'must hold {len(rules)} values, but is {value!r}'
    for rule, element in zip(rules, value, strict=True):
      if problem := rule.problem(element):
        return problem
    if self.ascending and list(value) != sorted(value):
      return f'must ascend, but is {value!r}'
    return ''


def _out_of_range(value, enough, not_too_much, rule):
  if enough and not_too_much:
    return ''
  if rule.text:
    return f'must be {rule.text}, but is {value!r}'
  if not enough:
    low = f'above {rule.low:g}' if getattr(rule, 'above', False) else f'{rule.low:g} or more'
    return f'must be {low}, but is {value!r}'
  return f'must be {"below" if getattr(rule, "below", False) else "at most"} {rule.high}, but is {value!r}'
