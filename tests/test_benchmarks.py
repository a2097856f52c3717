"""The benchmark programs at tiny sizes: what they count, compare and write; never how long anything takes."""

import json
import socket
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import __main__ as dispatcher
from benchmarks import candidates as program
from benchmarks import classes, clips, detection_ops, machine, measure, models, ops, scan, train
from benchmarks import input as input_pipeline
from configs import convnext_t
from ctx_flax.ops import contextual_conv, contextual_depthwise_conv, depthwise_conv

PEAK = machine.Peak(1e12, 1e11, 'given')
SETTINGS = program.Settings(batch=2, image_size=32, dtype='float32', rounds=2, peak=PEAK)


def test_candidates_take_turns():
  """A slow one is called once in a round, others so often that the clock can tell; ratios are by round."""
  calls = []
  seconds = measure.take_turns(
    {'a': lambda: calls.append('a'), 'b': lambda: calls.append('b')}, rounds=3, least_seconds=0.0
  )
  assert ''.join(calls) == 'aabb' + 'aabb' * 3
  assert {name: len(of) for name, of in seconds.items()} == {'a': 3, 'b': 3}
  assert measure.ratio([2.0, 30.0, 8.0], [1.0, 10.0, 2.0]) == 3.0


def test_work_by_hand():
  """Two images of 4 x 4 with 3 channels under 7 x 7 taps."""
  samples = 2 * 16 * 49 * 3
  assert ops.work(depthwise_conv, 2, 4, 3, 7, 4) == (2 * samples, 2 * 2 * 16 * 3 * 4)
  flops, traffic = ops.work(contextual_depthwise_conv, 2, 4, 3, 7, 4)
  assert flops == 10 * samples and traffic == 2 * 2 * 16 * 3 * 4 + 2 * 16 * 49 * 3 * 4
  assert ops.work(contextual_conv, 1, 1, 5, 3, 2)[0] == 9 * 5 * (8 + 2 * 6)


@pytest.mark.slow
def test_operations(monkeypatch):
  for name in ('DEPTHWISE', 'DENSE', 'PLAIN'):
    monkeypatch.setattr(ops, name, ((4, 8),))
  monkeypatch.setattr(detection_ops, 'run', lambda settings: [])
  rows = ops.run(SETTINGS)
  assert [(row['operation'], row['path'], row['shape']) for row in rows] == [
    (f'{operation}', path, '2 x 4 x 4 x 8')
    for operation, paths in (
      ('contextual depthwise 7x7', ('two steps', 'ours')),
      ('contextual dense 3x3', ('two steps', 'ours')),
      ('depthwise 7x7', ('xla', 'ours')),
    )
    for path in paths
  ]
  for row in rows:
    assert row['forward ms'] > 0 and row['forward + backward ms'] > 0
    flops = 1e-2 * row['% of peak FLOP/s'] * PEAK.flops * row['forward ms'] * 1e-3
    assert flops == pytest.approx(
      {'contextual depthwise 7x7': 125_440, 'contextual dense 3x3': 59_904, 'depthwise 7x7': 25_088}[
        row['operation']
      ]
    )
  assert all(row['x'] == row['x '] == 1 for row in rows[::2])  # the reference beside itself


@pytest.mark.slow
def test_operations_of_detectors(monkeypatch):
  sizes = {'HW': (64, 96), 'CHANNELS': 4, 'ROIS': ((6, 3),), 'PROPOSALS': 20, 'MASKS': 2}
  for name, value in sizes.items():
    monkeypatch.setattr(detection_ops, name, value)
  monkeypatch.setattr(detection_ops, 'has_torch', lambda: False)
  rows = detection_ops.run(SETTINGS)
  assert [(row['operation'], row['path'], row['shape']) for row in rows] == [
    ('RoIAlign 3x3', 'separable', '6 boxes, 64 x 96'),
    ('RoIAlign 3x3', 'windows', '6 boxes, 64 x 96'),
    ('NMS 0.7', 'ours', '20 boxes, at most 20 kept'),
    ('NMS 0.7', 'ours', '20 boxes, at most 1000 kept'),
    ('mask targets 28x28', 'ours', '6 boxes, 2 masks, 64 x 96'),
  ]
  assert all(row['forward ms'] > 0 and row['temp MB'] > 0 for row in rows)
  assert rows[0]['x'] == rows[0]['x '] == 1 and rows[1]['x '] > 0 < rows[1]['temp MB ']
  boxes = detection_ops.draw_boxes(50, np.random.default_rng(0), objects=3)
  assert boxes.shape == (50, 4) and np.all(boxes[:, 2:] >= boxes[:, :2])
  assert boxes.min() >= 0 and np.all(boxes.max(0) <= (96, 64, 96, 64))


@pytest.mark.slow
def test_networks(monkeypatch):
  monkeypatch.setattr(models, 'PAIRS', (('convnext_mini', 'resnet_mini'),))  # these compile fast
  monkeypatch.setattr(models, 'has_torch', lambda: False)
  monkeypatch.setattr(clips, 'NETWORKS', {'plain': ('resnet_mini', {'temporal_shift': False})})
  plain, contextual, note, of_clips = models.run(SETTINGS)
  assert plain['of plain'] == 1 and contextual['temp MB'] > 0
  assert note == {'network': 'PyTorch left out: torch and torchvision are not installed'}
  assert of_clips['network'] == 'plain, 8 frames' and of_clips['of no shift'] == 1


@pytest.mark.slow
def test_selection_of_classes(monkeypatch):
  monkeypatch.setattr(classes, 'NETWORK', 'ctx_convnext_mini')
  monkeypatch.setattr(classes, 'NUM_CLASSES', (30,))
  rows = classes.run(SETTINGS)
  assert [(row['classes'], row['tables']) for row in rows] == [('30', 'every time'), ('30', 'beforehand')]
  for row in rows:
    assert 0 < row['selection alone ms'] < row['ms']
    assert row['%'] == pytest.approx(100 * row['selection alone ms'] / row['ms'])
    assert row['% more than 30'] == 0  # beside itself


@pytest.mark.slow
def test_scanned_blocks(monkeypatch):
  for name, value in (('GROUPS', 2), ('PLAIN', 1), ('CHANNELS', 8), ('CONTEXT', 4)):
    monkeypatch.setattr(scan, name, value)
  unrolled, scanned = scan.run(SETTINGS)
  assert (unrolled['blocks'], scanned['blocks']) == ('one after the other', 'scanned')
  assert unrolled['x'] == 1 and scanned['x'] > 0
  assert min(unrolled['compile s'], scanned['compile s']) > 0


@pytest.mark.slow
def test_training_steps(monkeypatch):
  """Traced, not compiled."""

  def traced(function, state, batch):
    new, metrics = jax.eval_shape(function, state, batch)
    assert batch['image'].shape == (1, 2, 32, 32, 3) and 'accuracy4' in metrics
    assert jax.tree.map(jnp.shape, new.params) == jax.tree.map(jnp.shape, state.params)
    return measure.Program(lambda: None, 0.0, 0.0, len(metrics))

  def mini(argument):
    config = convnext_t.get_config(argument)
    config.model.update(name='convnext_mini' if argument else 'ctx_convnext_mini', depths=(1, 1, 1, 1))
    return config

  monkeypatch.setattr(train, 'program', traced)
  monkeypatch.setattr(train, 'PAIRS', (('convnext_t', 'ctx_convnext_t'),))
  monkeypatch.setitem(train.RECIPES, 'convnext_t', types.SimpleNamespace(get_config=mini))
  rows = train.run(SETTINGS)
  assert [row['training step'] for row in rows] == [
    'convnext_t',
    'convnext_t, remat',
    'ctx_convnext_t',
    'ctx_convnext_t, remat',
  ]


@pytest.mark.slow
def test_the_input_pipeline(monkeypatch):
  monkeypatch.setattr(input_pipeline, 'FILES', 8)
  monkeypatch.setattr(input_pipeline, 'NAMES', 64)
  monkeypatch.setattr(input_pipeline, 'SIZE', (48, 64))
  monkeypatch.setattr(input_pipeline, 'has_timm', lambda: False)
  monkeypatch.setattr(clips, 'VIDEO_FRAMES', 12)
  monkeypatch.setattr(clips, 'SIZE', (48, 64))
  monkeypatch.setattr(clips, 'has_decord', lambda: False)
  single, batches, note, *of_clips = input_pipeline.run(SETTINGS)
  assert (single['input'], batches['input']) == ('transforms, ours', 'mixed batches of 32, ours')
  assert single['images/s per core'] > 0 and batches['images/s per core'] > 0
  assert note == {'input': 'timm left out: timm and torchvision are not installed'}
  assert [row['input'] for row in of_clips] == [
    *(f'clips of 8, {kind}' for kind in (*clips.KINDS, 'JPEG frames')),
    'decord left out: it is not installed',
  ]
  assert of_clips[0]['of GOP 250'] == 1 and of_clips[3]['clips/s per core'] > 0


def test_videos_are_read_by_decord_beside_ours_where_it_is_installed(monkeypatch):
  read = []

  def timed(candidates, rounds):
    for run in candidates.values():
      run()
    return {name: [1.0, 3.0] if name.endswith('decord') else [2.0, 12.0] for name in candidates}

  for name, value in (('VIDEO_FRAMES', 12), ('SIZE', (48, 64)), ('take_turns', timed)):
    monkeypatch.setattr(clips, name, value)
  monkeypatch.setattr(clips, 'has_decord', lambda: True)
  monkeypatch.setattr(clips, 'read_by_decord', read.append)
  *videos, frames = clips.reading(SETTINGS)
  for kind, ours, theirs in zip(clips.KINDS, videos[::2], videos[1::2], strict=True):
    assert theirs['input'] == f'{ours["input"]}, decord' == f'clips of 8, {kind}, decord'
    assert ours['of decord'] == (1 / 2 + 3 / 12) / 2 and 'of decord' not in theirs
  assert len(set(read)) == len(clips.KINDS) and 'of decord' not in frames


def test_the_program_writes_what_it_shows(monkeypatch, tmp_path, capsys):
  rows = [{'network': 'a', 'images/s': 1234.5, 'x': 2.0}, {'network': 'b', 'images/s': 0.12345}]
  monkeypatch.setattr(models, 'run', lambda settings: rows)
  file = tmp_path / 'found.json'
  monkeypatch.setattr(program.jax.config, 'update', lambda *_: None)  # other tests want the cache
  program.main(['models', '--rounds=1', '--peak_flops=1e9', '--peak_bytes=2e9', f'--json={file}'])
  written = json.loads(file.read_text())
  assert written['models'] == rows and written['settings']['peak']['flops'] == 1e9
  assert {'cores', 'device', 'processor', 'versions'} <= written['machine'].keys()
  assert socket.gethostname() not in file.read_text() and str(tmp_path) not in file.read_text()
  shown = capsys.readouterr().out
  assert 'peak 1 GFLOP/s, 2 GB/s (given)' in shown and '1,234' in shown and '0.123' in shown


def test_limits_of_known_devices(monkeypatch):
  class Device:
    device_kind = 'NVIDIA H100 80GB HBM3'

  monkeypatch.setattr(machine.jax, 'devices', lambda: [Device])
  assert machine.peak('bfloat16') == machine.Peak(989e12, 3.35e12, 'data sheet')
  assert machine.peak('float32', bandwidth=1e12) == machine.Peak(67e12, 1e12, 'data sheet')


@pytest.mark.parametrize(
  'arguments, message',
  [(['op'], "unknown part 'op': expected of ops, models"), (['--rounds=0'], '--rounds must be 1 or more')],
)
def test_mistakes_are_told(arguments, message, capsys):
  with pytest.raises(SystemExit):
    program.parse(arguments)
  assert message in capsys.readouterr().err


@pytest.mark.parametrize(
  'arguments, module, passed',
  [
    (['gpu', '--smoke'], 'benchmarks.gpu.program', ['--smoke']),
    (['gpu_program', 'a', 'b'], 'benchmarks.gpu_program.program', ['a', 'b']),
    (['ops', '--rounds=2'], 'benchmarks.candidates', ['ops', '--rounds=2']),
    ([], 'benchmarks.candidates', []),
  ],
)
def test_the_first_argument_chooses_the_program(arguments, module, passed, monkeypatch):
  monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(main=lambda given: (module, given)))
  assert dispatcher.main(arguments) == (module, passed)


def test_help_lists_parts_and_programs(capsys):
  with pytest.raises(SystemExit):
    dispatcher.main(['--help'])
  lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
  for name in (*program.PARTS, *(f'python -m benchmarks {each}' for each in dispatcher.PROGRAMS)):
    assert any(line.startswith(f'{name} ') and len(line) > 2 * len(name) for line in lines), name
