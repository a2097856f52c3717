"""Videos that a list of a data set has and its folder lacks: counted in a line, named in a file."""

import dataclasses
import pathlib

from ctx_flax.data.image_files import counted, few
from ctx_flax.files import printable, write_text


@dataclasses.dataclass(frozen=True)
class MissingVideos:
  """The videos that a list has and a folder lacks.

  Attributes:
    source: the list.
    number: of the videos that it has.
    names: of those that are missing, in its order.
    file: to name them in.
  """

  source: pathlib.Path
  number: int
  names: list[str]
  file: pathlib.Path

  def summary(self) -> str:
    """'train.csv: 2 of 40 videos not there: A, B', with five names at most."""
    videos = counted(self.number, 'video')
    if not self.names:
      return f'{printable(self.source)}: none of {videos} is missing'
    return f'{printable(self.source)}: {len(self.names):,} of {videos} not there: {few(self.names)}'

  def written(self) -> str:
    """`summary`, and the file that has all names."""
    return f'{self.summary()}, listed in {printable(self.file)}' if self.names else self.summary()

  def write(self) -> str:
    """Writes the names to the file, one a line: '', or why it cannot be written; then it stays as it was.

    Where nothing is missing any more, a file that is there becomes empty, and no other is made.
    """
    lines = ''.join(f'{printable(name)}\n' for name in self.names)
    # Every process of every run comes here, and hardly ever with news.
    try:
      before = self.file.read_text(encoding='utf-8', errors='replace')
    except OSError:
      before = ''
    if lines == before:
      return ''
    try:
      write_text(self.file, lines, shared=True)
    except OSError as error:
      return f'{printable(self.file)} cannot be written: {printable(error.strerror or error)}'
    return ''
