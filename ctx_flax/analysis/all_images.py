"""One pass of a run's network over all images of a source."""

import contextlib
import time

import numpy as np

from ctx_flax.data import pipeline
from ctx_flax.data.decode import BadImage
from ctx_flax.models.inference import apply_in_turn
from ctx_flax.training import evaluation, parallel
from ctx_flax.training.feed import Feed
from ctx_flax.training.logging import Progress


def over_images(run, function, label, source=None, limit=0):
  """Applies the network to all images and keeps what `function` takes from its outputs.

  Args:
    run: a Run.
    function: (out, labels) -> {name: array with a row per image}, traced by jax.
    label: what the progress display says is done.
    source: of the images; None: the run's test images.
    limit: of the first so many images alone; 0 = of all.

  Returns:
    {name: array}, 'label' and 'index' among them, a row for every image that could be read, in order.

  Raises:
    BadImage: one could not be read, where data.on_bad_image is 'error', or none could.
  """
  parts = list(in_batches(run, function, label, source, limit))
  found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
  if not len(found['label']):
    raise BadImage('none of the images could be read: check data.path')
  return found


def in_batches(run, function, label, source=None, limit=0, stream=None):
  """What `over_images` concatenates, batch by batch; `stream` is where progress is shown."""
  source = run.source if source is None else source
  size = run.config.eval.batch_size
  images = min(limit or len(source), len(source))
  batches = -(-images // size)

  def rows(variables, batch):
    _, out = apply_in_turn(run.model, variables, batch['image'])
    return function(out, batch['label'])

  step = parallel.pmap_rows(rows)
  variables = parallel.replicate(run.variables)
  with Progress(batches, 0, stream=stream) as progress:
    bad = evaluation.bad_test_images(source, run.config, progress.warn)

    def place(batch):
      bad.add(batch.pop('bad'), 'left out')
      weight = batch.pop('weight') > 0
      return parallel.place_batch(batch), weight, batch['label']

    made = pipeline.eval_batches(source, run.config)
    began = time.monotonic()
    with contextlib.closing(Feed(made, place, run.config.data.prefetch)) as feed:
      for number, (batch, kept, labels) in enumerate(feed, 1):
        index = np.arange((number - 1) * size, number * size)
        kept &= index < images
        found = {**step(variables, batch), 'label': labels, 'index': index}
        yield {name: value[kept] for name, value in found.items()}
        rate = (time.monotonic() - began) / number
        shown = f'{label}: {min(number * size, images):,} images'
        progress.update(number, shown, rate * (batches - number))
        if number == batches:
          break
