"""The nearest known name, for error messages."""

import difflib
from collections.abc import Iterable


def nearest(name: object, names: Iterable[str]) -> str:
  """Returns '; did you mean ...?' with the most similar of `names`, or '' if none is similar."""
  close = difflib.get_close_matches(str(name), list(names), n=1)
  return f'; did you mean {close[0]!r}?' if close else ''
