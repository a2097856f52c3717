"""Reading what a run has left in its folder."""

import json

import jax

from ctx_flax.training.checkpoints import Checkpoints

TIMED = 'images_per_second', 'data/wait_share'


def arrays(workdir, step=None):
  """All arrays of a checkpoint, the newest by default: {name: array}."""
  with Checkpoints(workdir / 'checkpoints', read_only=True) as checkpoints:
    trees = checkpoints._manager.load_checkpointables(step or checkpoints.latest())
  return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(trees)}


def metric_lines(workdir):
  """The lines of metrics.jsonl, without what was timed."""
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  return [{name: value for name, value in line.items() if name not in TIMED} for line in lines]
