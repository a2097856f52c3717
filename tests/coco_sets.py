"""Sets of images with objects that are rectangles, in the format of COCO, and detections of them."""

import json

import numpy as np

CATEGORIES = {3: 'cat', 7: 'dog', 90: 'kite'}

HW = 60, 80
IMAGES = {5: HW, 2: HW}
# Two cats in image 2, one of them small; a crowd of dogs and a dog in image 5; no kite.
OBJECTS = [
  (2, 3, (10, 10, 40, 40)),
  (2, 3, (60, 5, 10, 20)),
  (5, 7, (0, 0, 30, 60), True),
  (5, 7, (40, 10, 36, 40)),
]


def annotated(objects, images, categories=CATEGORIES):
  """What an annotation file holds.

  Args:
    objects: (image, category, (x, y, w, h)), and with True at the end for a crowd, in whole pixels.
    images: {id: (h, w)}.
    categories: {id: name}.
  """
  annotations = []
  for number, (image, category, box, *crowd) in enumerate(objects, 1):
    record = {'id': 10 * number, 'image_id': image, 'category_id': category, 'bbox': list(box)}
    record |= {'area': box[2] * box[3], 'iscrowd': int(any(crowd)), 'segmentation': [corners(box)]}
    if any(crowd):
      record['segmentation'] = lengths(box, images[image])
    annotations.append(record)
  return {
    'images': [{'id': image, 'height': h, 'width': w} for image, (h, w) in images.items()],
    'annotations': annotations,
    'categories': [{'id': category, 'name': name} for category, name in categories.items()],
  }


def corners(box):
  """A rectangle as a polygon."""
  x, y, w, h = box
  return [x, y, x + w, y, x + w, y + h, x, y + h]


def lengths(box, hw):
  """A rectangle as run lengths that are not compressed."""
  mask = pixels(box, hw).T.ravel().astype(np.int8)
  turns = np.flatnonzero(np.diff(mask, prepend=0))
  return {'size': list(hw), 'counts': np.diff([0, *turns.tolist(), mask.size]).tolist()}


def pixels(box, hw):
  """A rectangle as a mask, bool (h, w)."""
  x, y, w, h = box
  mask = np.zeros(hw, bool)
  mask[y : y + h, x : x + w] = True
  return mask


def detected(image, category, box, score, hw=None):
  """A result: a rectangle, with a mask for an image of (h, w) pixels."""
  result = {'image_id': image, 'category_id': category, 'bbox': list(box), 'score': score}
  if hw is not None:
    from pycocotools import mask

    code = mask.encode(np.asfortranarray(pixels(box, hw), np.uint8))
    result['segmentation'] = {'size': list(hw), 'counts': code['counts'].decode('ascii')}
  return result


def golden_set(folder):
  """(Annotations, results) of the made-up set among the authors' values."""
  both = json.loads((folder / 'coco' / 'coco_eval.json').read_text())
  return both['gt'], both['dt']
