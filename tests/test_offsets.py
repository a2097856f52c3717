"""Where kernels sample: points in image pixels, mean fields, and the mode from end to end."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from initial_values import initial_values
from run_files import make_run
from tiny import tiny_config

from ctx_flax.analysis import figures, offsets
from ctx_flax.analysis.sampling_points import mean_offsets, position_of, sample, sampling_of
from ctx_flax.models import create_model
from ctx_flax.ops import contextual_conv, contextual_depthwise_conv
from ctx_flax.training.halt import Halt


def test_points_by_hand():
  """A 3x3 kernel on a map of 4 pixels of an image of 16: a pixel is 4 wide, the first centre at 1.5."""
  shifts = np.zeros((1, 4, 4, 9, 2), np.float32)
  shifts[0, 1, 2, 5] = (0.5, -0.25)  # tap 5 is the right one of the middle row
  found = sample(shifts, np.ones((1, 4, 4, 9), np.float32), input_side=4, side=16)
  assert found.scale == 4
  np.testing.assert_allclose(found.regular[0, 0, 4], [1.5, 1.5])
  np.testing.assert_allclose(found.regular[0, 0, 0], [-2.5, -2.5])  # beyond the edge
  np.testing.assert_allclose(found.regular[1, 2, 5], [5.5, 13.5])
  np.testing.assert_allclose(found.points[0, 1, 2, 5], [7.5, 12.5])
  others = np.ones(shifts.shape[:4], bool)
  others[0, 1, 2, 5] = False
  np.testing.assert_array_equal(found.points[others], found.regular[None][others])


def test_a_stride_of_two():
  found = sample(np.zeros((1, 2, 2, 9, 2), np.float32), np.ones((1, 2, 2, 9)), input_side=4, side=16)
  # Position 1 looks at input pixel 2, in the image at 2.5 * 4 - 0.5.
  np.testing.assert_allclose(found.regular[:, :, 4], [[[1.5, 1.5], [1.5, 9.5]], [[9.5, 1.5], [9.5, 9.5]]])


@pytest.mark.parametrize('side, scale', [(12, 3), (14, 3.5), (3, 0.75)])
def test_scales_that_are_not_even(side, scale):
  """The scale is that of the sides; pixel 0 of the map is in the middle of the first `scale` pixels."""
  found = sample(np.zeros((1, 4, 4, 9, 2), np.float32), np.ones((1, 4, 4, 9)), input_side=4, side=side)
  assert found.scale == scale
  np.testing.assert_allclose(found.regular[0, 3, 4], [(scale - 1) / 2, 3.5 * scale - 0.5])


def test_the_operation_reads_at_these_points():
  """What the convolution reads of an image whose values are its coordinates, with one tap of weight 1."""
  side, rng = 12, np.random.default_rng(0)
  shifts = rng.uniform(-1, 1, (1, side, side, 9, 2)).astype(np.float32)
  mask = np.ones((1, side, side, 9), np.float32)
  y, x = np.meshgrid(np.arange(side), np.arange(side), indexing='ij')
  ramps = np.stack([y, x], -1)[None].astype(np.float32)
  found = sample(shifts, mask, input_side=side, side=side)
  for tap in (0, 5):
    kernel = np.zeros((3, 3, 1, 2), np.float32)
    kernel[tap // 3, tap % 3] = 1
    read = contextual_depthwise_conv(ramps, kernel, jnp.zeros((1, 3, 3, 2)), shifts, mask, padding=1)
    inner = slice(2, -2)  # nearer to the edge zeros are read
    np.testing.assert_allclose(read[0, inner, inner], found.points[0, inner, inner, tap], atol=1e-4)


def test_the_dense_operation_with_a_stride_reads_at_these_points():
  """The image is the map here, so that a value read is a coordinate in the image's pixels."""
  side, rng = 12, np.random.default_rng(1)
  shifts = rng.uniform(-1, 1, (1, 6, 6, 9, 2)).astype(np.float32)
  mask = np.ones((1, 6, 6, 9), np.float32)
  y, x = np.meshgrid(np.arange(side), np.arange(side), indexing='ij')
  ramps = np.stack([y, x], -1)[None].astype(np.float32)
  found = sample(shifts, mask, input_side=side, side=side)
  kernel = np.zeros((3, 3, 2, 2), np.float32)
  kernel[1, 2] = np.eye(2)  # tap 5
  read = contextual_conv(ramps, kernel, jnp.zeros((1, 3, 3, 2)), shifts, mask, strides=2, padding=1)
  inner = slice(1, -1)
  np.testing.assert_allclose(read[0, inner, inner], found.points[0, inner, inner, 5], atol=1e-4)


def test_mean_offsets_are_weighted():
  shifts = np.zeros((1, 1, 1, 9, 2), np.float32)
  shifts[..., 0, :], shifts[..., 1, :] = (1, 0), (0, 2)
  mask = np.zeros((1, 1, 1, 9), np.float32)
  mask[..., 0], mask[..., 1] = 0.75, 0.25
  found = mean_offsets(sample(shifts, mask, input_side=1, side=8))
  np.testing.assert_allclose(found, [[[[0.75 * 8, 0.5 * 8]]]])
  mask[:] = 0
  assert np.isfinite(mean_offsets(sample(shifts, mask, input_side=1, side=8))).all()


def test_numbers_of_a_block():
  """One of nine taps is off by (3, 4) of the map's pixels, each of which is four of the image."""
  shifts = np.zeros((1, 1, 1, 9, 2), np.float32)
  shifts[..., 2, :] = (3, 4)
  mask = np.zeros((1, 1, 1, 9), np.float32)
  mask[..., :3] = 0.9
  found = offsets.numbers_of(sample(shifts, mask, input_side=1, side=4))
  np.testing.assert_allclose(found['mean_offset_input_pixels'], 5 / 9, rtol=1e-6)
  np.testing.assert_allclose(found['mean_offset_image_pixels'], 20 / 9, rtol=1e-6)
  np.testing.assert_allclose(found['largest_offset_image_pixels'], 20)
  np.testing.assert_allclose(found['mean_mask'], 0.3, rtol=1e-6)
  np.testing.assert_allclose(found['mask_deviation'], (0.3 * 0.6) ** 0.5, rtol=1e-6)


@pytest.mark.parametrize('fractions, place', [((0.5, 0.5), (2, 2)), ((0, 0.99), (0, 3)), ((1, 1), (3, 3))])
def test_positions(fractions, place):
  sampling = sample(np.zeros((1, 4, 4, 9, 2)), np.ones((1, 4, 4, 9)), 4, 32)
  assert position_of(fractions, sampling) == place


def test_a_resnet_with_strides():
  model = create_model('ctx_resnet_mini', num_classes=6, depths=(1, 1, 1, 1))
  images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  shapes = jax.eval_shape(lambda i: model.init_with_output(jax.random.key(0), i, train=False)[0][1], images)
  out = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)
  for block in out['offsets']:
    found = sampling_of(model, out, block, 64)
    u = found.regular.shape[0]
    spacing = found.regular[1, 0, 4, 0] - found.regular[0, 0, 4, 0] if u > 1 else 64
    assert spacing == 64 / u
    # A block with a stride reads a finer map than it makes.
    assert found.scale == spacing / (2 if block.endswith('.0') else 1), block
    # Everything is padded by half a kernel, so that the first position is centred on the first pixel.
    np.testing.assert_allclose(found.regular[0, 0, 4], 0)


def test_where_a_map_begins():
  plain = {
    name: create_model(name, num_classes=5, depths=(1, 1, 1, 1)) for name in ('resnet_mini', 'convnext_mini')
  }
  pixels = np.random.default_rng(1).standard_normal((1, 64, 64, 3), np.float32)
  for name, model in plain.items():
    # Grow what the first position of stage 1 depends on from the first pixel on: its middle is the centre.
    variables = initial_values(model, pixels.shape[1:])
    stem = lambda x, m=model, v=variables: m.apply(v, x, train=False)[1]['stage1'][0, 8, 8].sum()
    seen = np.abs(jax.jit(jax.grad(stem))(pixels))[0].sum(-1)
    rows = np.flatnonzero(seen.sum(1))
    centre = model.first_centre(4) + 8 * 4
    np.testing.assert_allclose((rows[0] + rows[-1]) / 2, centre, atol=0.6, err_msg=name)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  config = tiny_config()
  config.offsets.update(indices=(3, 4), sample=130)
  return config, make_run(config, tmp_path_factory.mktemp('offsets') / 'run')


def test_a_run(run, capsys, monkeypatch):
  config, workdir = run
  monkeypatch.setattr(figures, 'DPI', 40)  # four figures at full size take seconds
  found = offsets.offsets(config, workdir)
  names = {f'offsets_{name}' for name in ('points', 'fields', 'contexts', 'kernel_deltas')}
  assert set(found['files']) == names
  written = {path.name for path in (workdir / 'analysis').iterdir()}
  assert {f'{name}.{kind}' for name in names for kind in ('png', 'svg')} <= written
  numbers = json.loads((workdir / 'analysis' / 'offsets.json').read_text())
  assert list(numbers['blocks']) == ['2.0', '3.0', '4.0'] and numbers['sample'] == 130
  assert numbers['block'] == '2.0'  # of maps of 4, 2 and 1 pixels
  with np.load(workdir / 'analysis' / 'offsets.npz') as arrays:
    assert arrays['points'].shape == (2, 4, 4, 49, 2) and arrays['field4'].shape == (2, 1, 1, 2)
    assert arrays['context3'].shape == arrays['kernel_delta'].shape == (130, 2)
    assert len(arrays['label']) == 130
  shares = found['contexts'][3]['shares']
  assert 0 <= shares[1] <= shares[0] <= 1 and shares[0] > 0
  assert 'kernel deltas of block 2.0: mean distance' in capsys.readouterr().out
  distances = numbers['kernel_deltas']
  assert distances['same_considered'] is False and distances['all_images'] > 0


@pytest.mark.parametrize(
  'options, message',
  [
    ({'block': '1.0'}, r"offsets\.block is '1\.0': the contextual blocks are 2\.0, 3\.0, 4\.0"),
    ({'position': (0.5, 2)}, r'offsets\.position is \(0\.5, 2\): it must be \(y, x\), fractions'),
    ({'position': (0.5,)}, r'offsets\.position'),
    ({'sample': 1}, r'offsets\.sample must be 2 or more'),
    ({'indices': (999,)}, r'offsets\.indices is \(999,\)'),
  ],
)
def test_wrong_input(run, options, message):
  config = run[0].copy_and_resolve_references()
  config.offsets.update(options)
  with pytest.raises(Halt, match=message) as halted:
    offsets.offsets(config, run[1])
  assert halted.value.status == 2


def test_a_plain_network_has_none(tmp_path):
  config = tiny_config()
  config.model.name, config.model.class_counts = 'convnext_mini', ()
  with pytest.raises(Halt, match='a plain network has no offsets'):
    offsets.offsets(config, make_run(config, tmp_path / 'plain'))
