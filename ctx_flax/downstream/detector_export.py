"""Shipping a detector: --mode=export writes a folder that runs with jax and numpy alone."""

import os
import pathlib
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

from ctx_flax.data import canvases
from ctx_flax.downstream.export import PLATFORMS, sizes, write_folder
from ctx_flax.models.summary import summarise
from ctx_flax.models.weight_files import flatten, unflatten
from ctx_flax.tasks import check_served, task_of
from ctx_flax.tasks.detection import networks
from ctx_flax.tasks.detection.images import PADDING, network_inputs
from ctx_flax.training import distributed, restore, setup
from ctx_flax.training.halt import bad_input

LOADER = pathlib.Path(__file__).with_name('detector_loader.py')


def export(config, workdir):
  """Writes workdir/export: network.stablehlo, weights.safetensors, load.py and README.md.

  The network is a StableHLO function of the weights and of a batch of images of one canvas, for the platforms
  PLATFORMS; see `serialize`. load.py resizes and pads images of any size, and pastes masks.

  Args:
    config: the config of the run; export.{canvas, batch_size}; eval.checkpoint and eval.weights say what is
      exported ('all': the averaged weights where the run keeps them).
    workdir: the folder of the run.

  Returns:
    The folder.

  Raises:
    Halt: there is no such checkpoint, it does not fit, or no network takes such a canvas (status 2); the
      folder could not be written (1).
  """
  workdir = pathlib.Path(os.path.expanduser(workdir))
  with bad_input():
    check_served(config, 'this export', ('detection',))
    setup.prepare_jax(config)
    distributed.check_alone('the export')
    task: Any = task_of(config)
    classes = task.classes_of(config, workdir)
    config = task.resolve(config, workdir, classes)
    setup.check_settings(config, task)
    canvas, batch_size = canvas_of(config), config.export.batch_size
    model, weights, step, which = restore.restore_network(config, workdir, task, classes)
  data = config.data
  about = {
    'model': networks.model_keywords(config, len(classes.class_names)),
    'class_names': list(classes.class_names),
    'category_ids': list(classes.category_ids),
    'canvas': list(canvas),
    'batch_size': batch_size,
    'short_side': config.eval.short_side,
    'long_side': data.long_side,
    'step': step,
    'weights': which,
  }
  serialized = serialize(model, weights, canvas, batch_size, data.mean, data.std)
  layers = summarise(model, (*canvas, 3))
  text = lambda part: readme(part, model, layers, about)
  return write_folder(workdir / 'export', weights, about, serialized, LOADER.read_text('utf-8'), text)


def canvas_of(config):
  """(h, w) of export.canvas, or the largest lying one of data.canvases.

  Raises:
    ValueError: no network takes such a canvas, or no image of a test fits into it.
  """
  if not config.export.canvas:
    both = canvases.both_orientations(config.data.canvases).tolist()
    return max((h * w, (h, w)) for h, w in both if h <= w)[1]
  h, w = config.export.canvas
  if h % PADDING or w % PADDING:
    up = tuple(-(-side // PADDING) * PADDING for side in (h, w))
    raise ValueError(
      f'export.canvas is {h} x {w}: its sides must be multiples of {PADDING}, such as {up[0]} x {up[1]}'
    )
  short, long = config.eval.short_side, config.data.long_side
  if max(h, w) < short:
    raise ValueError(
      f'export.canvas is {h} x {w}, but the images of tests have short sides of eval.short_side={short}, and '
      f'long ones of up to data.long_side={long}: take a larger canvas, or a smaller eval.short_side'
    )
  return h, w


def serialize(model, variables, canvas, batch_size, mean, std):
  """Bytes for jax.export.deserialize.

  Args:
    model: the detector.
    variables: of it, whose shapes alone count.
    canvas: (h, w).
    batch_size: b.
    mean, std: of the channels.

  Returns:
    Of the function ({name: array}, image uint8 (b, h, w, 3), image_hw int32 (b, 2), scale float32 (b, 2)) ->
    Detections as a dict, with boxes in pixels of images that were not scaled.
  """

  def network(weights, image, image_hw, scale):
    images, extents = network_inputs({'image': image, 'image_hw': image_hw}, mean, std)
    return model.apply(unflatten(weights), images, **extents, scale=scale)._asdict()

  b, (h, w) = batch_size, canvas
  shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in flatten(variables).items()}
  image = jax.ShapeDtypeStruct((b, h, w, 3), jnp.uint8)
  image_hw, scale = (jax.ShapeDtypeStruct((b, 2), dtype) for dtype in (jnp.int32, jnp.float32))
  exported = jax.export.export(jax.jit(network), platforms=PLATFORMS)
  return exported(shapes, image, image_hw, scale).serialize()


def readme(folder, model, layers, about):
  """The text of the folder's README.md."""
  code, arrays = sizes(folder)
  b, (h, w), q = about['batch_size'], about['canvas'], model.detections
  parameters, macs = sum(x.parameters for x in layers), sum(x.macs for x in layers)
  classes, short, long = len(about['class_names']), about['short_side'], about['long_side']
  return f"""# {about['model']['name']} on {about['model']['backbone']}

A detector exported from ctx_flax: step {about['step']}, {about['weights']} weights, {classes} classes.

```python
from load import detect, load  # pip install jax numpy flatbuffers

network, about = load('.')
for objects in detect(network, about, images):  # a list of uint8 (height, width, 3), RGB
  for one in objects:  # by falling score
    one['class'], one['score'], one['box'], one['mask']  # x1 y1 x2 y2 in pixels, bool (height, width)
```

`detect` resizes each image to a short side of {short} pixels, unless the long one would exceed {long}, puts
it into the upper left corner of a canvas of {h} x {w} (height x width), and calls `network` with {b} at a
time. An image that is larger than the canvas then, as a standing one on a lying canvas, is an error.

| `network(image, image_hw, scale)` takes | |
|---|---|
| `image` | uint8 ({b}, {h}, {w}, 3), RGB; what lies beyond the image itself does not count |
| `image_hw` | int32 ({b}, 2), height and width of the image there |
| `scale` | float32 ({b}, 2), the factors by which height and width were multiplied |

and returns a dict, rows by falling score:

| | |
|---|---|
| `boxes` | float32 ({b}, {q}, 4), x1 y1 x2 y2 in pixels before scaling |
| `scores`, `labels`, `valid` | ({b}, {q}); rows where `valid` is false are no objects |
| `masks` | float32 ({b}, {q}, 28, 28), probabilities that share the box; `paste` makes pixels of them |
| `overflow` | ({b},), whether there were too many candidates, so that objects may be missing |

`about` has the names of the classes in the order of the labels (`class_names`), the ids that their categories
had in the annotation file (`category_ids`), and what is said here.

| file | MB | |
|---|---|---|
| `network.stablehlo` | {code:.2f} | the function, by `jax.export`, for {', '.join(PLATFORMS)} |
| `weights.safetensors` | {arrays:.2f} | {parameters:,} parameters, and tables made from them |
| `load.py` | | the loader; it needs nothing of ctx_flax |

An image takes {macs / 1e9:.3f} billion multiply-accumulates. A run of ctx_flax can start from
`weights.safetensors`: `--config.init.weights`.
"""
