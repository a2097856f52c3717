"""Names of image files as somebody gives them: any name, links, hidden files, globs with brackets, lists."""

import os

import pytest

from ctx_flax.analysis.file_names import find_files, listed_files


@pytest.fixture
def write(tmp_path, monkeypatch):
  """Makes empty files below the working folder."""
  monkeypatch.chdir(tmp_path)

  def write_files(*names):
    for name in names:
      folder = os.path.dirname(name)
      if folder:
        os.makedirs(folder, exist_ok=True)
      with open(name, 'wb'):
        pass

  return write_files


ODD = (
  'a,b.jpg',
  'c[1].jpg',
  ' d .jpg',
  'e"f\'.jpg',
  'g\nh.jpg',
  os.fsdecode(b'gr\xfcn.jpg'),
  'i*.jpg',
  '-j.jpg',
)


@pytest.mark.parametrize('name', ODD)
def test_a_name_that_exists_means_itself(write, name):
  write(*ODD, 'c1.jpg', 'ix.jpg', 'd .jpg')
  assert find_files(name) == [name]
  assert find_files(f'c1.jpg,{name}') == ['c1.jpg', name]
  assert find_files(f'{name},ix.jpg') == [name, 'ix.jpg']


def test_names_with_commas_stand_between_commas(write):
  write('a,b.jpg', 'c.jpg', 'd,e,f.jpg')
  assert find_files('c.jpg, a,b.jpg ,d,e,f.jpg') == ['c.jpg', 'a,b.jpg', 'd,e,f.jpg']


@pytest.mark.parametrize('shown', ['gr\\xfcn.jpg', '*.jpg', '?r?n.jpg', 'gr[!x]n.jpg'])
def test_bytes_that_are_no_utf8_can_be_typed(write, shown):
  write(os.fsdecode(b'gr\xfcn.jpg'))
  assert find_files(shown) == [os.fsdecode(b'gr\xfcn.jpg')]


def test_brackets_of_a_folder_that_exists_are_no_pattern(write):
  write('photos[1]/a.jpg', 'photos[1]/b[2].jpg', 'photos2/c.jpg', 'in/photos[1]/d.jpg')
  assert find_files('photos[1]/*.jpg') == ['photos[1]/a.jpg', 'photos[1]/b[2].jpg']
  assert find_files('*/photos[1]/?.jpg') == ['in/photos[1]/d.jpg']
  assert find_files('photos[12]/*') == ['photos2/c.jpg']
  assert find_files(os.path.abspath('photos[1]') + '/[ab].jpg') == [os.path.abspath('photos[1]/a.jpg')]


@pytest.mark.parametrize('pattern', ['photos', 'photos/**', 'photos/**/*.jpg', 'photo*/**/?.jpg'])
def test_links_are_followed_and_hidden_files_are_left_out(write, pattern):
  """Links that lead back up double with every turn: no folder is visited twice."""
  write('photos/a.jpg', 'photos/in/b.jpg', 'elsewhere/c.jpg', 'photos/._a.jpg', 'photos/.thumbs/a.jpg')
  write('photos/@eaDir/a.jpg', 'photos/__MACOSX/in/b.jpg')
  os.symlink('../elsewhere', 'photos/linked')
  for i in range(3):
    os.symlink('..', f'photos/up{i}')
    os.symlink('../..', f'photos/in/up{i}')
  assert find_files(pattern) == ['photos/a.jpg', 'photos/in/b.jpg', 'photos/linked/c.jpg']


def test_what_a_folder_holds_besides_is_said(write):
  write('photos/a.jpg', 'photos/notes.txt', 'photos/.DS_Store', 'b.txt')
  lines = []
  assert find_files('photos,b.txt', lines.append) == ['photos/a.jpg', 'b.txt']
  assert lines == [
    'photos: ignored 1 file that is no image (.txt)',
    'photos: ignored 1 hidden or system entry (.DS_Store)',
  ]


def test_the_home_folder(write, monkeypatch):
  write('a.jpg', 'in/b.jpg', 'list.txt')
  monkeypatch.setenv('HOME', os.getcwd())
  monkeypatch.chdir('/')
  home = os.environ['HOME']
  assert find_files('~/a.jpg,~/i*/*.jpg,~/in') == [f'{home}/a.jpg', f'{home}/in/b.jpg']
  with open(f'{home}/list.txt', 'w') as file:
    file.write('~/a.jpg\n')
  assert listed_files('~/list.txt') == [f'{home}/a.jpg']


@pytest.mark.parametrize('separator', ['\n', '\r\n', '\0'])
def test_a_list_holds_any_names(write, separator):
  """With NUL bytes between them those with line breaks too; a folder stands for its images."""
  names = [name for name in ODD if separator == '\0' or '\n' not in name]
  write(*names, 'in/x.jpg')
  with open('list.txt', 'wb') as file:
    file.write(os.fsencode(separator.join([*names, '', 'in', names[0]]) + separator))
  assert listed_files('list.txt') == [*names, 'in/x.jpg']


@pytest.mark.parametrize(
  'content, message',
  [
    (b'a.jpg\n\ngone.jpg\n', "list.txt, line 3: 'gone.jpg' leads to no file"),
    (b'a.jpg\0gr\xfcn\0', "list.txt, name 2: 'gr\\\\xfcn' leads to no file"),
    (b'\n\r\n', 'list.txt names no images'),
    (b'*.jpg', "line 1: '\\*.jpg' leads to no file"),
  ],
)
def test_a_list_that_leads_nowhere(write, content, message):
  write('a.jpg')
  with open('list.txt', 'wb') as file:
    file.write(content)
  with pytest.raises(ValueError, match=message):
    listed_files('list.txt')
  with pytest.raises(FileNotFoundError, match=r'no\.txt'):
    listed_files('no.txt')


def test_messages_are_one_line_of_text(write):
  write()
  with pytest.raises(ValueError) as caught:
    find_files(os.fsdecode(b'gr\xfcn\n.jpg'))
  assert str(caught.value) == "'gr\\xfcn\\n.jpg' leads to no file"
