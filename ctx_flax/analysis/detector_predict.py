"""What a detector sees in images: classes, boxes and masks of objects, in text and in pictures."""

import contextlib
import functools
import sys
import time

import numpy as np

from ctx_flax import files as file_text
from ctx_flax.analysis.detector_pictures import Pictures
from ctx_flax.analysis.detector_results import FORMATS, WRITERS, image_ids
from ctx_flax.analysis.predict import check_named, named_files, opened
from ctx_flax.analysis.run import DETECTORS, check_task, open_run
from ctx_flax.data import detection_files
from ctx_flax.data.image_files import counted
from ctx_flax.training.feed import BadImages, Feed
from ctx_flax.training.halt import Halt, bad_data, bad_input, failed_report
from ctx_flax.training.logging import Progress


def predict(config, workdir):
  """Detects objects in files and writes those of each image as they are computed.

  Everything but the result goes to the standard error, so that the result can be piped.

  Args:
    config: the config of a run; predict.{images, list} name the files, predict.{format, output, score,
      shown_score, pictures} say how the objects are told.
    workdir: the folder of the run.

  Returns:
    How many images could be read.

  Raises:
    Halt: the input is wrong, or no image could be read (status 2); the result could not be written (1).
  """
  say = functools.partial(print, file=sys.stderr, flush=True)
  with bad_input():
    check_task(config, DETECTORS)
    options = config.predict
    if options.format not in FORMATS:
      raise ValueError(f'predict.format is {options.format!r}: it must be one of {", ".join(FORMATS)}')
    check_named(options)
    files = named_files(options, say)
    pictures = Pictures(options.pictures, files) if options.pictures else None
    run = open_run(config, workdir, images=False, warn=say, served=DETECTORS)
    ids = image_ids(run, files, say) if options.format == 'coco' else ()
  read = overflows = 0
  where = options.output or 'the standard output'
  with contextlib.ExitStack() as stack:
    stack.enter_context(bad_data())
    stack.enter_context(failed_report(where))
    stream = stack.enter_context(opened(options.output))
    write = stack.enter_context(WRITERS[options.format](stream, run, ids))
    images = stack.enter_context(contextlib.closing(detections(run, files, pictures is not None)))
    for index, hw, found, pixels in images:
      shown = above(found, options.shown_score)
      write(index, files[index], hw, shown if options.format == 'table' else above(found, options.score))
      if pictures is not None:
        with failed_report(options.pictures):
          pictures.write(files[index], pixels, shown, run.class_names)
      read, overflows = read + 1, overflows + bool(found['overflow'])
  if not read:
    raise Halt(f'none of the {len(files)} images could be read', 2)
  if read < len(files):
    say(f'{len(files) - read} of {len(files)} images could not be read')
  if overflows:
    say(f'{counted(overflows, "image")} had more candidates than model.candidates, and may lack detections')
  for path in filter(None, (options.output, options.pictures)):
    say(f'{counted(read, "image")} in {file_text.printable(path)}')
  return read


def detections(run, files, pixels=False):
  """Yields what a detector finds in every file that can be read, image by image, with progress.

  Each image is resized as in tests, and has the smallest canvas that holds it.

  Args:
    run: a DetectorRun.
    files: paths of image files.
    pixels: whether those of the file are wanted.

  Yields:
    (number of the file, its (h, w), {name: array} of one image's Detections with boxes in pixels of the file,
    the pixels uint8 (h, w, 3) or None).
  """
  source = detection_files.source_of_files(files)
  with Progress(len(files), 0, stream=sys.stderr) as progress:
    bad = BadImages(lambda index: detection_files.describe_bad(source, index), progress.warn)

    def place(batch):
      bad.add(batch.pop('bad'), 'left out')
      return batch

    batches = detection_files.file_batches(source, run.config, pixels)
    with contextlib.closing(Feed(batches, place, run.config.data.prefetch)) as feed:
      began = time.monotonic()
      for number, batch in enumerate(feed, 1):
        if batch['weight'][0] > 0:
          found = run.detect(batch)._asdict()
          yield (
            int(batch['index'][0]),
            tuple(batch['original_hw'][0].tolist()),
            {name: np.asarray(value[0]) for name, value in found.items()},
            batch['pixels'][0] if pixels else None,
          )
        left = (time.monotonic() - began) / number * (len(files) - number)
        progress.update(number, f'predicted: {counted(number, "image")}', left)


def above(found, score):
  """The detections of an image, with those below a score no longer valid."""
  return found | {'valid': found['valid'] & (found['scores'] >= score)}
