"""Batches of clips with a class each, as ctx_flax.data.pipeline makes them of images.

'image' uint8 (b, t, s, s, 3), not normalised yet, or (b, views, t, s, s, 3) in an evaluation with several
  views; in training float32, normalised, where erasing, mixup or cutmix is on;
'label' int32 (b,), 'weight' float32 (b,), 'bad' int32 (b,), 'other_label' int32 (b,), 'lam' float32 (b,): as
  there, of a video each.
"""

from typing import Any

from ctx_flax.data import batches, clip_transforms, elements, mixing, pipeline
from ctx_flax.data.batches import Batches
from ctx_flax.data.elements import EvalElement, TrainElement
from ctx_flax.data.sources import Source


def check_settings(config: Any) -> None:
  """Raises ValueError for a field that no batch of clips can be made with."""
  pipeline.check_settings(config)
  clip_transforms.check_settings(config)


def train_batches(
  source: Source, config: Any, start: int = 0, process: int = 0, processes: int = 1
) -> Batches:
  """Endless batches for the steps start, start + 1, ... of a run; see pipeline.train_batches.

  Args:
    source: of the videos.
    config: uses seed, train.batch_size (of all processes together), model.segments and data.
    start, process, processes: as there.

  Returns:
    Batches, to be closed. They raise BadImage for an unreadable video where config.data.on_bad_image is
    'error', and for too many in a row.

  Raises:
    ValueError: a setting is wrong, or the processes cannot share a batch.
  """
  check_settings(config)
  row = pipeline.TrainRow(clip_transforms.train_clip_transform(config))
  element = TrainElement(source, row, config.data.on_bad_image, noun='video')
  mix = mixing.mix_of(config.data)
  return batches.train_batches(element, len(source), config, start, process, processes, mix=mix)


def eval_batches(
  source: Source, config: Any, process: int = 0, processes: int = 1, start: int = 0, *, views: str = 'center'
) -> Batches:
  """All videos once, in order, the last batch filled up with rows of weight 0. Unreadable ones weigh 0 too.

  Args:
    source: of the videos.
    config: uses eval.{batch_size, crop_ratio}, model.segments and data.
    process, processes, start: as for pipeline.eval_batches.
    views: a name of clip_transforms.VIEWS.

  Returns:
    Batches, to be closed. They raise what those of `train_batches` do.
  """
  check_settings(config)
  row = pipeline.EvalRow(clip_transforms.eval_clip_transform(config, views))
  element = EvalElement(source, row, row.filling, config.data.on_bad_image)
  return batches.eval_batches(element, len(source), config, process, processes, start)


def describe_bad(source: Source, index: int, config: Any) -> str:
  """'NAME: reason' of a video that cannot be read, on one line of valid UTF-8."""
  return elements.describe_bad(source, index, clip_transforms.eval_clip_transform(config, config.eval.views))
