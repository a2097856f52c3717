"""Classifying files: the three formats, pictures, and files that cannot be read."""

import csv
import io
import json
import os
import types

import numpy as np
import pixel_family
import pytest
from PIL import Image
from run_files import make_run
from test_funnel import NAMES, hand_made

from ctx_flax import files
from ctx_flax.analysis import figures, funnel_figures, predict
from ctx_flax.analysis.file_names import find_files
from ctx_flax.analysis.funnel import funnel
from ctx_flax.analysis.images import chosen_images
from ctx_flax.analysis.run import open_run
from ctx_flax.tasks.classification.task import TASK
from ctx_flax.training.halt import Halt


def test_files_folders_and_globs(tmp_path, monkeypatch):
  for name in ('a/2.png', 'a/b/1.JPG', 'c.png', 'notes.txt'):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'')
  monkeypatch.chdir(tmp_path)
  assert find_files('a') == ['a/2.png', 'a/b/1.JPG']
  assert find_files('c.png, a/*.png,c.png') == ['c.png', 'a/2.png']
  assert find_files('**/*.png') == ['a/2.png', 'c.png']
  for wrong, message in (
    ('d.png', "'d.png' leads to no file"),
    (' ,', 'no images are named'),
    ('x*', "'x\\*' leads"),
  ):
    with pytest.raises(ValueError, match=message):
      find_files(wrong)
  (tmp_path / 'empty').mkdir()
  with pytest.raises(ValueError, match='holds no image files'):
    find_files('empty')


ODD = os.fsdecode(b'"gr\xfcn",\n[\'x\'] $1 ?.jpg')  # not UTF-8, and what each format takes for its own


class Terminal(io.TextIOWrapper):
  """A terminal that does not know its width."""

  def isatty(self):
    return True


def written(name, kind, encoding, stream_type=io.TextIOWrapper):
  """The bytes that a format makes of one prediction of an image of that name."""
  values = {key: np.asarray(v)[0].tolist() for key, v in funnel(hand_made('reduction'), top=2).items()}
  content = io.BytesIO()
  stream = stream_type(content, encoding=encoding, newline='')
  model = types.SimpleNamespace(contextual=True, dims=(1, 1, 1, 1))
  run = types.SimpleNamespace(num_classes=4, model=model, task=TASK)
  predict.WRITERS[kind](stream, 2, run)(predict.describe(name, values, NAMES))
  stream.flush()
  return content.getvalue()


@pytest.mark.parametrize('encoding', ['utf-8', 'ascii', 'latin-1'])
@pytest.mark.parametrize('name', [ODD, '絵é.jpg', 'x.jpg'])
def test_any_name_in_json_and_csv(name, encoding):
  """UTF-8 whatever the locale is, and what is written leads to the file again."""
  line = written(name, 'jsonl', encoding).decode('utf-8')
  _, row = csv.reader(io.StringIO(written(name, 'csv', encoding).decode('utf-8'), newline=''))
  assert line.count('\n') == 1
  for shown in (json.loads(line)['image'], row[0]):
    assert shown == name.replace('\udcfc', '\\xfc')
    assert files.unprintable(shown) == name


@pytest.mark.parametrize('encoding', ['utf-8', 'ascii'])
@pytest.mark.parametrize('columns', ['', '0', '1', '120'])
def test_any_name_in_a_table_of_any_terminal(encoding, columns, monkeypatch):
  monkeypatch.setenv('COLUMNS', columns)
  monkeypatch.setenv('TERM', 'dumb')
  for stream_type in (io.TextIOWrapper, Terminal):
    lines = written(ODD, 'table', encoding, stream_type).decode(encoding).splitlines()
    assert '"gr\\xfcn",\\n[\'x\'] $1 ?.jpg' in lines[0]
    assert any('cat 73.1%' in line for line in lines)


def test_images_can_be_named_in_a_list(config, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ('a.jpg', ODD):
    (tmp_path / name).touch()
  (tmp_path / 'list').write_bytes(os.fsencode(f'{ODD}\0a.jpg\0'))
  config.predict.update(images='a.jpg', list='list')
  assert predict.named_files(config.predict) == ['a.jpg', ODD]
  config.predict.images = ''
  predict.check_settings(config.predict)
  assert predict.named_files(config.predict) == [ODD, 'a.jpg']


@pytest.fixture(scope='module', autouse=True)
def family():
  """What is looked at here hardly depends on the network: one that compiles in no time."""
  with pixel_family.known():
    yield


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """(config, workdir, folder of images): nine good ones, two that are none."""
  root = tmp_path_factory.mktemp('predict')
  rng = np.random.default_rng(0)
  (root / 'images').mkdir()
  for i in range(9):
    Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(root / 'images' / f'{i}.png')
  (root / 'images' / '4b.png').write_bytes(b'no image')
  (root / 'images' / '8b.jpg').write_bytes(b'')
  config = pixel_family.four_stages()
  config.predict.images = str(root / 'images')
  return config, make_run(config, root / 'run'), root / 'images'


@pytest.fixture
def config(run):
  return run[0].copy_and_resolve_references()


def test_lines_of_json(run, config, capsys):
  _, workdir, images = run
  config.predict.format = 'jsonl'
  config.data.on_bad_image = 'error'  # of the run's training; here they are skipped and told
  found = predict.predict(config, workdir)
  told = capsys.readouterr()
  lines = [json.loads(line) for line in told.out.splitlines()]
  assert lines == found and len(lines) == 9
  assert [line['image'] for line in lines] == [f'{images}/{i}.png' for i in range(9)]
  assert '4b.png' in told.err and '8b.jpg' in told.err and '2 of 11 images could not be read' in told.err
  # What is told is what the network says of these very images.
  opened = open_run(config, workdir)
  arrays = chosen_images(opened, f'{images}/0.png,{images}/8.png', (), 'predict').arrays
  logits, _ = opened.apply(opened.variables, arrays)
  for logit, line in zip(np.asarray(logits), (lines[0], lines[8]), strict=True):
    best = int(logit.argmax())
    assert line['classes'][0]['class'] == opened.class_names[best]
    probability = 1 / np.exp(logit - logit.max()).sum()
    np.testing.assert_allclose(line['classes'][0]['probability'], probability, rtol=1e-4)
  assert [step.get('kept') for step in lines[0]['funnel']] == [8, 6, 4, None]
  assert len(lines[0]['classes']) == 4  # five were asked for, four are considered


def test_rows_of_csv_in_a_file(run, config, tmp_path, capsys):
  config.predict.update(format='csv', top=2, output=str(tmp_path / 'new' / 'out.csv'))
  found = predict.predict(config, run[1])
  assert capsys.readouterr().out == ''
  rows = list(csv.DictReader(io.StringIO((tmp_path / 'new' / 'out.csv').read_text())))
  assert [row['image'] for row in rows] == [p['image'] for p in found]
  assert rows[0]['class1'] == found[0]['classes'][0]['class'] and rows[0]['stage2_kept'] == '6'
  assert int(rows[0]['stage4_answer_place']) == found[0]['funnel'][3]['answer_place']


def test_pictures(run, config, tmp_path, monkeypatch, capsys):
  """Of each image that can be read, named after it, beside what is printed."""
  monkeypatch.setattr(figures, 'DPI', 20)
  folder, drawn = tmp_path / 'pictures', []
  original = funnel_figures.draw
  monkeypatch.setattr(funnel_figures, 'draw', lambda *args: drawn.append(args) or original(*args))
  odd = tmp_path / ODD
  odd.write_bytes((run[2] / '1.png').read_bytes())
  config.predict.update(images=f'{run[2]}/0.png,{run[2]}/4b.png', format='jsonl', pictures=str(folder))
  config.predict.list = str(tmp_path / 'list')
  (tmp_path / 'list').write_bytes(os.fsencode(odd) + b'\0')
  found = predict.predict(config, run[1])
  told = capsys.readouterr()
  assert len(told.out.splitlines()) == 2 and f'2 images in {folder}' in told.err
  pictures = {path.name for path in folder.rglob('*') if path.is_file()}
  assert pictures == {f'{name}.{kind}' for name in ('0', ODD.removesuffix('.jpg')) for kind in ('png', 'svg')}
  # As the network sees the image.
  (said, pixels), _ = drawn
  assert said == found[0]
  opened = open_run(config, run[1])
  np.testing.assert_array_equal(pixels, chosen_images(opened, f'{run[2]}/0.png', (), 'predict').pixels[0])
  config.predict.pictures = str(run[2])
  with pytest.raises(Halt, match=r'predict\.pictures is .*, where .*/0\.png lies'):
    predict.predict(config, run[1])


def test_tables_fit_80_columns(run, config, capsys):
  found = predict.predict(config, run[1])
  lines = capsys.readouterr().out.splitlines()
  names = [prediction['image'] for prediction in found]
  assert [line for line in lines if line in names] == names  # whole, however long
  assert max(len(line) for line in lines if line not in names) <= 80
  assert sum('stage' in line for line in lines) == 9
  assert any('8 of 10' in line for line in lines)


def test_a_plain_network_without_its_data(config, run, tmp_path, capsys):
  workdir = make_run(pixel_family.make_plain(config), tmp_path / 'plain')
  config.data.name, config.data.path, config.model.num_classes = 'image_folder', '/nowhere', 0
  config.predict.format = 'csv'
  found = predict.predict(config, workdir)
  told = capsys.readouterr()
  assert [step['stage'] for step in found[0]['funnel']] == [4]
  assert 'called by their numbers' in told.err and told.out.startswith('image,class1')


@pytest.mark.parametrize(
  'options, message',
  [
    ({'images': ''}, r'--config\.predict\.images=FILES'),
    ({'images': '/nowhere/*.jpg'}, 'leads to no file'),
    ({'format': 'xml'}, r"predict\.format is 'xml': it must be one of table, jsonl, csv"),
    ({'top': 0}, r'predict\.top must be 1 or more'),
    ({'images': '{images}/4b.png'}, 'none of the 1 images could be read'),
  ],
)
def test_wrong_input(run, config, options, message):
  config.predict.update(options)
  config.predict.images = config.predict.images.format(images=run[2])
  with pytest.raises(Halt, match=message) as halted:
    predict.predict(config, run[1])
  assert halted.value.status == 2
