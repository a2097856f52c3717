"""Linear probe of ResNet50, contextual and plain, on CUB-200-2011 (the paper, Table 3: 63.02 plain, 66.64).

python main.py --mode=linear_probe --config=configs/linear_probe_cub.py --config.data.path=CUB_200_2011 \\
    --config.probe.weights=RUN --config.probe.plain_weights=resnet50.pth
CUB_200_2011 is the data set as it is downloaded, 5,994 and 5,794 images of 200 classes by its own division.
Weights are a run's folder or a file (docs/weights.md). Variants: those of VARIANTS below.
"""

from configs import linear_probe_cars
from ctx_flax.configs import default

VARIANTS = linear_probe_cars.VARIANTS | {
  'tfds': {'data.name': 'tfds:caltech_birds2011'},
  'folder': {'data.name': 'image_folder'},
}


def get_config(argument=''):
  config = linear_probe_cars.recipe()
  config.data.name = 'cub'
  config.data.test_share = 0.0
  return default.with_variants(config, argument, VARIANTS)
