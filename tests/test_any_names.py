"""Names of files and classes that hold any bytes go through every analysis and come back."""

import csv
import json
import os

import numpy as np
import pytest
from PIL import Image
from run_files import make_run
from tiny import tiny_config

from ctx_flax import files
from ctx_flax.analysis import failures, figures, grad_cam, offsets
from ctx_flax.analysis.report import report

CLASSES = 'a,"b"[c]', "it's\n<i>$x$", os.fsdecode(b'caf\xe9')
FILES = os.fsdecode(b'\xff1.png'), 'a,"b"\n[*].png'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """(config, folder) of a run on such images, whose own name is of that kind."""
  root = tmp_path_factory.mktemp('names')
  rng = np.random.default_rng(0)
  for split in ('train', 'validation'):
    for name in CLASSES:
      folder = root / 'images' / split / name
      folder.mkdir(parents=True)
      for file in FILES:
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / file)
  config = tiny_config()
  config.data.update(name='image_folder', path=str(root / 'images'), test_split='validation')
  config.model.update(num_classes=0, class_counts=(3, 2, 2), dims=(8, 8, 8, 8), embed_dim=8)
  config.eval.batch_size = 8
  config.grad_cam.steps, config.offsets.sample, config.report.images = 0, 6, 2
  config.grad_cam.indices = config.offsets.indices = (0, 1)
  return config, make_run(config, root / 'run é\n,"')


@pytest.mark.slow
def test_every_analysis_writes_what_can_be_read(run, monkeypatch, capsys):
  config, workdir = run
  monkeypatch.setattr(figures, 'DPI', 40)
  failures.failures(config, workdir)
  grad_cam.grad_cam(config, workdir)
  offsets.offsets(config, workdir)
  text = report(config, workdir).read_text(encoding='utf-8')
  assert 'caf\\xe9' in text and '&lt;i&gt;$x$' in text and '<i>' not in text
  folder = workdir / 'analysis'
  written = json.loads((folder / 'failures.json').read_text(encoding='utf-8'))
  with (folder / 'failures.csv').open(encoding='utf-8', newline='') as file:
    rows = list(csv.DictReader(file))
  assert [row['image'] for row in rows] == written['mistakes']['most_confident']['image']
  there = [files.unprintable(row['image']) for row in rows]
  assert there and all((workdir.parent / 'images' / name).exists() for name in there)
  assert {row['true'] for row in rows} <= {files.printable(name) for name in CLASSES}
  for name in ('grad_cam', 'offsets'):
    assert len(json.loads((folder / f'{name}.json').read_text(encoding='utf-8'))['images']) == 2
  for path in folder.glob('*.svg'):
    path.read_text(encoding='utf-8')
  capsys.readouterr().out.encode('utf-8')  # a lone surrogate would raise
