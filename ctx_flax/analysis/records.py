"""What analyses write beside their figures: numbers as JSON, tables as CSV; each whole or not at all."""

import csv
import io
import json
import os

import numpy as np

from ctx_flax import files


def save_json(values, path):
  """Writes nested dicts and lists as JSON, what `plain` makes of them."""
  files.write_text(path, json.dumps(plain(values), indent=2, allow_nan=False) + '\n')


def plain(value):
  """Arrays as lists, scalars as numbers, what is not finite as None, paths as texts, all texts as UTF-8."""
  if isinstance(value, dict):
    return {files.utf8(str(name)): plain(part) for name, part in value.items()}
  if isinstance(value, np.ndarray | list | tuple):
    return [plain(part) for part in value]
  if isinstance(value, np.generic):
    value = value.item()
  if isinstance(value, os.PathLike):
    value = os.fspath(value)
  if isinstance(value, float) and not np.isfinite(value):
    return None
  return files.utf8(value) if isinstance(value, str) else value


def save_csv(table, path):
  """Writes {column: values} as CSV; a text with commas, quotes or line breaks stands in quotes."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(table)
  rows = zip(*table.values(), strict=True)
  writer.writerows([files.utf8(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
  files.write_text(path, text.getvalue())
