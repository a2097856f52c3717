"""Kinetics by its csv files: which videos are there, with which labels; every mistake is told."""

import errno
import os
import re

import pytest
from image_folders import write
from video_sources import elements, video_settings, write_csv

from ctx_flax import files
from ctx_flax.data import kinetics
from ctx_flax.data.kinetics import kinetics_csv

GONE = 'gone_video__000003_000013'
HEADER = 'label,youtube_id,time_start,time_end\n'
QUOTED = 'petting animal (not cat), "gently"'
TRAIN = [
  ('riding', 'abcdefghijk', 10, 20, 'train'),
  (QUOTED, '-_234567890', 0, 10, 'train'),
  ('abseiling', 'abcdefghijk', 1000, 1010, 'train'),
  ('riding', 'gone_video_', 3, 13, 'train'),
]


@pytest.fixture
def root(tmp_path):
  write_csv(tmp_path / 'train.csv', TRAIN)
  write_csv(tmp_path / 'val.csv', [('riding', 'validation1', 7, 17, 'val')])
  write(
    tmp_path,
    *('abcdefghijk_000010_000020.mp4', 'train/some class/-_234567890_000000_000010.mkv'),
    *('train/abcdefghijk_001000_001010.mp4', 'val/validation1_000007_000017.mp4'),
    *('val/other_000000_000010.mp4', 'gone_video__000003_000013.mp4.part'),
    *('.trash/gone_video__000003_000013.mp4', 'notes.txt'),
  )
  return tmp_path


def opened(root, split='train', **changes):
  return kinetics_csv(video_settings(root, 'kinetics_csv', **changes), split)


def test_videos_are_those_of_the_csv_wherever_they_lie(root):
  """Flat or in folders, with times in six digits; labels are sorted and spelled as in the file."""
  source = opened(root)
  assert source.class_names == ('abseiling', QUOTED, 'riding')
  assert elements(source) == [
    ('abcdefghijk_000010_000020.mp4', 2),
    ('train/some class/-_234567890_000000_000010.mkv', 1),
    ('train/abcdefghijk_001000_001010.mp4', 0),
  ]
  test = opened(root, 'test')
  assert test.class_names == source.class_names
  assert elements(test) == [('val/validation1_000007_000017.mp4', 2)]


def test_videos_that_are_not_there_are_counted_and_named_in_a_file(root):
  (remark,) = opened(root).remarks
  assert remark == f'{root}/train.csv: 1 of 4 videos not there: {GONE}, listed in {root}/missing_train.txt'
  assert (root / 'missing_train.txt').read_text() == f'{GONE}\n'
  assert opened(root, 'test').remarks == (f'{root}/val.csv: classes without videos: abseiling, {QUOTED}',)
  assert not (root / 'missing_val.txt').exists()


def test_the_file_of_missing_videos_says_what_is_missing_now(root):
  """Another csv file has another one; nobody writes one that says the same already."""
  write_csv(root / 'mine.csv', [*TRAIN[2:], ('riding', 'gone_too', 0, 10)])
  opened(root)
  opened(root, train_split='mine')
  file = root / 'missing_train.txt'
  assert file.read_text() == f'{GONE}\n'
  assert (root / 'missing_mine.txt').read_text() == f'{GONE}\ngone_too_000000_000010\n'
  os.utime(file, ns=(0, 0))
  opened(root)
  assert file.stat().st_mtime_ns == 0
  write(root, f'{GONE}.mp4')
  assert opened(root).remarks == () and file.read_text() == ''


def refuse_writes(monkeypatch):
  """What a file system that is mounted read-only says; the tests may run as root, whom modes do not stop."""

  def refuse(path, *_, **__):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

  monkeypatch.setattr(files.pathlib.Path, 'write_text', refuse)


@pytest.mark.parametrize('csv_file', ['train', 'the list'])
def test_a_folder_that_cannot_be_written_is_trained_on(root, monkeypatch, csv_file):
  write_csv(root / f'{csv_file}.csv', TRAIN)
  file = root / f'missing_{csv_file}.txt'
  file.write_text('as it was')
  refuse_writes(monkeypatch)
  source = opened(root, train_split=csv_file)
  assert len(source) == 3
  named = '' if csv_file == 'train' else " '--csv=the list'"
  assert source.remarks == (
    f'{root}/{csv_file}.csv: 1 of 4 videos not there: {GONE} ({file} cannot be written: Read-only file '
    f'system; python -m ctx_flax.data.kinetics {root} --split=train{named} --to=FILE lists them)',
  )
  assert file.read_text() == 'as it was'


def test_a_class_keeps_its_label_if_its_videos_are_not_there(root):
  (root / 'train/abcdefghijk_001000_001010.mp4').unlink()
  source = opened(root)
  assert source.num_classes == 3 and [label for _, label in elements(source)] == [2, 1]
  assert f'{root}/train.csv: classes without videos: abseiling' in source.remarks


def test_the_program_names_missing_videos_in_a_file(root, capsys):
  kinetics.main([str(root)])
  counted = f'{root}/train.csv: 1 of 4 videos not there: {GONE}, listed in'
  assert capsys.readouterr().out == f'{counted} {root}/missing_train.txt\n'
  assert (root / 'missing_train.txt').read_text() == f'{GONE}\n'
  kinetics.main([str(root), f'--to={root}/new folder/a.txt'])
  assert capsys.readouterr().out == f'{counted} {root}/new folder/a.txt\n'
  assert (root / 'new folder' / 'a.txt').read_text() == f'{GONE}\n'
  kinetics.main([str(root), '--split=test'])
  assert capsys.readouterr().out == f'{root}/val.csv: none of 1 video is missing\n'
  assert {path.name for path in root.glob('**/*') if 'missing' in path.name} == {'missing_train.txt'}
  with pytest.raises(SystemExit, match=f'error: {root} holds no other.csv'):
    kinetics.main([str(root), '--csv=other'])


def test_the_program_prints_missing_videos_that_it_cannot_write(root, monkeypatch, capsys):
  """An old list stays as it was."""
  write_csv(root / 'train.csv', [*TRAIN, ('riding', 'gone_too', 0, 10)])
  (root / 'missing_train.txt').write_text('as it was')
  before = sorted(root.rglob('*'))
  refuse_writes(monkeypatch)
  with pytest.raises(SystemExit) as ended:
    kinetics.main([str(root)])
  assert ended.value.code == (
    f'error: {root}/missing_train.txt cannot be written: Read-only file system. {root}/train.csv: 2 of 5 '
    f'videos not there: {GONE}, gone_too_000000_000010; all names are on the standard output, --to=FILE '
    'writes them elsewhere'
  )
  assert capsys.readouterr().out == f'{GONE}\ngone_too_000000_000010\n'
  assert (root / 'missing_train.txt').read_text() == 'as it was' and sorted(root.rglob('*')) == before


def test_a_video_that_is_there_twice_counts_once(root):
  write(root, 'a/abcdefghijk_000010_000020.mp4', 'z/abcdefghijk_000010_000020.webm')
  source = opened(root)
  assert elements(source)[0] == ('a/abcdefghijk_000010_000020.mp4', 2) and len(source) == 3
  assert f'{root}: 2 videos there twice; the first by name counts' in source.remarks


def test_files_are_looked_for_by_one_walk(root, monkeypatch):
  """Not by asking for each row: on a network drive that takes minutes."""
  asked = []
  original = kinetics.iterate_files
  monkeypatch.setattr(
    kinetics, 'iterate_files', lambda *args, **kinds: asked.append(1) or original(*args, **kinds)
  )
  monkeypatch.setattr(kinetics.os.path, 'exists', None)
  monkeypatch.setattr(kinetics.os.path, 'isfile', None)
  opened(root)
  assert asked == [1]


@pytest.mark.parametrize('name', ['validate', 'val', 'validation', 'test', 'annotations/val'])
def test_csv_files_have_the_names_of_common_copies(root, name):
  (root / 'val.csv').unlink()
  write_csv(root / f'{name}.csv', [('riding', 'validation1', 7, 17)], ('label', *kinetics.COLUMNS[1:]))
  assert len(opened(root, 'test')) == 1


@pytest.mark.parametrize('spelling', ['mine', 'mine.csv'])
def test_csv_files_can_be_named(root, spelling):
  write_csv(root / 'mine.csv', TRAIN[:1])
  assert len(opened(root, train_split=spelling)) == 1
  assert len(opened(root, 'test', test_split=spelling)) == 1


def test_other_columns_in_any_order_are_left_alone(root):
  """Also behind a byte order mark, as spreadsheets write it."""
  (root / 'train.csv').write_text(
    '\ufefftime_end,is_cc,time_start,youtube_id,label,split\n20,1,10,abcdefghijk,riding,x\n', encoding='utf-8'
  )
  assert elements(opened(root)) == [('abcdefghijk_000010_000020.mp4', 0)]


@pytest.mark.parametrize(
  'text, message',
  [
    ('label,youtube_id,time_start\nx,y,1\n', r'train\.csv has no column time_end: a csv file of Kinetics'),
    ('', r'train\.csv has no column label, youtube_id, time_start, time_end'),
    (HEADER, r'train\.csv lists no videos'),
    (HEADER + 'a,b,1,2\na,,1,2\n', r'train\.csv, line 3 has no youtube_id$'),
    (HEADER + 'a\n', r'train\.csv, line 2 has no youtube_id$'),
    (HEADER + ' ,b,1,2\n', r'train\.csv, line 2 has no label$'),
    (HEADER + 'a,b,1.5,2\n', r"line 2: time_start must be whole seconds, but is '1\.5'"),
    (HEADER + 'a,b,1\n', "line 2: time_end must be whole seconds, but is ''"),
    (
      HEADER + 'a,b,1,2\nc,d,1,2\ne,b,01,2\n',
      r'train\.csv, line 4 repeats b_000001_000002 of line 2: remove one of them',
    ),
    (HEADER + '"a,b,1,2\n', r'train\.csv cannot be read as csv: '),
    (HEADER.encode() + b'\xff,b,1,2\n', r'train\.csv is not UTF-8: save it so'),
    (
      HEADER + 'a,b,1,2\n',
      r'holds none of the 1 video of .*train\.csv; the first would be b_000001_000002\.mp4',
    ),
  ],
)
def test_damaged_files_are_told(root, text, message):
  (root / 'train.csv').write_bytes(text if isinstance(text, bytes) else text.encode())
  with pytest.raises(ValueError, match=message):
    opened(root)


def test_a_test_label_that_training_lacks_is_named(root):
  write_csv(root / 'val.csv', [('Riding', 'validation1', 7, 17, 'val')])
  with pytest.raises(ValueError, match=r'val\.csv has labels that .*train\.csv does not: Riding$'):
    opened(root, 'test')


@pytest.mark.parametrize(
  'split, file, message',
  [
    ('train', 'train', r'holds no train\.csv, nor does annotations in it: data\.train_split names it'),
    ('test', 'val', r'holds no validate\.csv, val\.csv, validation\.csv, test\.csv, .* data\.test_split'),
  ],
)
def test_csv_files_that_are_not_there_are_named(root, split, file, message):
  (root / f'{file}.csv').unlink()
  with pytest.raises(FileNotFoundError, match=message):
    opened(root, split)


def test_a_file_that_cannot_be_read_is_an_os_error_with_its_path(root, monkeypatch):
  def refuse(path, *args, **kinds):
    raise PermissionError(13, 'Permission denied', str(path))

  monkeypatch.setattr(kinetics.pathlib.Path, 'open', refuse)
  with pytest.raises(PermissionError, match=re.escape(str(root / 'train.csv'))):
    opened(root)


def test_a_long_list_of_missing_videos_is_cut(root):
  rows = [('riding', f'missing{i:04}', 0, 10, 'train') for i in range(2000)]
  write_csv(root / 'train.csv', [*TRAIN, *rows])
  (remark,) = opened(root).remarks
  assert '2,001 of 2,004 videos not there: gone_video_' in remark and 'and 1,996 more' in remark
  missing = (root / 'missing_train.txt').read_text().splitlines()
  assert len(missing) == 2001 and missing[:2] == [GONE, 'missing0000_000000_000010']
