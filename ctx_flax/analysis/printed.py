"""Tables that analyses print."""

import rich.table
import rich.text

from ctx_flax.files import printable
from ctx_flax.terminal import console

SHOWN = 10  # rows
LONGEST = 22  # letters of an image's name


def print_table(title, columns, rows, texts=()):
  """Prints the first SHOWN rows of texts; what is too long for the screen ends in an ellipsis.

  Args:
    title: of the table.
    columns: their names.
    rows: a text for each column; without any, nothing is printed.
    texts: the columns that hold no numbers, by name.
  """
  if not rows:
    return
  table = rich.table.Table(title=title)
  for column in columns:
    named = column in texts
    table.add_column(column, justify='left' if named else 'right', no_wrap=not named)
  for row in rows[:SHOWN]:
    table.add_row(*(rich.text.Text(printable(text), no_wrap=True, overflow='ellipsis') for text in row))
  console().print(table)


def end_of(name):
  """The end of a path, which tells images apart."""
  name = printable(name)
  return name if len(name) <= LONGEST else '…' + name[1 - LONGEST :]
