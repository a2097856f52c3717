"""Sources of clips: what they promise; videos in lists and in folders; folders of frames."""

import pickle
import re

import pytest
from image_folders import write
from video_sources import elements, video_settings, write_csv

from ctx_flax.data import clip_files, clip_sources, moves_render, sources
from ctx_flax.data.decode import BadImage


@pytest.fixture
def root(tmp_path, monkeypatch):
  """Files for every source; those of moves are empty, as no source reads a video."""
  monkeypatch.setattr(moves_render, 'encode', lambda frames: b'')
  for split in ('train', 'val'):
    for label in ('a', 'b'):
      write(tmp_path, *(f'{split}/{label}/{split}{label}{i}_00000{i}_000010.mp4' for i in range(2)))
      write(tmp_path, f'frames/{split}{label}/img_00001.jpg', f'frames/{split}{label}/img_00002.jpg')
    write_csv(
      tmp_path / f'{split}.csv',
      [(label, f'{split}{label}{i}', i, 10, split) for label in ('a', 'b') for i in range(2)],
    )
  return tmp_path


def opened(root, name, split):
  data = video_settings(root, name)
  if name == 'moves':
    data.path = str(root / 'moves')
  names = {'frame_list': 'frames/{}{} 2 {}', 'video_list': '{0}/{1}/{0}{1}0_000000_000010.mp4 {2}'}
  for part, folder in (('train', 'train'), ('test', 'val')):
    lines = [names.get(name, '').format(folder, label, i) for i, label in enumerate('ab')]
    (root / f'{part}.txt').write_text('\n'.join(lines))
  return clip_sources.open_clip_source(data, split)


@pytest.mark.parametrize('split', sources.SPLITS)
@pytest.mark.parametrize('name', clip_sources.CLIP_SOURCES)
def test_every_source_keeps_its_promises(root, name, split):
  """Random access in one order, labels below num_classes, and the same after pickling as workers get it."""
  source = opened(root, name, split)
  assert len(set(source.class_names)) == len(source.class_names) == source.num_classes > 1
  sent = pickle.dumps(source)
  assert len(sent) < 4_000
  copy = pickle.loads(sent)
  assert len(copy) == len(source) and copy.class_names == source.class_names
  for index in reversed(range(len(source))):
    element = source[index]
    assert element == copy[index] and element.keys() - {'label'} in ({'video'}, {'frames'})
    assert type(element['label']) is int and 0 <= element['label'] < source.num_classes
  assert {source[i]['label'] for i in range(len(source))} == set(range(source.num_classes))
  assert len({source.name(index) for index in range(len(source))}) == len(source)


def test_sizes_are_said_of_videos(root):
  pair = [opened(root, 'video_folder', split) for split in sources.SPLITS]
  assert clip_sources.describe(*pair) == ['4 training videos, 4 test videos, 2 classes']


@pytest.mark.parametrize(
  'name, message',
  [
    (
      'video_lists',
      "unknown data.name 'video_lists'; known: frame_list, .*, video_list; did you mean 'video_list'\\?$",
    ),
    ('digits', "unknown data.name 'digits'; known: .*, video_list; it has images, not videos$"),
  ],
)
def test_an_unknown_name_is_told(tmp_path, name, message):
  with pytest.raises(ValueError, match=message):
    clip_sources.open_clip_source(video_settings(tmp_path, name), 'train')


def test_a_wrong_split_is_named(tmp_path):
  with pytest.raises(ValueError, match=r"split must be one of \('train', 'test'\), but is 'val'"):
    clip_sources.open_clip_source(video_settings(tmp_path, 'video_list'), 'val')


@pytest.mark.parametrize('name', [name for name in clip_sources.CLIP_SOURCES if name != 'moves'])
@pytest.mark.parametrize('path', ['', '/no/such/folder'])
def test_videos_that_are_not_there_are_no_typing_error(tmp_path, name, path):
  with pytest.raises(FileNotFoundError, match=rf'data\.path is .*{name} needs'):
    clip_sources.open_clip_source(video_settings(tmp_path, name, path=path), 'train')


# Lists.


@pytest.mark.parametrize(
  'line, name, label',
  [
    ('a.mp4 3', 'a.mp4', 3),
    ('abseiling/a_10 300 3', 'abseiling/a_10', 3),
    ('some where/b c.mp4\t3', 'some where/b c.mp4', 3),
    ('some where/b c.mp4  250 \t 3', 'some where/b c.mp4', 3),
    ('take 2.mp4 3', 'take 2.mp4', 3),
    ('take 2 250 3', 'take 2', 3),
    ('7 3', '7', 3),  # a name, not a number of frames
  ],
)
def test_lines_may_tell_the_number_of_frames(tmp_path, line, name, label):
  (tmp_path / 'train.txt').write_text(f'{line}\n')
  source = clip_sources.open_clip_source(video_settings(tmp_path, 'video_list'), 'train')
  assert elements(source) == [(name, label)] and source.num_classes == label + 1
  assert source.remarks == (f'{tmp_path}/train.txt: 3 classes have no video: 0, 1, 2; labels count from 0',)


@pytest.mark.parametrize('name', ['video_list', 'frame_list'])
@pytest.mark.parametrize(
  'text, message',
  [
    ('a', 'line 1: expected "NAME LABEL" or "NAME FRAMES LABEL" with a number, found \'a\''),
    ('a.mp4 300 one', "with a number, found 'a.mp4 300 one'"),
    ('a 1\n7', "line 2: expected .* with a number, found '7'"),
    ('a\0 1', 'line 1 holds a NUL byte: save the list as UTF-8'),
    ('a 99999999999', 'line 1: a label is at most 9,999,999'),
    ('', 'names no videos'),
  ],
)
def test_lists_of_another_form_are_told(tmp_path, name, text, message):
  (tmp_path / 'train.txt').write_text(text)
  with pytest.raises(ValueError, match=rf'train\.txt.*{message}'):
    clip_sources.open_clip_source(video_settings(tmp_path, name), 'train')


def test_missing_lists_are_named(tmp_path):
  message = 'data.test_list is empty: video_list needs a file with a line "NAME LABEL" or "NAME FRAMES LABEL"'
  (tmp_path / 'train.txt').write_text('a 0')
  with pytest.raises(ValueError, match=f'{message} per video'):
    clip_sources.open_clip_source(video_settings(tmp_path, 'video_list', test_list=''), 'test')


def test_a_test_label_beyond_the_classes_is_told(tmp_path):
  (tmp_path / 'train.txt').write_text('a 30 1')
  (tmp_path / 'test.txt').write_text('a 30 2')
  with pytest.raises(ValueError, match=r'test\.txt holds the label 2, but training has 2 classes'):
    clip_sources.open_clip_source(video_settings(tmp_path, 'frame_list'), 'test')


# Folders.


def test_videos_of_every_ending_and_nothing_else(tmp_path):
  """The rules are those of images; what they say is said of videos."""
  endings = ('mp4', 'MP4', 'webm', 'mkv', 'avi', 'mov', 'm4v', 'ts', 'mpg', 'mpeg')
  write(tmp_path, *(f'Train/run/deep/{i}.{ending}' for i, ending in enumerate(endings)))
  write(
    tmp_path, 'Train/run/1.jpg', 'Train/run/._1.mp4', 'Train/sit/1.png', 'Train/walk/1.mp4', 'val/run/1.avi'
  )
  data = video_settings(tmp_path, 'video_folder')
  train, test = (clip_sources.open_clip_source(data, split) for split in sources.SPLITS)
  assert elements(train) == [
    *((f'Train/run/deep/{i}.{ending}', 0) for i, ending in enumerate(endings)),
    ('Train/walk/1.mp4', 1),
  ]
  assert elements(test) == [('val/run/1.avi', 0)] and test.class_names == ('run', 'walk')
  assert clip_sources.describe(train, test) == [
    '11 training videos, 1 test video, 2 classes',
    f'{tmp_path}/Train: ignored 2 files that are no videos (.jpg, .png)',
    f'{tmp_path}/Train: ignored 1 hidden or system entry (._1.mp4)',
    f'{tmp_path}/Train: class folders without videos: sit',
    f'{tmp_path}/val: classes without videos: walk',
  ]


def test_folders_of_videos_are_divided_by_class(tmp_path):
  write(tmp_path, *(f'{name}/{i}.mp4' for name in ('run', 'walk') for i in range(4)))
  data = video_settings(tmp_path, 'video_folder', test_share=0.25)
  parts = {split: elements(clip_sources.open_clip_source(data, split)) for split in sources.SPLITS}
  assert [label for _, label in parts['test']] == [0, 1] and len(parts['train']) == 6
  assert len({*parts['train'], *parts['test']}) == 8
  write(tmp_path, 'sit/0.mp4')
  with pytest.raises(ValueError, match=r'sit holds 1 videos: data\.test_share divides'):
    clip_sources.open_clip_source(data, 'train')


def test_folders_of_images_hold_no_videos(tmp_path):
  write(tmp_path, 'train/run/1.jpg')
  with pytest.raises(ValueError, match=r'train holds no video files \(\.mp4 .*\.webm .*\) in its folders'):
    clip_sources.open_clip_source(video_settings(tmp_path, 'video_folder'), 'train')
  (tmp_path / 'train/run/1.jpg').unlink()
  (tmp_path / 'train/run').rmdir()
  with pytest.raises(ValueError, match='each class needs one, with its videos in it'):
    clip_sources.open_clip_source(video_settings(tmp_path, 'video_folder'), 'train')
  with pytest.raises(FileNotFoundError, match=re.escape('train/CLASS/*.mp4 and validation/CLASS/*.mp4')):
    clip_sources.open_clip_source(video_settings(tmp_path, 'video_folder', path=''), 'train')


# Frames.


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
  names = ('img_1.jpg', 'img_2.png', 'img_9.jpg', 'img_10.jpg', 'img_100.jpg')
  write(tmp_path, *(f'a clip/{name}' for name in sorted(names)), 'a clip/notes.txt', 'a clip/.img_3.jpg')
  write(tmp_path, 'a clip/img_4.jpg/img_5.jpg')
  (tmp_path / 'train.txt').write_text('a clip 5 0\n')
  source = clip_sources.open_clip_source(video_settings(tmp_path, 'frame_list'), 'train')
  assert source[0] == {'frames': (f'{tmp_path}/a clip', names), 'label': 0}
  assert source.name(0) == 'a clip'


def test_names_of_text_and_numbers_have_an_order(tmp_path):
  """Whichever of the two they start with."""
  write(tmp_path, '2.jpg', '10.jpg', 'a2b10.jpg', 'a2b9.jpg', 'b.jpg', '02.jpg')
  assert clip_files.frame_names(tmp_path) == ('02.jpg', '2.jpg', '10.jpg', 'a2b9.jpg', 'a2b10.jpg', 'b.jpg')


def test_folders_of_frames_are_listed_when_they_are_read(tmp_path):
  """Not before: a missing one is no error of the list, and what it says is an error of its element alone."""
  (tmp_path / 'train.txt').write_text('gone 5 0\nempty 5 1\n')
  source = clip_sources.open_clip_source(video_settings(tmp_path, 'frame_list'), 'train')
  with pytest.raises(FileNotFoundError):
    source[0]
  write(tmp_path, 'gone/1.jpg', 'empty/readme.txt')
  assert source[0]['frames'][1] == ('1.jpg',)
  with pytest.raises(BadImage, match='the folder holds no image files'):
    source[1]
