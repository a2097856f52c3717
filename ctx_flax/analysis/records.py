"""What analyses write beside their figures: numbers as JSON, tables as CSV; each whole or not at all."""

import csv
import io
import json

import numpy as np

from ctx_flax import files


def save_json(values, path):
  """Writes nested dicts and lists, arrays among them, as JSON; numbers that are not finite become null."""
  files.write_text(path, json.dumps(plain(values), indent=2, allow_nan=False) + '\n')


def plain(value):
  """Arrays as lists, scalars as numbers, what is not finite as None."""
  if isinstance(value, dict):
    return {str(name): plain(part) for name, part in value.items()}
  if isinstance(value, np.ndarray | list | tuple):
    return [plain(part) for part in value]
  if isinstance(value, np.generic):
    value = value.item()
  if isinstance(value, float) and not np.isfinite(value):
    return None
  return value


def save_csv(table, path):
  """Writes {column: values} as CSV."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(table)
  writer.writerows(zip(*table.values(), strict=True))
  files.write_text(path, text.getvalue())
