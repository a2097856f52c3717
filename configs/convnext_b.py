"""Contextual ConvNeXt-B on ImageNet (the paper's supplementary Table 2): ConvNeXt-T's recipe with another
stochastic depth.

python main.py --config=configs/convnext_b.py --workdir=RUN            the contextual network
python main.py --config=configs/convnext_b.py:plain --workdir=RUN      the plain one under the same recipe
For eight GPUs of 80 GB: by --mode=check a part of 256 images keeps 68 GB for its backward pass (counted from
shapes, not measured). Variants: those of convnext_t.py. Its accuracy is not reproduced here yet.
"""

from configs import convnext_t
from ctx_flax.configs import default

VARIANTS = convnext_t.VARIANTS | {'plain': {'model.name': 'convnext_b'}}


def get_config(argument=''):
  config = convnext_t.recipe('ctx_convnext_b', drop_path_rate=0.5)
  config.train.accumulation = 2
  return default.with_variants(config, argument, VARIANTS)
