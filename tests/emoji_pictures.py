"""Pictures of emoji, made here, in files as `prepare emoji` writes them."""

import io
import zipfile

import numpy as np
from PIL import Image

SIDE = 12


def png(pixels):
  content = io.BytesIO()
  Image.fromarray(pixels).save(content, 'PNG')
  return content.getvalue()


def halves():
  """Red on the left, green on the right, opaque."""
  pixels = np.zeros((SIDE, SIDE, 4), np.uint8)
  pixels[:, : SIDE // 2], pixels[:, SIDE // 2 :] = (255, 0, 0, 255), (0, 255, 0, 255)
  return pixels


def archive(folder, styles, names, side=48, **options):
  folder.mkdir(parents=True, exist_ok=True)
  with zipfile.ZipFile(folder / f'emoji_{side}.zip', 'w', **options) as file:
    for style in styles:
      for name in names:
        file.writestr(f'{style}/{name}.png', png(halves()))
  return folder
