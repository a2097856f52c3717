"""Shipping a trained network: --mode=export writes a folder that runs with jax and numpy alone."""

import os
import pathlib
import shutil
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from ctx_flax.files import printable
from ctx_flax.layers.contextualizer import default_class_counts
from ctx_flax.models.summary import summarise
from ctx_flax.models.weight_files import flatten, save_weights, unflatten
from ctx_flax.tasks import check_served, task_of
from ctx_flax.tasks.classification import networks
from ctx_flax.training import distributed, restore, setup
from ctx_flax.training.halt import bad_input, failed_report

PLATFORMS = 'cpu', 'cuda', 'rocm', 'tpu'
# Written beside the network, so that it is found by those who get the folder only.
LOADER = '''"""network, about = load(FOLDER); logits = network(images). Needs jax, numpy and flatbuffers."""
import functools, json, jax, jax.export, numpy as np


def load(folder):
  with open(f'{folder}/weights.safetensors', 'rb') as file, open(f'{folder}/network.stablehlo', 'rb') as code:
    header, data = json.loads(file.read(int.from_bytes(file.read(8), 'little'))), file.read()
    network = jax.export.deserialize(bytearray(code.read()))
  types = {'F32': np.float32, 'F16': np.float16, 'BF16': jax.numpy.bfloat16}
  about = header.pop('__metadata__')
  part = lambda x: np.frombuffer(data[slice(*x['data_offsets'])], types[x['dtype']]).reshape(x['shape'])
  return functools.partial(jax.jit(network.call), {k: part(x) for k, x in header.items()}), about
'''


def export(config, workdir):
  """Writes workdir/export: network.stablehlo, weights.safetensors, load.py and README.md.

  The network is a StableHLO function of the weights and normalised images (b, s, s, 3), or clips
  (b, t, s, s, 3), with any b, for the platforms PLATFORMS. What depends on parameters alone in the selection
  of classes is computed here, once.

  Args:
    config: the config of the run; eval.checkpoint and eval.weights say what is exported ('all': the averaged
      weights where the run keeps them).
    workdir: the folder of the run.

  Returns:
    The folder.

  Raises:
    Halt: there is no such checkpoint, or it does not fit (status 2); the folder could not be written (1).
  """
  workdir = pathlib.Path(os.path.expanduser(workdir))
  with bad_input():
    check_served(config, 'the export', ('classification', 'video'))
    setup.prepare_jax(config)
    distributed.check_alone('the export')
    task: Any = task_of(config)
    classes = task.classes_of(config, workdir)
    config = task.resolve(config, workdir, classes)
    setup.check_settings(config, task)
    model, weights, step, which = restore.restore_network(config, workdir, task, classes)
  side = config.data.image_size
  serialized = serialize(model, weights, side)
  counts: tuple[int, ...] = ()
  if model.contextual:
    counts = model.class_counts or default_class_counts(model.num_classes, len(model.dims))
  about = {
    'model': networks.model_keywords(config, classes.num_classes),
    'class_names': list(classes.class_names),
    'class_counts': list(counts),
    'image_size': side,
    'crop_ratio': config.eval.crop_ratio,
    'mean': np.broadcast_to(config.data.mean, 3).tolist(),
    'std': np.broadcast_to(config.data.std, 3).tolist(),
    'step': step,
    'weights': which,
  }
  text = lambda part: readme(part, model, about)
  return write_folder(workdir / 'export', weights, about, serialized, LOADER, text)


def write_folder(folder, weights, about, serialized, loader, text):
  """Writes an export, whole or not at all, says so, and returns its folder.

  Args:
    folder: that an earlier export may be in.
    weights: variables.
    about: what the file of the weights says beside them.
    serialized: of the network.
    loader: text of load.py.
    text: folder that holds the files of these -> text of README.md.
  """
  part, before = (folder.with_name(f'{folder.name}.{name}') for name in ('part', 'before'))
  with failed_report(folder):
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_weights(part / 'weights.safetensors', weights, **about)
    (part / 'network.stablehlo').write_bytes(serialized)
    (part / 'load.py').write_text(loader)
    (part / 'README.md').write_text(text(part))
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():  # an earlier one stays until this one is whole
      os.replace(folder, before)
    os.replace(part, folder)
    shutil.rmtree(before, ignore_errors=True)
  print(
    f'step {about["step"]}, {about["weights"]} weights, exported to {printable(folder)}: see its README.md',
    flush=True,
  )
  return folder


def serialize(model, variables, side):
  """Bytes for jax.export.deserialize: ({name: array}, images or clips) -> logits (b, n), with any b."""

  def network(weights, images):
    return model.apply(unflatten(weights), images, train=False)[0]

  (b,) = jax.export.symbolic_shape('b')
  shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in flatten(variables).items()}
  images = jax.ShapeDtypeStruct((b, *model.example_shape(side)), jnp.float32)
  return jax.export.export(jax.jit(network), platforms=PLATFORMS)(shapes, images).serialize()


def sizes(folder):
  """Megabytes of the network and of the weights in a folder."""
  names = 'network.stablehlo', 'weights.safetensors'
  return tuple((folder / name).stat().st_size / 1e6 for name in names)


def readme(folder, model, about):
  """The text of the folder's README.md."""
  side = about['image_size']
  shape = model.example_shape(side)
  layers = summarise(model, shape)
  name, of_clips, filter_ = 'images', '', 'bicubic'
  if model.segments > 1:
    name, filter_ = 'clips', 'bilinear'
    of_clips = f'{model.segments} frames of a video, the middles of as many equal parts; frames '
  code, arrays = sizes(folder)
  parameters, classes = sum(x.parameters for x in layers), len(about['class_names'])
  mean, std = (', '.join(f'{value:.6g}' for value in about[name]) for name in ('mean', 'std'))
  considered = ''
  if model.contextual:
    *earlier, last = range(2, len(model.dims) + 1)
    considered = (
      f'\nIts stages {", ".join(map(str, earlier))} and {last} consider '
      f'{", ".join(map(str, about["class_counts"]))} classes'
      + ('; those that are no longer considered score -inf' if model.class_selection == 'reduction' else '')
      + '.\n'
    )
  return f"""# {about['model']['name']}

A network exported from ctx_flax: step {about['step']}, {about['weights']} weights, {classes} classes.
{considered}
```python
from load import load  # pip install jax numpy flatbuffers

network, about = load('.')
logits = network({name})  # float32 (b, {', '.join(map(str, shape))}) -> (b, {classes}), any b
```

`{name}` are {of_clips}RGB, channels last, `(pixel / 255 - mean) / std` with mean ({mean}) and std ({std}):
the centre square of {about['crop_ratio']:.6g} of the short side, resized to {side} x {side}, by an
antialiased {filter_} filter.
`about` holds this as JSON texts, and the names of the classes in the order of the scores:
`json.loads(about['class_names'])`.

| file | MB | |
|---|---|---|
| `network.stablehlo` | {code:.2f} | the function, by `jax.export`, for {', '.join(PLATFORMS)} |
| `weights.safetensors` | {arrays:.2f} | {parameters:,} parameters, and tables made from them |
| `load.py` | | the loader; it needs nothing of ctx_flax |

One {name.removesuffix('s')} takes {sum(x.macs for x in layers) / 1e9:.3f} billion multiply-accumulates. A run
of
ctx_flax can start from `weights.safetensors`: `--config.init.weights`.
"""
