"""A training step of MMDetection's Mask R-CNN and Cascade Mask R-CNN: losses, gradients and statistics."""

import jax
import ml_collections
import numpy as np
import pytest
from tiny_detectors import golden_detector

from ctx_flax.configs.fields import detector_training
from ctx_flax.tasks.detection.objective import objective
from ctx_flax.torch_weights import to_torch
from ctx_flax.training.parallel import AXIS
from ctx_flax.training.terms import weighted_loss

# Relative error of gradients by norm: (of any parameter, median over parameters). A ReLU passes an activation
# near zero or not as the processor rounds, which moves single entries of the gradients by a finite amount: on
# one processor all were within 1e-4 and 2e-3 of the largest, on another one within 1.5e-3 and 1.4e-2, with
# errors by norm of up to 1.1e-3 and 1.1e-2 and medians of 2.9e-5 and 5.4e-4.
TOLERANCE = {'mask_rcnn': (5e-3, 2e-4), 'cascade_mask_rcnn': (3e-2, 3e-3)}


def settings(name):
  """As ConvNeXt's configurations have them, with samplers that take all."""
  config = ml_collections.ConfigDict()
  detector_training.add_fields(config)
  config.sampling.update(dict.fromkeys(config.sampling, 1_000_000))
  if name == 'cascade_mask_rcnn':
    config.assignment.update(region_iou=(0.5, 0.6, 0.7), region_best=False)
    config.loss.update(anchor_beta=1 / 9, box='giou', box_weight=10.0, stage_weights=(1.0, 0.5, 0.25))
  config.model = {'name': name}
  config.data = {'mean': (0.0,), 'std': (1.0,)}
  config.seed = 0
  return config


def batch_of(arrays, places=8):
  """The two images of a file, normalised already, with places for more objects than they have."""
  boxes, labels = np.zeros((2, places, 4), np.float32), np.full((2, places), -1, np.int32)
  masks = np.zeros((2, places, 96, 16), np.uint8)
  for image in range(2):
    count = len(arrays[f'gt_labels{image}'])
    for array, name in ((boxes, 'boxes'), (labels, 'labels'), (masks, 'masks')):
      array[image, :count] = arrays[f'gt_{name}{image}']
  return {
    'image': arrays['image'].astype(np.float32),
    'image_hw': arrays['img_hw'],
    'index': np.arange(2, dtype=np.int32),
    'boxes': boxes,
    'labels': labels,
    'masks': masks,
    'weight': np.ones(2, np.float32),
  }


def of_prefix(arrays, prefix):
  return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


class Step:
  """A step of MMDetection's tiny detector; keywords replace the detector's attributes."""

  def __init__(self, name, golden, gradients=True, **keywords):
    self.name = name
    model, variables, self.arrays = golden_detector(golden, name)
    self.model = model.clone(**keywords)
    aim = objective(settings(name), self.model)

    def loss(params, batch_stats, batch):
      outputs = aim.terms(params, batch_stats, batch, jax.random.key(0), 0)
      sums, counts = (
        dict(zip(outputs.losses, of, strict=True)) for of in zip(*outputs.losses.values(), strict=True)
      )
      total = weighted_loss(sums, counts, aim.weights)
      means = {key: aim.weights[key] * sums[key] / counts[key] for key in sums}
      return total, (means, outputs.batch_stats)

    run = jax.value_and_grad(loss, has_aux=True) if gradients else lambda *args: (loss(*args), {})
    run = jax.pmap(run, AXIS, in_axes=(None, None, 0), out_axes=None, devices=jax.devices()[:1])
    batch = {key: value[None] for key, value in batch_of(self.arrays).items()}
    answer = run(variables['params'], variables.get('batch_stats', {}), batch)
    (self.total, (self.means, self.statistics)), self.gradients = jax.tree.map(np.asarray, answer)


# Half a minute each to compile. What a step consists of is compared with the reference by shorter tests.
@pytest.fixture(
  scope='module',
  params=[pytest.param(name, marks=pytest.mark.slow) for name in ('mask_rcnn', 'cascade_mask_rcnn')],
)
def step(request, golden):
  return Step(request.param, golden)


def assert_losses(step, expected):
  """`expected` are the losses by MMDetection's names."""
  prefix = 's{}.' if step.name == 'cascade_mask_rcnn' else ''
  names = {'rpn_class': 'loss_rpn_cls', 'rpn_box': 'loss_rpn_bbox'}
  for stage in range(step.model.stages):
    theirs = {'class': 'loss_cls', 'box': 'loss_bbox', 'mask': 'loss_mask'}
    names |= {f'{ours}{stage}': prefix.format(stage) + name for ours, name in theirs.items()}
  assert names.keys() == step.means.keys()
  for ours, name in names.items():
    np.testing.assert_allclose(step.means[ours], expected[name].sum(), rtol=1e-5, err_msg=ours)
  np.testing.assert_allclose(step.total, expected['total'], rtol=1e-5)


def test_losses(step):
  assert_losses(step, of_prefix(step.arrays, 'train.'))


@pytest.mark.slow
@pytest.mark.parametrize(
  'name, prefix', [('mask_rcnn', 'mask.train.'), ('cascade_mask_rcnn', 'cascade.train.')]
)
def test_losses_without_empty_proposals(name, prefix, golden):
  """MMDetection 3.3 drops them before NMS."""
  step = Step(name, golden, gradients=False, min_box_size=0.0)
  assert_losses(step, of_prefix(golden('coco/tiny_v3_filter'), prefix))


def test_gradients(step):
  arrays = step.arrays
  variables = {'params': step.gradients} | ({'batch_stats': step.statistics} if step.statistics else {})
  actual, expected = to_torch(variables, step.model, 'mmdet'), of_prefix(arrays, 'grad.')
  assert expected.keys() <= actual.keys()
  largest, median = TOLERANCE[step.name]
  errors = {}
  for name, gradient in expected.items():
    error, norm = np.linalg.norm(actual[name] - gradient), np.linalg.norm(gradient)
    if norm:
      errors[name] = error / norm
    else:
      assert error == 0, name
  assert max(errors.values()) < largest, max(errors, key=errors.get)
  assert np.median(list(errors.values())) < median


def test_statistics(step):
  """Those of the cascade's heads, over the regions that were drawn."""
  arrays = step.arrays
  after = of_prefix(arrays, 'after.')
  actual = (
    to_torch({'params': step.gradients, 'batch_stats': step.statistics}, step.model, 'mmdet') if after else {}
  )
  assert bool(after) == (step.name == 'cascade_mask_rcnn')
  for name, value in after.items():
    np.testing.assert_allclose(actual[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
