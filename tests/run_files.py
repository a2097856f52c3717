"""What a run leaves in its folder: reading it, making it without training, and what happens in a batch."""

import contextlib
import functools
import json

import jax
import numpy as np
from initial_values import drawn
from tiny import model_and_optimizer

from ctx_flax.data import pipeline
from ctx_flax.tasks import task_of
from ctx_flax.training import restore, run_folder
from ctx_flax.training.checkpoints import Checkpoints
from ctx_flax.training.state import create_state

TIMED = 'images_per_second', 'videos_per_second', 'data/wait_share'


def arrays(workdir, step=None):
  """All arrays of a checkpoint, the newest by default: {name: array}."""
  with Checkpoints(workdir / 'checkpoints', read_only=True) as checkpoints:
    step = step or checkpoints.latest()
    trees = {name: checkpoints.read(step, name) for name in ('variables', 'optimizer')}
  return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(trees)}


def metric_lines(workdir):
  """The lines of metrics.jsonl, without what was timed."""
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  return [{name: value for name, value in line.items() if name not in TIMED} for line in lines]


def contents(workdir):
  """{path: bytes} of all files below a folder."""
  return {path: path.read_bytes() for path in workdir.rglob('*') if path.is_file()}


def make_run(config, workdir, step=2):
  """The folder of a run that stopped at `step`, its weights and averaged weights random, each its own."""
  task = task_of(config)
  source = task.open_source(config, 'train')
  model, tx = model_and_optimizer(config, source.num_classes)
  # Traced as by what reads the run, so that the process traces it once.
  initial = functools.partial(task.initial_variables, config, model.clone(axis_name=None))
  variables = drawn(model, jax.eval_shape(initial, jax.random.key(0)))
  # By NumPy: jax would compile an operation for each shape. An optimizer starts with zeros.
  shapes = jax.eval_shape(lambda v: create_state(v, tx, config.train.ema_decay > 0), variables)
  state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  rng = np.random.default_rng(step)
  disturbed = lambda tree: jax.tree.map(
    lambda x: x + np.float32(0.05) * rng.random(x.shape, np.float32), tree
  )
  state = state.replace(
    step=np.int32(step),
    params=disturbed(variables['params']),
    batch_stats=variables.get('batch_stats', {}),
    ema=disturbed(variables) if state.ema else {},
  )
  run_folder.claim(workdir, config)
  with Checkpoints(workdir / 'checkpoints') as checkpoints:
    checkpoints.save(step, restore.as_trees(state))
  return workdir


def half(data):
  return data[: len(data) // 2]


def damage(step_folder):
  """Cuts the files of the arrays short, as a power cut does."""
  for path in step_folder.glob('variables/**/d/*'):
    path.write_bytes(half(path.read_bytes()))


def steps_of(workdir):
  """The steps of which a run keeps checkpoints."""
  return sorted(int(path.name) for path in (workdir / 'checkpoints').iterdir())


def on_batch(monkeypatch, number, action, pipeline=pipeline):
  """Calls action(batch) when the batch of step `number` is fetched, if data.prefetch is 0: not earlier."""
  original = pipeline.train_batches

  def train_batches(source, config, start=0, process=0, processes=1):
    with contextlib.closing(original(source, config, start, process, processes)) as batches:
      for step, batch in enumerate(batches, start + 1):
        if step == number:
          batch = action(batch) or batch
        yield batch

  monkeypatch.setattr(pipeline, 'train_batches', train_batches)
