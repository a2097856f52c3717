"""What a run of a detector starts from: settings that go together, and the weights of a classifier."""

import numpy as np
import pytest
from detection_runs import detection_run_config, write_images
from run_files import arrays, make_run
from tiny import tiny_config

from configs import digits
from ctx_flax.analysis import predict
from ctx_flax.tasks import run
from ctx_flax.tasks.detection import networks
from ctx_flax.training.halt import Halt


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  return write_images(tmp_path_factory.mktemp('coco'))


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
  """The folder of a run of a classification network."""
  config = tiny_config()
  config.model.class_counts = (8, 6, 4)
  return make_run(config, tmp_path_factory.mktemp('classifier') / 'run')


def test_what_does_not_go_together_is_refused(root, classifier, tmp_path):
  def refused(mode, message, config, workdir=tmp_path / 'run'):
    with pytest.raises(Halt, match=message) as raised:
      mode(config, workdir)
    assert raised.value.status == 2 and '\n' not in str(raised.value)

  def changed(**fields):
    config = detection_run_config(root, '')
    for path, value in fields.items():
      group, _, name = path.partition('_')
      config[group][name] = value
    return config

  alone = r'holds the weights of a classification network alone, which detects nothing'
  refused(run.evaluate, alone, changed(init_weights=str(classifier)))
  refused(
    run.train,
    r"model\.name is 'ctx_convnext_t', which is no detector.*model\.backbone",
    changed(model_name='ctx_convnext_t'),
  )
  refused(
    run.train,
    r"model\.backbone is 'convnext', which is no network; did you mean",
    changed(model_backbone='convnext'),
  )
  refused(run.train, r'model\.num_classes is 80, but coco has 3', changed(model_num_classes=80))
  refused(run.train, r'has 3 stages, but loss\.stage_weights', changed(model_name='cascade_mask_rcnn'))
  refused(run.train, r'init\.freeze_norm is True', changed(init_freeze_norm=True))
  refused(run.train, r"mask_rcnn takes no 'segments'", changed(model_segments=8))
  refused(run.train, r'may get 48 x 64 pixels', changed(data_canvases=((32, 64),)))
  config = digits.get_config()
  config.model.name = 'mask_rcnn'
  refused(run.train, r'model\.name is mask_rcnn, a detector, but the task is classification', config)
  refused(
    predict.predict,
    'this analysis serves runs of classification, video, but this is one of detection',
    changed(),
  )


def test_contexts_are_those_of_the_weights(root, classifier, tmp_path):
  """Of a classification network: its classes and how many of them each stage considers."""
  config = detection_run_config(root, '', context_classes=0, class_counts=())
  assert networks.with_contexts(config, tmp_path / 'run').model == config.model
  config.init.weights = str(classifier)
  found = networks.with_contexts(config, tmp_path / 'run').model
  assert (found.context_classes, found.class_counts) == (10, (8, 6, 4))
  config.model.context_classes = 20
  assert networks.with_contexts(config, tmp_path / 'run').model.class_counts == ()


@pytest.mark.slow
def test_what_a_backbone_decides_by_stays_as_it_was(root, tmp_path):
  """A contextual detector from a classification network: embeddings, heads and scale; the rest learns."""
  # A branch of one feature would have nothing left after its LayerNorm.
  dims = {'dims': (8, 8, 16, 16), 'depths': (1, 1, 1, 1), 'embed_dim': 16, 'branch_dim': 4}
  config = tiny_config()
  config.model.update(class_counts=(8, 6, 4), **dims)
  classifier = make_run(config, tmp_path / 'classifier')
  config = detection_run_config(root, '', context_classes=0, class_counts=(), layer_scale_init=0.1, **dims)
  config.init.update(weights=str(classifier), allow_missing=('detector',), freeze=())
  config.model.mask_gain = 1.0
  config.train.update(steps=2, eval_every=0)
  run.train(config, tmp_path / 'run')
  before, after = arrays(classifier), arrays(tmp_path / 'run')
  name = "['variables']['params']['backbone']"
  kept = {key: value for key, value in after.items() if key.startswith(name)}
  same = {
    key.removeprefix(name)
    for key, value in kept.items()
    if np.array_equal(
      value, before[key.replace("['backbone']", '').replace("['params']", "['ema']['params']")]
    )
  }
  decides = {key for key in same if 'class_embedding' in key or 'logit_scale' in key or "['head" in key}
  assert same == decides and len(decides) > 3
