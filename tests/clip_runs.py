"""A run of a few steps on clips: what tests train, test and look at."""

from configs import moves

STEPS = 4


def clip_run_config(folder, argument='', **model):
  """Four steps on 40 videos of the set that is made, whose folder is given, and as many to test."""
  config = moves.get_config(argument)
  config.model.update(depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), stem_stride=2, **{'segments': 4} | model)
  if config.model.name.startswith('ctx_'):
    config.model.embed_dim = 8
  config.train.update(
    batch_size=16, steps=STEPS, ema_decay=0.5, log_every=1, eval_every=0, checkpoint_every=2
  )
  config.train.class_counts_warmup = 0.0
  config.eval.batch_size = 48
  config.data.update(path=str(folder), image_size=32, images_per_class=1)
  return config
