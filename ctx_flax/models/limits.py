"""What the numbers among a network's attributes may be."""

import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Limit:
  """What a number may be.

  Attributes:
    kind: int or float, which integers are too.
    test: whether a number is allowed; NaN must not be.
    words: the test in words, 'at least 1'.
  """

  kind: type
  test: Callable[[float], bool]
  words: str

  def allows(self, value: Any) -> bool:
    """Whether a value is a number of this kind that passes the test."""
    return is_number(value, self.kind) and self.test(value)

  def check(self, name: str, value: object) -> None:
    """ValueError that names the value and what it may be, unless it is allowed."""
    if not self.allows(value):
      noun = '' if is_number(value, self.kind) else 'an integer, ' if self.kind is int else 'a number, '
      raise ValueError(f'{name}={value!r}: expected {noun}{self.words}')


def at_least(low: int) -> Limit:
  """The limit of an integer."""
  return Limit(int, lambda value: value >= low, f'at least {low}')


ABOVE_0 = Limit(float, lambda value: 0 < value < math.inf, 'above 0')
FROM_0 = Limit(float, lambda value: 0 <= value < math.inf, 'at least 0')
FRACTION = Limit(float, lambda value: 0 <= value < 1, 'at least 0 and below 1')


def is_number(value: object, kind: type) -> bool:
  """Whether a value is an integer (kind int) or any real number (float), of Python's or NumPy's."""
  known = numbers.Integral if kind is int else numbers.Real
  return isinstance(value, known) and not isinstance(value, bool)
