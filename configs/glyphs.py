"""Contextual ConvNeXt on 200 characters: 20,000 images in sans-serif fonts to train, 4,000 in serif ones to
test, drawn here at 32x32.

python main.py --config=configs/glyphs.py         the contextual network
python main.py --config=configs/glyphs.py:plain   the plain one under the same budget
Variants: those of patches.py.
"""

from configs import patches
from ctx_flax.configs import default


def get_config(argument=''):
  config = patches.recipe('glyphs', classes=200)
  config.data.mean = (0.575,)  # of the images; one value serves all channels
  config.data.std = (0.29,)
  return default.with_variants(config, argument, patches.VARIANTS)
