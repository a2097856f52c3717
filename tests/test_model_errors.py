"""Networks that cannot be built: create_model names the keyword, its value and what it may be."""

import jax.numpy as jnp
import pytest

from ctx_flax.models import create_model, used_keywords

ERRORS = {
  'unknown model': (
    ('ctx_convnext_tt', {}),
    "unknown model 'ctx_convnext_tt'; did you mean 'ctx_convnext_t'",
  ),
  'unknown keyword': (('resnet50', {'num_clases': 5}), "takes no 'num_clases'; did you mean 'num_classes'"),
  'other family': (('resnet50', {'layer_scale_init': 1.0}), "resnet50 takes no 'layer_scale_init'"),
  'increasing': (('ctx_convnext_t', {'class_counts': (100, 200, 50)}), r'class_counts=\(100, 200, 50\)'),
  'below two': (('ctx_convnext_t', {'class_counts': (100, 50, 1)}), r'N_4 >= ... >= 2|>= 2'),
  'above': (
    ('ctx_resnet50', {'num_classes': 50, 'class_counts': (60, 5, 5)}),
    r'expected 50 \(num_classes\)',
  ),
  'two counts': (('ctx_resnet50', {'class_counts': (60, 5)}), 'expected N_2, N_3, N_4'),
  'selection': (('ctx_resnet50', {'class_selection': 'reranking'}), "did you mean 'rerank'"),
  'depths': (('convnext_t', {'depths': (3, 3)}), r'depths=\(3, 3\): expected 4 positive integers'),
  'embedding': (('ctx_resnet50', {'embed_dim': -1}), 'ctx_resnet50: embed_dim=-1: expected at least 1'),
  'every': (('ctx_convnext_t', {'contextual_every': -2}), 'contextual_every=-2: expected at least 0'),
  'branches': (('ctx_convnext_t', {'branch_dim': -1}), 'branch_dim=-1: expected at least 0'),
  'half a branch': (
    ('ctx_convnext_t', {'branch_dim': 2.5}),
    'branch_dim=2.5: expected an integer, at least 0',
  ),
  'rate': (('convnext_t', {'drop_path_rate': 1.5}), 'drop_path_rate=1.5: expected at least 0 and below 1'),
  'no number': (('convnext_t', {'drop_path_rate': float('nan')}), 'drop_path_rate=nan: expected at least 0'),
  'scale': (('convnext_t', {'layer_scale_init': -1.0}), 'layer_scale_init=-1.0: expected at least 0'),
  'text': (('convnext_t', {'layer_scale_init': '1'}), "layer_scale_init='1': expected a number, at least 0"),
  'endless': (('ctx_resnet50', {'mask_gain': float('inf')}), 'mask_gain=inf: expected above 0'),
  'temperature': (('ctx_resnet50', {'logit_scale_init': 0.0}), 'logit_scale_init=0.0: expected above 0'),
  'patches': (('convnext_t', {'stem_stride': 0}), 'stem_stride=0: expected at least 1'),
  'way': (
    ('convnext_t', {'depthwise_path': 'shifted'}),
    r"depthwise_path='shifted': expected one of \('', 'shift', 'xla', 'mixed'\); did you mean 'shift'",
  ),
  'no depthwise convolution': (
    ('ctx_resnet50', {'depthwise_path': 'xla'}),
    "ctx_resnet50 takes no 'depthwise_path'",
  ),
  'width': (('convnext_t', {'dims': (8, 0, 8, 8)}), r'dims=\(8, 0, 8, 8\): expected 4 positive integers'),
  'ablation': (
    ('ctx_resnet50', {'ablate': ('masks',)}),
    r"ablate=\('masks',\): expected names of \('offsets', .*; did you mean 'mask'",
  ),
  'ablations': (('ctx_convnext_t', {'ablate': 'mask'}), "ablate='mask': expected a tuple of names"),
  'plain ablation': (('convnext_t', {'ablate': ('mask',)}), r"no use for ablate=\('mask',\)"),
  'yes': (('convnext_t', {'remat': 'yes'}), "remat='yes': expected True or False"),
  'dtype': (
    ('convnext_t', {'dtype': 'bfloat'}),
    "dtype='bfloat': expected one of .*; did you mean 'bfloat16'",
  ),
  'integers': (('convnext_t', {'param_dtype': 'int32'}), "param_dtype='int32': expected one of"),
  'plain gain': (
    ('convnext_t', {'mask_gain': 2.0}),
    'convnext_t is a plain network, which has no use for mask_gain=2.0: leave it out',
  ),
  'plain selection': (('resnet50', {'class_selection': 'rerank'}), "no use for class_selection='rerank'"),
  'plain counts': (('resnet50', {'class_counts': (8, 6, 4)}), r'no use for class_counts=\(8, 6, 4\)'),
  'plain paths': (('convnext_t', {'drop_path_in_contextual': False}), 'no use for drop_path_in_contextual'),
  'one class': (('convnext_t', {'num_classes': 1}), 'num_classes=1: expected at least 2'),
}


@pytest.mark.parametrize('case', ERRORS)
def test_create_model_errors(case):
  (name, keywords), message = ERRORS[case]
  with pytest.raises(ValueError, match=message):
    create_model(name, **keywords)


def test_shared_settings_of_contextual_and_plain_networks():
  """What a plain network would ignore goes, what it refuses for other reasons stays."""
  settings = {'num_classes': 10, 'embed_dim': 32, 'class_counts': (8, 6, 4), 'mask_gain': 1.0, 'depth': 3}
  assert used_keywords('resnet50', settings) == {'num_classes': 10, 'mask_gain': 1.0, 'depth': 3}
  assert used_keywords('ctx_resnet50', settings) == settings


def test_image_errors():
  model = create_model('ctx_convnext_mini')
  with pytest.raises(ValueError, match='images have 31 x 40 pixels; this network needs at least 32 x 32'):
    model.apply({}, jnp.zeros((1, 31, 40, 3)))
  with pytest.raises(ValueError, match=r'images have shape \(32, 32, 3\); expected \(b, h, w, c\)'):
    model.apply({}, jnp.zeros((32, 32, 3)))
