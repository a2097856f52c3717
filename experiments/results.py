"""The results of the jobs of an experiment, as files in the folders of the runs."""

import json
import pathlib
from typing import Any

# Name of a job -> the file of its result.
RESULTS = {
  'train': 'result.json',
  'validate': 'validation.json',
  'recall': 'recall.json',
  'context': 'context.json',
}


def read_result(folder: pathlib.Path, job: str) -> dict[str, Any]:
  """What a job left in the folder of a run; {} if it is not done, or the file is damaged."""
  try:
    result = json.loads((folder / RESULTS[job]).read_text(encoding='utf-8'))
  except (OSError, ValueError):
    return {}
  return result if isinstance(result, dict) else {}
