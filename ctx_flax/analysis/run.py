"""A run to look at: its network with the weights of a checkpoint, and the images it is looked at with."""

import dataclasses
import functools
import os
import pathlib
from typing import Any

import jax

from ctx_flax.layers.contextualizer import default_class_counts
from ctx_flax.tasks import check_served, task_of
from ctx_flax.tasks.detection.images import network_inputs
from ctx_flax.training import distributed, restore, run_folder, setup

# Tasks whose runs an analysis may understand: what it looks at is classes of images or clips, or objects.
CLASSIFIERS = 'classification', 'video'
DETECTORS = ('detection',)
# Fields of config.data that say where the data lie and how they are read.
WHERE = (
  *('path', 'train_list', 'test_list', 'train_annotations', 'test_annotations'),
  *('threads', 'workers', 'prefetch'),
)


@dataclasses.dataclass(frozen=True)
class Run:
  """What every analysis starts from.

  Attributes:
    workdir: the folder of the run.
    config: its config.
    model: its network.
    variables: of the network, on the default device; with the tables of model.class_tables.
    source: the test images, a Source of ctx_flax.data.sources, or a CocoSource of a DetectorRun.
    step: of the checkpoint; 0 of weights without a run.
    weights: 'EMA' or 'raw'.
    task: of the run: Classification, one that is derived from it, or Detection.
  """

  workdir: pathlib.Path
  config: Any
  model: Any
  variables: Any
  source: Any
  step: int
  weights: str
  task: Any

  @property
  def num_classes(self):
    return self.model.num_classes

  @property
  def class_names(self):
    return self.source.class_names

  @property
  def title(self):
    """What figures and tables call it: 'patches-naive, step 1560', or the file of weights without a run."""
    if not self.step:
      return pathlib.Path(self.config.init.weights).name
    return f'{self.workdir.resolve().name}, step {self.step}'

  @property
  def folder(self):
    """Where its analyses are written."""
    return self.workdir / 'analysis'


@dataclasses.dataclass(frozen=True)
class ClassifierRun(Run):
  """A Run of one of CLASSIFIERS."""

  @property
  def class_counts(self):
    """N_2, N_3, N_4 of a contextual network; () of a plain one."""
    if not self.model.contextual:
      return ()
    return tuple(
      self.model.class_counts or default_class_counts(self.model.num_classes, len(self.model.dims))
    )

  def apply(self, variables, images):
    """model.apply(variables, images, train=False), compiled: (b, h, w, 3), or clips -> (logits, out)."""
    return _apply(self.model, self.task, variables, images)


@dataclasses.dataclass(frozen=True)
class DetectorRun(Run):
  """A Run of one of DETECTORS."""

  def detect(self, batch):
    """The Detections in the images of a batch, compiled for its canvas; boxes in pixels of the files.

    Args:
      batch: {'image', 'image_hw', 'scale'}, of ctx_flax.data.detection_transforms; what else it holds is not
        used.
    """
    data = self.config.data
    used = {name: batch[name] for name in ('image', 'image_hw', 'scale')}
    return _detect(self.model, tuple(data.mean), tuple(data.std), self.variables, used)


@functools.partial(jax.jit, static_argnames=('model', 'task'))  # runs of equal networks share it
def _apply(model, task, variables, images):
  logits, out = model.apply(variables, images, train=False)
  return logits, task.decisions(model, out)


@functools.partial(jax.jit, static_argnames=('model', 'mean', 'std'))
def _detect(model, mean, std, variables, batch):
  images, extents = network_inputs(batch, mean, std)
  return model.apply(variables, images, **extents, scale=batch['scale'])


def check_task(config, served=CLASSIFIERS):
  """Raises ValueError for a task that an analysis does not serve, whose config lacks its options."""
  check_served(config, 'this analysis', served)


def open_run(config, workdir, images=True, warn=print, served=CLASSIFIERS):
  """Opens the run in a folder for analysis.

  Args:
    config: its config; eval.checkpoint and eval.weights say which weights ('all': the averaged ones where
      the run keeps them).
    workdir: its folder.
    images: False where the test images are not wanted, and may be missing: the source then may hold the names
      of the classes only.
    warn: is told, then, that classes have no names.
    served: the tasks that the analysis serves.

  Returns:
    A ClassifierRun or a DetectorRun.

  Raises:
    ValueError, OSError: the run is of a task that is not served, there is no such checkpoint, it does not
      fit, or the test images are not there; or the folder, which gets the analyses, is that of another run
      than the weights of init.weights.
  """
  workdir = pathlib.Path(os.path.expanduser(workdir))
  check_task(config, served)
  task: Any = task_of(config)
  config = task.one_view(config)
  if images and restore.from_file(config, workdir) and run_folder.saved(workdir) is not None:
    raise ValueError(
      f'{workdir} is the folder of a run that did not start from {config.init.weights}: take another '
      '--workdir for the analyses of these weights'
    )
  setup.prepare_jax(config)
  distributed.check_alone('an analysis')
  source = task.open_source(config, 'test') if images else task.classes_of(config, workdir, warn)
  config = task.resolve(config, workdir, source)
  setup.check_settings(config, task)
  model, variables, step, weights = restore.restore_network(config, workdir, task, source)
  kind = ClassifierRun if task.name in CLASSIFIERS else DetectorRun
  return kind(workdir, config, model, variables, source, step, weights, task)


def open_beside(run, workdir, field, served=CLASSIFIERS):
  """Opens a second run, to be compared with the first one: by its own config, on the data of the first.

  Args:
    run: the first Run.
    workdir: the folder of the second; `~` is expanded.
    field: the name of the config's field that names it, for messages.
    served: as for `open_run`.

  Raises:
    ValueError: it is no run, or its classes are not those of the first.
  """
  workdir = pathlib.Path(os.path.expanduser(workdir))
  config = run_folder.with_saved(workdir, field)
  check_task(config, served)
  identity = task_of(config).identity
  # How it is tested, but for what is part of what the run is: the crop.
  config.eval.update(
    {name: v for name, v in run.config.eval.items() if not run_folder.is_identity(f'eval.{name}', identity)}
  )
  for name in WHERE:
    if name in config.data and name in run.config.data:
      config.data[name] = run.config.data[name]
  beside = open_run(config, workdir, served=served)
  if tuple(beside.class_names) != tuple(run.class_names):
    raise ValueError(
      f'{field} is {str(workdir)!r}, a run on {beside.num_classes} classes of {config.data.name}: they are '
      f'not the {run.num_classes} of {run.workdir}'
    )
  return beside
