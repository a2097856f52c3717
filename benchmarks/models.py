"""Inference of whole networks: contextual beside plain, and beside PyTorch where it is installed."""

import importlib.util

import jax
import jax.numpy as jnp

from benchmarks import clips
from benchmarks.measure import median, program, ratio, take_turns
from ctx_flax.models import create_model
from ctx_flax.models.inference import apply_in_turn
from ctx_flax.models.summary import summarise

PAIRS = ('convnext_t', 'ctx_convnext_t'), ('resnet50', 'ctx_resnet50')


def run(settings):
  """[row, ...], for each pair the plain network first; a note where PyTorch is left out; then clips."""
  rows = []
  for plain, contextual in PAIRS:
    made = {name: inference(name, settings) for name in (plain, contextual)}
    candidates = {name: one.run for name, one in made.items()}
    torch_name = f'torchvision {plain}'
    torch_run = torchvision_inference(plain, settings)
    if torch_run:
      candidates[torch_name] = torch_run
    seconds = take_turns(candidates, settings.rounds)
    for name in candidates:
      took = median(seconds[name])
      row = {
        'network': name,
        'images/s': settings.batch / took,
        'of plain': ratio(seconds[plain], seconds[name]),
      }
      if torch_run:
        row['of PyTorch'] = ratio(seconds[torch_name], seconds[name])
      if name in made:
        flops = 2 * sum(layer.macs for layer in summarise(create_model(name), _shape(settings)))
        row |= {
          'temp MB': made[name].temp_bytes / 1e6,
          'trace + compile s': made[name].trace_seconds + made[name].compile_seconds,
          '% of peak FLOP/s': 100 * flops * settings.batch / took / settings.peak.flops,
        }
      rows.append(row)
  if not has_torch():
    rows.append({'network': 'PyTorch left out: torch and torchvision are not installed'})
  return rows + clips.networks(settings)


def _shape(settings):
  return settings.image_size, settings.image_size, 3


def inference(name, settings):
  """The compiled network in inference mode, on random images."""
  model = create_model(name, dtype=settings.dtype)
  images = jnp.ones((settings.batch, *_shape(settings)), jnp.float32)
  variables = jax.jit(model.init)(jax.random.key(0), images[:1])

  def logits(variables, images):
    return apply_in_turn(model, variables, images)[0]

  return program(logits, variables, images)


def has_torch():
  return all(importlib.util.find_spec(name) for name in ('torch', 'torchvision'))


def torchvision_inference(name, settings):
  """The same plain network in torchvision on as many threads, or None where that is not installed."""
  if not has_torch() or jax.default_backend() != 'cpu' or settings.dtype != 'float32':
    return None
  import torch
  import torchvision

  builders = {'convnext_t': torchvision.models.convnext_tiny, 'resnet50': torchvision.models.resnet50}
  network = builders[name](weights=None).eval()
  images = torch.ones((settings.batch, 3, *_shape(settings)[:2])).contiguous(
    memory_format=torch.channels_last
  )
  network = network.to(memory_format=torch.channels_last)

  def run():
    with torch.inference_mode():
      network(images)

  return run
