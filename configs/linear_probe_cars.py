"""Linear probe of ResNet50, contextual and plain, on Stanford Cars (the paper, Table 3: 50.20 plain, 55.82).

python main.py --mode=linear_probe --config=configs/linear_probe_cars.py --config.data.path=DIR \\
    --config.probe.weights=RUN --config.probe.plain_weights=resnet50.pth
DIR holds train/CLASS and test/CLASS with the 8,144 and 8,041 images of the 196 classes; any other folder of
images works the same. The data set's original download is gone: find the images elsewhere and sort them into
folders, or prepare tfds:cars196 from your copy. Weights are a run's folder or a file (docs/weights.md).
Variants: those of VARIANTS below.
"""

from ctx_flax.configs import default

VARIANTS = {
  'convnext': {'model.name': 'ctx_convnext_t', 'probe.plain_model': 'convnext_t'},
  'rerank': {'model.class_selection': 'rerank'},  # for the authors' weights
  'tfds': {'data.name': 'tfds:cars196'},
  'size': 'data.image_size',
  'batch': 'eval.batch_size',
}


def get_config(argument=''):
  return default.with_variants(recipe(), argument, VARIANTS)


def recipe():
  """Frozen networks, 3,000 iterations of AdamW on single crops of 448 px."""
  config = default.get_config()
  config.model.name = 'ctx_resnet50'
  config.model.num_classes = 0

  config.probe.plain_model = 'resnet50'
  config.probe.iterations = 3000
  config.probe.batch_size = 512
  config.probe.learning_rate = 1e-3
  config.probe.weight_decay = 1e-5

  config.eval.batch_size = 64
  config.eval.crop_ratio = 0.875  # not stated by the paper

  config.data.name = 'image_folder'
  config.data.test_share = 0.2  # only where the folder has no split of its own
  config.data.image_size = 448
  return config
