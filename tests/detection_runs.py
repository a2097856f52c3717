"""A run of a few steps on images with objects: what tests train, test and look at."""

from configs import coco_tiny

STEPS = 4


def detection_run_config(root, argument='plain', **model):
  """Four steps on the ten images of coco_files.write_many in a folder, and as many to test; one canvas.

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
