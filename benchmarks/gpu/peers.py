"""The same in PyTorch: torchvision's deformable convolution, cuDNN's depthwise one, timm's networks.

Rows appear where the packages are installed. Networks run under autocast in bfloat16, channels last.
"""

import functools
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.gpu.rows import Row
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.timing import queued

DTYPES = 'float32', 'float16'  # of torchvision's operation
KINDS = 'inference', 'training'


def installed(*packages: str) -> bool:
  return all(importlib.util.find_spec(package) for package in packages)


def missing() -> list[str]:
  """The packages for want of which rows are left out."""
  return [package for package in ('torch', 'torchvision', 'timm') if not installed(package)]


def networks(sizes: Sizes) -> list[Row]:
  """Rows of timm's networks: kinds, then batches."""
  if not installed('torch', 'timm'):
    return []
  return [
    Row(
      f'timm {name} {kind} {b} bfloat16',
      functools.partial(_network, timm_name, kind, b, sizes.image_size),
      20,
    )
    for b in sizes.network_batches
    for name, timm_name in sizes.timm.items()
    for kind in KINDS
  ]


def operations(sizes: Sizes) -> list[Row]:
  """Rows of deformable convolution, one kernel for all images: 7x7 by groups of a channel, and dense 3x3.

  They have no deltas of kernels, so that they do less than ours. Also of plain depthwise convolution.
  """
  found = []
  if installed('torch', 'torchvision'):
    found += [
      Row(
        f'torchvision deform_conv2d {k}x{k} {direction} {b}x{h}x{h}x{c} {dtype}',
        functools.partial(_deformable, k, (b, h, c), dtype, direction == 'gradients'),
        6,
      )
      for b in sizes.batches[-1:]
      for k, shapes in ((7, sizes.depthwise), (3, sizes.dense))
      for h, c in shapes
      for dtype in DTYPES
      for direction in ('forward', 'gradients')
    ]
  if installed('torch'):
    found += [
      Row(
        f'torch depthwise_conv 7x7 {direction} {b}x{h}x{h}x{c} bfloat16',
        functools.partial(_depthwise, (b, h, c), direction == 'gradients'),
        6,
      )
      for b in sizes.batches[:1]
      for h, c in sizes.plain
      for direction in ('forward', 'gradients')
    ]
  return found


def forget() -> None:
  """Gives memory that PyTorch no longer uses back to the card."""
  torch = sys.modules.get('torch')
  if torch is not None and torch.cuda.is_available():
    torch.cuda.empty_cache()


def _device() -> str:
  import torch

  return 'cuda' if torch.cuda.is_available() else 'cpu'


def _measure(run: Callable[[], object]) -> dict[str, Any]:
  """Milliseconds, and PyTorch's own peak of memory."""
  import torch

  if _device() == 'cpu':
    return queued(run, lambda _: None)
  torch.cuda.reset_peak_memory_stats()
  times = queued(run, lambda _: torch.cuda.synchronize())
  return {**times, 'memory_MB': round(torch.cuda.max_memory_allocated() / 1e6, 1)}


def _backwards(function: Callable[..., Any], inputs: list[Any], gradients: bool) -> Callable[[], object]:
  """Computes the value, with `gradients` those of all inputs too."""
  import torch

  with torch.no_grad():
    cotangent = torch.ones_like(function(*inputs))

  def run() -> None:
    with torch.set_grad_enabled(gradients):
      y = function(*inputs)
    if gradients:
      torch.autograd.grad(y, inputs, cotangent)

  return run


def _deformable(k: int, shape: tuple[int, int, int], dtype: str, gradients: bool) -> dict[str, Any]:
  import torch
  from torchvision.ops import deform_conv2d

  b, h, c = shape

  def make(*shape: int, scale: float = 1.0) -> Any:
    values = scale * torch.randn(*shape, device=_device(), dtype=getattr(torch, dtype))
    return values.requires_grad_(gradients)

  weight = make(c, 1 if k == 7 else c, k, k, scale=0.1)
  inputs = [make(b, c, h, h), make(b, 2 * k * k, h, h, scale=1.5), weight, make(b, k * k, h, h)]
  run = lambda x, offset, weight, mask: deform_conv2d(x, offset, weight, padding=k // 2, mask=mask)
  return _measure(_backwards(run, inputs, gradients))


def _depthwise(shape: tuple[int, int, int], gradients: bool) -> dict[str, Any]:
  import torch

  b, h, c = shape
  make = lambda *shape: torch.randn(*shape, device=_device(), dtype=torch.bfloat16)
  x, weight = make(b, c, h, h).to(memory_format=torch.channels_last), make(c, 1, 7, 7)
  inputs = [each.requires_grad_(gradients) for each in (x, weight)]
  run = lambda x, weight: torch.nn.functional.conv2d(x, weight, padding=3, groups=c)
  return _measure(_backwards(run, inputs, gradients))


def _network(name: str, kind: str, b: int, side: int) -> dict[str, Any]:
  """Cross-entropy and AdamW, as our training step; not compiled."""
  import timm
  import torch

  train = kind == 'training'
  rate = {'drop_path_rate': 0.1} if 'convnext' in name else {}
  network = timm.create_model(name, num_classes=1000, **rate).to(_device(), memory_format=torch.channels_last)
  network = network.train(train)
  images = torch.randn(b, 3, side, side, device=_device()).to(memory_format=torch.channels_last)
  labels = torch.arange(b, device=_device())
  optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.05, fused=_device() == 'cuda')

  def step() -> None:
    with torch.autocast(_device(), torch.bfloat16):
      loss = torch.nn.functional.cross_entropy(network(images).float(), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

  def infer() -> None:
    with torch.inference_mode(), torch.autocast(_device(), torch.bfloat16):
      network(images)

  found = _measure(step if train else infer)
  return {**found, 'images_per_s': round(1e3 * b / found['ms'], 1)}
