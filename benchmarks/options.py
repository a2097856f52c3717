"""Options that several programs have."""

import argparse
import re


def pattern(text: str) -> re.Pattern[str]:
  """The regular expression of an option; argparse tells of one that is none."""
  try:
    return re.compile(text)
  except re.error as error:
    raise argparse.ArgumentTypeError(f'{text!r} is no regular expression: {error}') from error
