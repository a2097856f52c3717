"""Objects in files: what is said is what a test finds, in every format and in pictures; what is refused."""

import contextlib
import json
import os

import numpy as np
import pytest
from coco_files import SIZES, picture
from detection_runs import detection_run_config, make_detection_run, write_images
from PIL import Image

from ctx_flax.__main__ import MODES, TASK_MODES, mode_of
from ctx_flax.analysis.detector_pictures import Pictures, draw
from ctx_flax.analysis.detector_predict import detections, predict
from ctx_flax.analysis.detector_results import JsonList, describe
from ctx_flax.analysis.run import DETECTORS, open_run
from ctx_flax.data import coco_masks, detection_files, detection_pipeline
from ctx_flax.tasks.detection.ground_truth import read_ground_truth
from ctx_flax.tasks.detection.results import image_results, read_results
from ctx_flax.training.halt import Halt

NAMES = ('ant', 'bee', 'cat')


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """(config, workdir, folder with the data)."""
  root = write_images(tmp_path_factory.mktemp('coco'))
  config = detection_run_config(root)
  return config, make_detection_run(config, tmp_path_factory.mktemp('random') / 'run'), root


@pytest.fixture
def config(made):
  return made[0].copy_and_resolve_references()


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
  """A folder with three images of sizes of their own, and two files that are none."""
  folder = tmp_path_factory.mktemp('photographs')
  for number, (h, w) in enumerate(((48, 64), (200, 90), (30, 30))):
    Image.fromarray(picture(number, h, w)).save(folder / f'{number}.png')
  (folder / '0b.jpg').write_bytes(b'no image')
  (folder / '2b.png').write_bytes(b'')
  return folder


def test_modes_of_a_task():
  assert mode_of('predict', 'detection') == TASK_MODES['detection']['predict'] != MODES['predict']
  assert mode_of('predict', 'video') == MODES['predict'] and mode_of('train', 'detection') == MODES['train']
  assert all(modes.keys() <= MODES.keys() for modes in TASK_MODES.values())


@pytest.mark.slow
def test_results_are_those_of_a_test(made, config, tmp_path, capsys):
  """The ids of the annotation file, and what is detected in its images, which a test reads another way."""
  _, workdir, root = made
  path = tmp_path / 'new' / 'results.json'
  config.predict.update(images=str(root / 'val2017'), format='coco', output=str(path))
  config.data.on_bad_image = 'error'  # of the run's tests; here they are skipped and told
  assert predict(config, workdir) == len(SIZES)
  told = capsys.readouterr()
  assert told.out == '' and 'image ids are those of' in told.err and '10 images in' in told.err
  truth = read_ground_truth(root / 'annotations' / 'instances_val2017.json')
  found = read_results(path, truth)
  assert len(found) > 20 and 'file_name' not in found[0]
  run = open_run(config, workdir, served=DETECTORS)
  config.eval.batch_size = 1
  expected = {}
  with contextlib.closing(detection_pipeline.eval_batches(run.source, config)) as batches:
    for batch in batches:
      rows = {name: np.asarray(value)[0] for name, value in run.detect(batch)._asdict().items()}
      number = run.source.image_ids[batch['index'][0]].item()
      hw = batch['original_hw'][0].tolist()
      expected[number] = image_results(number, hw, rows, run.source.category_ids)
  assert found == [result for number in sorted(expected) for result in expected[number]]


def test_lines_of_json(made, config, photographs, capsys):
  config.predict.update(images=str(photographs), format='jsonl')
  assert predict(config, made[1]) == 3
  told = capsys.readouterr()
  assert '0b.jpg' in told.err and '2b.png' in told.err and '2 of 5 images could not be read' in told.err
  lines = [json.loads(line) for line in told.out.splitlines()]
  assert [line['image'] for line in lines] == [f'{photographs}/{n}.png' for n in range(3)]
  assert [(line['height'], line['width']) for line in lines] == [(48, 64), (200, 90), (30, 30)]
  for line in lines:
    scores = [thing['score'] for thing in line['objects']]
    assert scores == sorted(scores, reverse=True) and len(scores) > 3
    for thing in line['objects']:
      x1, y1, x2, y2 = thing['box']
      assert 0 <= x1 <= x2 <= line['width'] and 0 <= y1 <= y2 <= line['height']
      assert thing['class'] in ('cat', 'dog', 'bird')
      mask = coco_masks.decode(thing['mask'], (line['height'], line['width']))
      ys, xs = np.nonzero(mask)
      assert ys.min() >= y1 - 1 and ys.max() <= y2 and xs.min() >= x1 - 1 and xs.max() <= x2
  # A large image was made smaller and a small one larger: boxes are in pixels of the files.
  assert max(thing['box'][3] for thing in lines[1]['objects']) > 96
  least = lines[0]['objects'][3]['score']
  config.predict.score = least
  predict(config, made[1])
  fewer = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  assert [line['objects'] for line in fewer] == [
    [thing for thing in line['objects'] if thing['score'] >= least] for line in lines
  ]


def test_other_images_are_numbered_from_1(made, config, photographs, capsys):
  config.predict.update(images=str(photographs), format='coco')
  predict(config, made[1])
  told = capsys.readouterr()
  assert 'images are numbered from 1' in told.err
  results = json.loads(told.out)
  # In the order of the names, of which the second and the last lead to no image.
  names = {result['image_id']: result['file_name'] for result in results}
  assert names == {1: f'{photographs}/0.png', 3: f'{photographs}/1.png', 4: f'{photographs}/2.png'}
  assert {result['category_id'] for result in results} <= {1, 3, 90}


def test_tables_and_pictures(made, config, photographs, tmp_path, capsys):
  config.predict.update(images=str(photographs), shown_score=0.0, pictures=str(tmp_path / 'pictures'))
  predict(config, made[1])
  told = capsys.readouterr()
  lines = told.out.splitlines()
  assert f'{photographs}/1.png, 90 x 200 pixels' in lines  # whole, however long
  assert max(len(line) for line in lines if not line.startswith(str(photographs))) <= 80
  assert 'mask' in told.out and '%' in told.out
  sizes = {}
  for path in (tmp_path / 'pictures').iterdir():
    with Image.open(path) as image:
      sizes[path.name] = image.size
  assert sizes == {'0.png': (640, 480), '1.png': (288, 640), '2.png': (640, 640)}
  config.predict.update(shown_score=1.0, pictures='')
  predict(config, made[1])
  assert capsys.readouterr().out.count(': nothing with a score of 1 or more') == 3


def test_what_is_drawn():
  """The objects above the score, where they are: a mask tints, nothing else changes."""
  pixels = np.full((400, 800, 3), 100, np.uint8)
  found = {
    'boxes': np.array([[100, 80, 300, 280], [500, 80, 700, 280]], np.float32),
    'scores': np.array([0.9, 0.8], np.float32),
    'labels': np.array([0, 2]),
    'valid': np.array([True, False]),
    'masks': np.ones((2, 28, 28), np.float32),
  }
  drawn = draw(pixels, found, NAMES)
  assert drawn.shape == (400, 800, 3)
  tinted = (drawn != 100).any(-1)
  assert tinted[100:260, 120:280].all() and not tinted[:, 320:].any() and not tinted[300:].any()
  found['valid'][:] = False
  np.testing.assert_array_equal(draw(pixels, found, NAMES), pixels)
  assert draw(np.zeros((3000, 4000, 3), np.uint8), found, NAMES).shape == (1200, 1600, 3)


def test_names_of_pictures(tmp_path, monkeypatch):
  """None overwrites another, nor one of the images."""
  monkeypatch.chdir(tmp_path)
  paths = lambda *names: [str(Pictures('out', names).path(name).relative_to(tmp_path)) for name in names]
  assert paths('in/a/1.jpg', 'in/b/1.jpg') == ['out/a/1.png', 'out/b/1.png']
  assert paths('in/1.jpg', 'in/1.png') == ['out/1.jpg.png', 'out/1.png.png']
  assert paths('in/1.jpg', 'in/1.bmp', 'in/1.jpg.gif') == [
    *('out/1.jpg.png', 'out/1.bmp.png', 'out/1.jpg.gif.png')
  ]
  assert paths('1.jpg') == ['out/1.png'] and paths(str(tmp_path / 'x.jpg'), '../1.jpg')[0].endswith('x.png')
  (tmp_path / 'link').symlink_to('out')
  for folder, image in (
    ('.', 'in/1.png'),
    ('out', 'out/1.jpg'),
    ('link', 'out/a/1.jpg'),
    ('out', 'link/1.jpg'),
  ):
    with pytest.raises(ValueError, match=r'predict\.pictures is .*take another folder for the pictures'):
      Pictures(folder, [image])


@pytest.mark.parametrize('kind', ['file', 'pipe'])
def test_a_list_is_whole(tmp_path, kind):
  """A file after every part, a pipe at the end."""
  path = tmp_path / 'list.json'
  if kind == 'pipe':
    reading, writing = os.pipe()
  with open(path if kind == 'file' else writing, 'w') as stream:
    grown = JsonList(stream)
    values = []
    for part in ([], [{'a': 'ö'}, {'b': float('inf')}], [], [{'c': 'x' * 20_000}]):
      grown.extend(part)
      values += part
      if kind == 'file':  # as if the process was killed here
        assert len(json.loads(path.read_text('utf-8'))) == len(values)
    grown.close()
  with open(path if kind == 'file' else reading, encoding='utf-8') as stream:
    text = stream.read()
  assert json.loads(text) == [{'a': 'ö'}, {'b': None}, {'c': 'x' * 20_000}]
  assert len(text.splitlines()) == 5


def test_canvases_of_files():
  sizes = np.array([[32, 64], [64, 32], [64, 64]])
  for hw, canvas in (((20, 40), [32, 64]), ((40, 20), [64, 32]), ((40, 40), [64, 64]), ((33, 65), [64, 96])):
    assert detection_files.canvas_of(np.array(hw), sizes).tolist() == canvas


def test_without_the_data_classes_have_numbers(made, config, photographs, capsys):
  config.data.path, config.model.num_classes = '/nowhere', 0
  config.predict.update(images=f'{photographs}/0.png', format='jsonl')
  predict(config, made[1])
  told = capsys.readouterr()
  assert 'the classes are called by their numbers: data.path is' in told.err
  assert {thing['class'] for thing in json.loads(told.out)['objects']} <= {'0', '1', '2'}
  config.predict.format = 'coco'
  with pytest.raises(Halt, match=r'predict\.format is coco.*--config\.data\.path=DIR') as halted:
    predict(config, made[1])
  assert halted.value.status == 2


def test_in_a_program(made, config, photographs):
  run = open_run(config, made[1], images=False, served=DETECTORS)
  ((index, hw, found, pixels),) = detections(run, [f'{photographs}/1.png'], pixels=True)
  assert (index, hw) == (0, (200, 90))
  np.testing.assert_array_equal(pixels, picture(1, 200, 90))
  said = describe('1.png', hw, found, run.class_names)
  assert len(said['objects']) == found['valid'].sum()


@pytest.mark.parametrize(
  'options, message',
  [
    ({'images': ''}, r'--config\.predict\.images=FILES'),
    ({'images': '/nowhere/*.jpg'}, 'leads to no file'),
    ({'format': 'csv'}, r"predict\.format is 'csv': it must be one of table, jsonl, coco"),
    ({'pictures': '{images}'}, r'predict\.pictures is .*, where .*/0\.png lies'),
    ({'images': '{images}/0b.jpg'}, 'none of the 1 images could be read'),
  ],
)
def test_wrong_input(made, config, photographs, options, message):
  config.predict.update({'images': '{images}'} | options)
  for name in ('images', 'pictures'):
    config.predict[name] = config.predict[name].format(images=photographs)
  with pytest.raises(Halt, match=message) as halted:
    predict(config, made[1])
  assert halted.value.status == 2
