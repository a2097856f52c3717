"""Pictures of images with what a detector finds in them, one file for each."""

import numpy as np
from PIL import Image

from ctx_flax import files as file_text
from ctx_flax.analysis.picture_files import PictureFiles
from ctx_flax.data.object_drawing import draw_objects
from ctx_flax.tasks.detection.paste import paste_mask

SIDES = 640, 1600  # pixels of the longer side of a picture: captions have one size, whatever the image has


class Pictures(PictureFiles):
  """A folder of PNG files of images with their objects."""

  def write(self, image, pixels, found, class_names):
    """Draws and writes a picture, whole or not at all.

    Args:
      image: the name of the file.
      pixels: uint8 (h, w, 3) of it.
      found: {'boxes', 'scores', 'labels', 'valid', 'masks'}, arrays of one image's Detections.
      class_names: by number.
    """
    with file_text.replacing(self.path(image)) as part:
      Image.fromarray(draw(pixels, found, class_names)).save(part, 'PNG')


def draw(pixels, found, class_names):
  """An image with its detections, uint8 (h', w', 3), of a size that captions can be read at."""
  h, w, _ = pixels.shape
  least, most = SIDES
  factor = min(max(1.0, least / max(h, w)), most / max(h, w))
  hw = max(1, round(h * factor)), max(1, round(w * factor))
  resampling = Image.Resampling.BICUBIC if factor > 1 else Image.Resampling.BOX
  resized = np.asarray(Image.fromarray(pixels).resize(hw[::-1], resampling))
  valid = found['valid']
  boxes = found['boxes'][valid] * np.tile([hw[1] / w, hw[0] / h], 2)
  # At this size, not at the image's own: a hundred masks of a large photograph take gigabytes.
  masks = [paste_mask(mask, box, hw) for mask, box in zip(found['masks'][valid], boxes, strict=True)]
  return draw_objects(
    resized,
    boxes,
    found['labels'][valid],
    class_names,
    scores=found['scores'][valid],
    masks=np.array(masks).reshape(-1, *hw),
  )
