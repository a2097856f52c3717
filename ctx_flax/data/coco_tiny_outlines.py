"""Outlines of the objects that are cut out of photographs for coco_tiny, drawn by hand. Pixels (x, y)."""

import functools

import numpy as np

from ctx_flax.data import photographs

PHOTOGRAPHS = {  # name -> (package, file in it)
  'astronaut': ('skimage', 'data/astronaut.png'),
  'cat': ('skimage', 'data/chelsea.png'),
  'coffee': ('skimage', 'data/coffee.png'),
  'coins': ('skimage', 'data/coins.png'),
  'motorcycle': ('skimage', 'data/motorcycle_left.png'),
  'dahlia': ('sklearn', 'datasets/images/flower.jpg'),
}
# Name of a class -> the photograph, and (centre x, centre y, half width, half height) of an ellipse.
ELLIPSES = {
  'flower': ('dahlia', [(307, 220, 133, 133)]),
  'eye': ('cat', [(171, 114, 37, 31)]),
  'coin': (
    'coins',
    [
      *((46, 260, 28, 28), (154, 198, 20, 20), (44, 197, 19, 19), (102, 195, 22, 22), (274, 195, 23, 23)),
      *((212, 193, 24, 24), (154, 128, 20, 20), (102, 126, 19, 19), (336, 125, 20, 20), (206, 124, 20, 20)),
      *((45, 125, 21, 21), (270, 119, 25, 25), (100, 56, 19, 19), (44, 54, 21, 21), (215, 53, 23, 23)),
      (153, 54, 25, 25),
    ],
  ),
}
POLYGONS = {
  'cup': (
    'coffee',
    [
      *((173, 85), (181, 50), (215, 27), (270, 18), (330, 25), (380, 48), (403, 85), (400, 130), (388, 172)),
      *((366, 205), (335, 238), (300, 250), (262, 254), (240, 262), (225, 298), (205, 300), (198, 278)),
      *((217, 240), (226, 222), (200, 185), (182, 140)),
    ],
  ),
  'shuttle': (
    'astronaut',
    [
      *((410, 24), (425, 40), (431, 75), (440, 52), (452, 60), (455, 180), (455, 245), (440, 258)),
      *((432, 280), (380, 276), (372, 228), (360, 222), (385, 165), (383, 92), (394, 75), (396, 40)),
    ],
  ),
  'head': (
    'astronaut',
    [
      *((180, 22), (215, 15), (260, 18), (288, 45), (299, 80), (293, 115), (270, 130), (262, 165)),
      *((240, 182), (200, 182), (185, 163), (178, 125), (160, 110), (154, 75), (161, 40)),
    ],
  ),
  'helmet': (
    'astronaut',
    [
      *((285, 420), (302, 376), (340, 354), (395, 345), (440, 354), (474, 387), (493, 430), (494, 498)),
      (284, 498),
    ],
  ),
  'motorcycle': (
    'motorcycle',
    [
      *((88, 208), (150, 160), (245, 166), (300, 186), (345, 190), (440, 162), (458, 122), (490, 100)),
      *((540, 104), (558, 135), (545, 180), (590, 252), (648, 310), (670, 400), (640, 450), (580, 430)),
      *((520, 360), (430, 375), (340, 380), (270, 370), (215, 398), (150, 380), (124, 320), (132, 262)),
      (96, 225),
    ],
  ),
}
TINTS = {'coin': (1.0, 0.85, 0.6)}  # of a photograph without colours
CLASSES = 'flower', 'cup', 'shuttle', 'head', 'helmet', 'eye', 'motorcycle', 'coin'


@functools.cache
def cutouts(name: str) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
  """(pixels uint8 (h, w, 3), mask uint8 (h, w), 255 in the object) of each object of a class."""
  import cv2

  if name in ELLIPSES:
    photograph, ellipses = ELLIPSES[name]
    angles = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    outlines = [
      np.stack([x + a * np.cos(angles), y + b * np.sin(angles)], axis=-1) for x, y, a, b in ellipses
    ]
  else:
    photograph, polygon = POLYGONS[name]
    outlines = [np.array(polygon)]
  image = photographs.shipped(*PHOTOGRAPHS[photograph])
  image = (image * np.array(TINTS.get(name, (1.0, 1.0, 1.0)))).astype(np.uint8)
  parts = []
  for outline in outlines:
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.rint(outline).astype(np.int32)], 255)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    parts.append((image[part], mask[part]))
  return tuple(parts)
