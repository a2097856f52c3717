"""The operations of detectors at the size of COCO, beside torchvision's where that is installed."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import median, program, ratio, take_turns
from benchmarks.models import has_torch
from ctx_flax.ops import box_levels, mask_targets, nms, pyramid_roi_align

HW = 800, 1344  # image with padding
STRIDES = 4, 8, 16, 32
CHANNELS = 256
# (boxes, bins along a side) of the box head and of the mask head in training, for each image.
ROIS = (512, 7), (128, 14)
PROPOSALS = 2000
MASKS = 8


def run(settings):
  """Measures all operations: [row, ...] with times, ratios and memory, what ours is compared with first."""
  with_torch = has_torch() and jax.default_backend() == 'cpu'
  rows = []
  for number, bins in ROIS:
    rows += _roi_align(number, bins, settings, with_torch and settings.dtype == 'float32')
  rows += _nms(settings, with_torch) + _mask_targets(settings, with_torch)
  return rows


def draw_boxes(number, rng, objects=None):
  """Boxes (number, 4) from 16 to 600 pixels of all shapes: anywhere, or as proposals around some objects."""
  h, w = HW

  def draw(count):
    centre = rng.uniform(0, (w, h), (count, 2))
    side = np.exp(rng.uniform(math.log(16), math.log(600), (count, 1)))
    return centre, side * np.exp(rng.normal(0, 0.4, (count, 1)) * (1, -1))

  centre, size = draw(objects or number)
  if objects:
    of = rng.integers(0, objects, number)
    centre = centre[of] + size[of] * rng.normal(0, 0.1, (number, 2))
    size = size[of] * np.exp(rng.normal(0, 0.15, (number, 2)))
  corners = np.concatenate([centre - size / 2, centre + size / 2], 1)
  return np.clip(corners, 0, (w, h, w, h)).astype(np.float32)


def _roi_align(number, bins, settings, with_torch):
  rng = np.random.default_rng(0)
  shapes = [(-(-HW[0] // stride), -(-HW[1] // stride), CHANNELS) for stride in STRIDES]
  maps = [jnp.asarray(rng.normal(size=shape), settings.dtype) for shape in shapes]
  boxes = draw_boxes(number, rng)
  cotangent = jnp.asarray(rng.normal(size=(number, bins, bins, CHANNELS)), settings.dtype)
  forward, both = {}, {}
  for name in ('separable', 'windows'):
    align = functools.partial(pyramid_roi_align, boxes=boxes, strides=STRIDES, size=bins, path=name)

    def gradients(maps, cotangent, align=align):
      value, pull_back = jax.vjp(align, maps)
      return value, pull_back(cotangent)

    forward[name] = program(align, maps)
    both[name] = program(gradients, maps, cotangent)
  temp = {name: (forward[name].temp_bytes, both[name].temp_bytes) for name in forward}
  runs = [{name: made.run for name, made in kind.items()} for kind in (forward, both)]
  if with_torch:
    for kind, torchvision in zip(runs, _torchvision_roi_align(maps, boxes, bins, cotangent), strict=True):
      kind['torchvision'] = torchvision
  return _rows(f'RoIAlign {bins}x{bins}', f'{number} boxes, {_size()}', settings, *runs, temp=temp)


def _nms(settings, with_torch):
  rng = np.random.default_rng(0)
  boxes, scores = draw_boxes(PROPOSALS, rng, 300), rng.uniform(size=PROPOSALS).astype(np.float32)
  rows = []
  for limit in (PROPOSALS, 1000):  # all that torchvision computes, and what proposals ask for
    ours = program(functools.partial(nms, threshold=0.7, limit=limit), boxes, scores)
    runs = {'ours': ours.run}
    if with_torch:
      import torch
      import torchvision

      arrays = torch.tensor(boxes), torch.tensor(scores)
      runs['torchvision'] = lambda arrays=arrays, limit=limit: torchvision.ops.nms(*arrays, 0.7)[:limit]
    case = f'{PROPOSALS} boxes, at most {limit} kept'
    rows += _rows('NMS 0.7', case, settings, runs, temp={'ours': (ours.temp_bytes,)})
  return rows


def _mask_targets(settings, with_torch):
  rng = np.random.default_rng(0)
  number = ROIS[-1][0]
  boxes, rows = draw_boxes(number, rng), rng.integers(0, MASKS, number)
  masks = rng.uniform(size=(MASKS, *HW)) > 0.5
  ours = program(mask_targets, np.packbits(masks, -1), boxes, rows)
  runs = {'ours': ours.run}
  if with_torch:
    import torch
    import torchvision

    pixels = torch.tensor(masks, dtype=torch.float32)[:, None]
    regions = torch.tensor(np.concatenate([rows[:, None], boxes], 1).astype(np.float32))
    runs['torchvision'] = lambda: torchvision.ops.roi_align(pixels, regions, 28, 1.0, -1, True) >= 0.5
  shape = f'{number} boxes, {MASKS} masks, {_size()}'
  return _rows('mask targets 28x28', shape, settings, runs, temp={'ours': (ours.temp_bytes,)})


def _size():
  return f'{HW[0]} x {HW[1]}'


def _torchvision_roi_align(maps, boxes, bins, cotangent):
  """Functions that compute the same with torchvision: forward, and forward and backward."""
  import torch
  import torchvision

  level = np.asarray(box_levels(boxes))
  maps = [torch.tensor(np.asarray(m)).permute(2, 0, 1)[None].contiguous().requires_grad_() for m in maps]
  regions, cotangents = [], []
  for number in range(len(maps)):
    own = boxes[level == number]
    regions.append(torch.tensor(np.pad(own, ((0, 0), (1, 0)))))  # the first column is the image's number
    cotangents.append(torch.tensor(np.asarray(cotangent)[level == number]).permute(0, 3, 1, 2).contiguous())

  def align():
    return [
      torchvision.ops.roi_align(m, own, bins, 1 / stride, -1, True)
      for m, own, stride in zip(maps, regions, STRIDES, strict=True)
    ]

  def forward():
    with torch.inference_mode():
      return align()

  return forward, lambda: torch.autograd.grad(align(), maps, cotangents)


def _rows(operation, shape, settings, forward, both=None, *, temp):
  """One row per way, those of torchvision first; x is relative to the first."""
  seconds = take_turns(forward, settings.rounds)
  seconds_both = take_turns(both, settings.rounds) if both else {}
  names = sorted(forward, key=lambda name: name != 'torchvision')
  rows = []
  for name in names:
    row = {'operation': operation, 'shape': shape, 'path': name}
    times = [seconds[name], *([seconds_both[name]] if both else [])]
    references = [seconds[names[0]], *([seconds_both[names[0]]] if both else [])]
    for mark, what, time, reference in zip(
      ('', ' '), ('forward', 'forward + backward'), times, references, strict=False
    ):
      row[f'{what} ms'], row[f'x{mark}'] = 1e3 * median(time), ratio(reference, time)
      if name in temp:
        row[f'temp MB{mark}'] = temp[name][len(mark)] / 1e6
    rows.append(row)
  return rows
