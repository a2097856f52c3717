"""What happens to one video, from its file to the clip that the network sees. NumPy and Pillow.

A clip is `model.segments` frames of a video. Training: a random choice of frames, then crop, flip and the
augmentation of images, with the same draws for all frames. Evaluation: a fixed choice of frames and crops.
Frames are resized by an antialiased bilinear filter, as TSM does, and stay 8-bit: what sends them to a device
normalises them there. Everything random comes from the generator that is passed in.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ctx_flax.data import clip_crops, crops, segments, transforms, video
from ctx_flax.data.decode import LARGEST, BadImage

SAMPLINGS = 'uniform', 'dense', 'twice'
# Crops of a frame: name -> how many.
VIEWS = {'center': 1, 'ten_crop': 10, 'dense': 3}


@dataclasses.dataclass(frozen=True)
class TrainClipTransform(transforms.Augmentation):
  """(element of a source, np.random.Generator) -> (t, s, s, 3).

  uint8, or float32 and normalised where `normalised` says so. Other attributes are fields of config.data, and
  `segments` one of config.model.

  Raises:
    BadImage, OSError: when called, for a file that cannot be read.
  """

  image_size: int
  segments: int
  sampling: str
  dense_window: int
  short_side: int
  crop_scales: tuple
  crop_scale: tuple
  crop_aspect: tuple
  normalised: bool

  def __call__(self, element: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
    with video.open_clip(element) as clip:
      numbers = segments.train_segments(clip.count, self.segments, rng, self.sampling, self.dense_window)
      frames = read_frames(clip, numbers)
    seed = int(rng.integers(2**63))
    return np.stack([self.augment_frame(frame, np.random.default_rng(seed)) for frame in frames])

  def augment_frame(self, frame: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """One RGB frame -> (s, s, 3), by a generator that is the same for every frame of a clip."""
    if self.short_side:
      frame = resize_short_side(frame, self.short_side)
    box: tuple[float, ...] = (0, 0, *frame.size)
    if self.crop_scales:
      box = clip_crops.multi_scale_box(*frame.size, rng, self.image_size, self.crop_scales)
    elif self.crop_scale:
      box = crops.random_box(*frame.size, rng, self.crop_scale, self.crop_aspect)
    frame = self.augment(_cut(frame, box, self.image_size), rng)
    return self.to_pixels(frame, rng) if self.normalised else np.asarray(frame)


@dataclasses.dataclass(frozen=True)
class EvalClipTransform:
  """Element of a source -> uint8 (t, s, s, 3), or (views, t, s, s, 3) where there are several.

  The views are clips times crops, the crops of the first clip first. Views 'dense' are of ten dense clips,
  whatever the sampling in training is. The others are of one clip, in the middle of the video where the
  sampling is 'dense', or of the two where it is 'twice'.

  Attributes:
    image_size: side of the centre crop and of the ten crops: corners and centre, each followed by its mirror.
    crop_ratio: image_size over the short side of the resized frames.
    views: 'center', 'ten_crop' or 'dense': three squares of the short side along the longer one.
    segments, sampling, dense_window: fields of config.model and config.data.

  Raises:
    BadImage, OSError: when called, for a file that cannot be read.
  """

  image_size: int
  crop_ratio: float
  views: str
  segments: int
  sampling: str
  dense_window: int

  @property
  def shape(self) -> tuple[int, ...]:
    """Of what is returned."""
    side = self._short_side if self.views == 'dense' else self.image_size
    clips = len(self.frame_numbers(1))  # as many for every video
    views = clips * VIEWS[self.views]
    return (*((views,) if views > 1 else ()), self.segments, side, side, 3)

  def blank(self) -> np.ndarray:
    """Stands for a video that cannot be read, and fills up a batch."""
    return np.zeros(self.shape, np.uint8)

  def frame_numbers(self, n: int) -> np.ndarray:
    """Which of n frames are seen: int (clips, t)."""
    if self.views == 'dense':
      return segments.dense_clips(n, self.segments, window=self.dense_window)
    if self.sampling == 'twice':
      return segments.twice_clips(n, self.segments)
    if self.sampling == 'dense':
      return segments.dense_eval(n, self.segments, self.dense_window)[None]
    return segments.uniform_eval(n, self.segments)[None]

  def __call__(self, element: dict[str, Any]) -> np.ndarray:
    with video.open_clip(element) as clip:
      # Dense clips overlap: every frame is read and resized once.
      numbers, places = np.unique(self.frame_numbers(clip.count), return_inverse=True)
      frames = np.stack([self._crops(frame) for frame in read_frames(clip, numbers)])
    # (clips, t, crops, ...) -> (clips, crops, t, ...)
    return frames[places.reshape(-1, self.segments)].swapaxes(1, 2).reshape(self.shape)

  @property
  def _short_side(self) -> int:
    return round(self.image_size / self.crop_ratio)

  def _crops(self, frame: Image.Image) -> np.ndarray:
    """(crops, s, s, 3) of one frame."""
    side = self._short_side
    frame = resize_short_side(frame, side)
    w, h = frame.size
    if self.views == 'dense':
      return np.stack([_square(frame, place, side) for place in clip_crops.longer_side_places(w, h, side)])
    size = self.image_size
    if self.views == 'center':
      return _square(frame, clip_crops.centre_place(w, h, size), size)[None]
    squares = np.stack([_square(frame, place, size) for place in clip_crops.corner_places(w, h, size)])
    return np.stack([squares, squares[:, :, ::-1]], axis=1).reshape(10, size, size, 3)


def train_clip_transform(config: Any) -> TrainClipTransform:
  """The TrainClipTransform of a config; its random numbers depend on nothing but the generator it is given.

  Clips are normalised where erasing, mixup or cutmix need it.
  """
  data = config.data
  names = {field.name for field in dataclasses.fields(TrainClipTransform)} - {'segments', 'normalised'}
  fields = {name: data[name] for name in names} | {'rand_augment': dict(data.rand_augment)}
  normalised = bool(data.erasing or data.mixup or data.cutmix)
  return TrainClipTransform(**fields, segments=config.model.segments, normalised=normalised)


def eval_clip_transform(config: Any, views: str = 'center') -> EvalClipTransform:
  """The EvalClipTransform of a config, with a name of VIEWS."""
  data = config.data
  return EvalClipTransform(
    data.image_size,
    config.eval.crop_ratio,
    views,
    config.model.segments,
    data.sampling,
    data.dense_window,
  )


def check_settings(config: Any) -> None:
  """Raises ValueError naming the first field of clips that has no meaning."""
  data = config.data
  if config.model.segments < 1:
    raise ValueError(f'model.segments must be 1 or more, but is {config.model.segments}')
  if data.short_side < 0:
    raise ValueError(f'data.short_side must be 0 (off) or more, but is {data.short_side}')
  if not all(0 < scale <= 1 for scale in data.crop_scales):
    raise ValueError(f'data.crop_scales must be above 0 and at most 1, but are {data.crop_scales}')
  if data.crop_scales and data.crop_scale:
    raise ValueError(
      f'data.crop_scales is {data.crop_scales} and data.crop_scale is {data.crop_scale}: set one of the two '
      'to ()'
    )
  for name, value, known in (
    ('data.sampling', data.sampling, SAMPLINGS),
    ('eval.views', config.eval.views, tuple(VIEWS)),
  ):
    if value not in known:
      raise ValueError(f'{name} must be one of {known}, but is {value!r}')


def read_frames(clip: video.Clip, numbers: npt.NDArray[Any]) -> list[Image.Image]:
  """RGB frames of a video, by their numbers.

  Raises:
    BadImage: a frame cannot be read, or they differ in size.
    OSError: there is none.
  """
  frames = [Image.fromarray(frame) for frame in clip.read(numbers.tolist())]
  # One crop for all of them would be another part of each.
  sizes = list(dict.fromkeys(frame.size for frame in frames))
  if len(sizes) > 1:
    (w, h), (other_w, other_h) = sizes[:2]
    raise BadImage(f'frames differ in size: {w} x {h} and {other_w} x {other_h} pixels')
  return frames


def resize_short_side(frame: Image.Image, side: int) -> Image.Image:
  """A frame whose short side is `side`, and whose longer side is rounded down, as torchvision does.

  Raises:
    BadImage: it is too narrow, so that the longer side would take too much memory.
  """
  w, h = frame.size
  size = (side, side * h // w) if w < h else (side * w // h, side)
  if math.prod(size) > LARGEST:
    raise BadImage(f'{w} x {h} pixels are {size[0]} x {size[1]} at a short side of {side}: too many')
  return _resize(frame, size)


def _cut(frame: Image.Image, box: tuple[float, ...], size: int) -> Image.Image:
  """A part of a frame as a square of `size`; of no pixel outside the box, whose corners become whole."""
  left, top, right, bottom = box
  frame = frame.crop((math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)))
  return _resize(frame, (size, size))


def _resize(frame: Image.Image, size: tuple[int, int]) -> Image.Image:
  return frame if frame.size == size else frame.resize(size, Image.Resampling.BILINEAR)


def _square(frame: Image.Image, place: tuple[int, int], size: int) -> np.ndarray:
  x, y = place
  return np.asarray(frame)[y : y + size, x : x + size]
