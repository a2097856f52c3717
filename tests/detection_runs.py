"""A run of a few steps on images with objects: what tests train, test and look at."""

import jax
import numpy as np
from coco_files import SIZES, square, write_coco
from initial_values import ONES, ZEROS

from configs import coco_tiny
from ctx_flax.tasks.detection.task import TASK
from ctx_flax.training import restore, run_folder
from ctx_flax.training.checkpoints import Checkpoints
from ctx_flax.training.state import TrainState

STEPS = 4


def detection_run_config(root, argument='plain', **model):
  """Four steps on the ten images of `write_images` in a folder, and as many to test; one canvas.

  All detections count, so that a detector that has learned nothing has a precision above 0.
  """
  config = coco_tiny.get_config(argument)
  config.model.update(dims=(8, 8, 16, 16), depths=(1, 1, 1, 1), channels=8, hidden=16, num_classes=3)
  config.model.update(train_pre_nms=40, train_proposals=24, test_pre_nms=40, test_proposals=24)
  config.model.update(detections=20, candidates=72, score_threshold=0.0)
  if not argument:
    config.model.update(context_classes=10, class_counts=(8, 6, 4), embed_dim=8)
  config.model.update(model)
  config.sampling.update(anchors=16, anchor_positives=8, regions=12, region_positives=6)
  config.optimizer.update(warmup_steps=0, warmup_factor=0.0)
  config.train.update(batch_size=8, steps=STEPS, log_every=1, eval_every=2, checkpoint_every=2)
  config.eval.update(batch_size=8, short_side=48)
  config.data.update(name='coco', path=str(root), canvases=((64, 64),), scales=(40, 48), long_side=64)
  config.data.update(crop_scales=(48,), max_objects=4, threads=0, prefetch=0)
  return config


def write_images(root):
  """Ten images of many sizes with one to three objects each, about as large as anchors, for both splits."""
  annotations = [
    square(10 * image + k, image, (1 + k, 2 * k, 30 + image % 3, 28 + k), category=(1, 3, 90)[k])
    for image in range(1, len(SIZES) + 1)
    for k in range(1 + image % 3)
  ]
  for split in ('train2017', 'val2017'):
    write_coco(root, SIZES, annotations, split)
  return root


def make_detection_run(config, workdir, step=2):
  """The folder of a run that stopped at `step`, its weights random: nothing is compiled for it.

  It finds boxes near anchors, filled by their masks.
  """
  source = TASK.open_source(config, 'train')
  model = TASK.build_model(config, source)
  shapes = jax.eval_shape(lambda: TASK.initial_variables(config, model, jax.random.key(0)))
  rng = np.random.default_rng(0)

  def value(path, leaf):
    constant = (path[-1].key in ONES) * np.ones(leaf.shape)
    noise = rng.normal(size=leaf.shape) * 0.5 * (1, *leaf.shape)[-1] ** -0.5
    if path[-2].key == 'logits' and path[-1].key == 'bias':
      constant = constant + 3
    scale = 0 if path[-1].key in ZEROS else 0.1 if path[-2].key == 'reg' else 1
    return (constant + scale * noise).astype(leaf.dtype)

  variables = jax.tree_util.tree_map_with_path(value, shapes)
  state = TrainState(np.int32(step), variables['params'], variables.get('batch_stats', {}), {}, {})
  run_folder.claim(workdir, config)
  with Checkpoints(workdir / 'checkpoints') as checkpoints:
    checkpoints.save(step, restore.as_trees(state))
  return workdir
