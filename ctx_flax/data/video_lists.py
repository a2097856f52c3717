"""Videos that lists or folders name: files by list, files by class folder, folders of frames by list."""

from typing import Any

from ctx_flax.data.clip_files import VIDEO, FrameFolders, VideoFiles
from ctx_flax.data.file_source import FileSource
from ctx_flax.data.folders import class_folders
from ctx_flax.data.lists import ListForm, listed_files


def video_list(data: Any, split: str) -> FileSource:
  """Video files below data.path that data.train_list or data.test_list name.

  A line is 'NAME LABEL', or 'NAME FRAMES LABEL' as in the lists of TSM and TSN
  (https://github.com/mit-han-lab/temporal-shift-module). FRAMES is not used: the frames of a file are counted
  where it is read. Names may hold blanks; one that ends in a blank and a number needs FRAMES.
  Labels are numbers from 0; there are as many classes as the training list's largest label says.

  Args:
    data: config.data; path is the folder that the names start from.
    split: 'train' or 'test'.

  Raises:
    FileNotFoundError: data.path is empty, or it or a list does not exist.
    ValueError: a line that is not of these forms (told with its number), or a test label beyond the classes.
  """
  return listed_files(data, split, VideoFiles, ListForm('video', frames=True))


def video_folder(data: Any, split: str) -> FileSource:
  """data.path/SPLIT/CLASS/**/*.mp4 (and the other endings of VIDEO_SUFFIXES): image_folder, of videos.

  data.path holds a folder train and one of validation, val or test, with a folder per class in each; or the
  class folders themselves, of which data.test_share divides the videos. Names of splits, classes and errors
  are as ctx_flax.data.folders.image_folder says.
  """
  return class_folders(data, split, VIDEO, VideoFiles)


def frame_list(data: Any, split: str) -> FileSource:
  """Folders of frames below data.path that data.train_list or data.test_list name.

  A line is 'FOLDER FRAMES LABEL', as in the lists of TSM and TSN, or 'FOLDER LABEL'; FRAMES is not used. A
  folder holds the frames of one video as image files (img_00001.jpg, ...) in the order of the numbers in
  their names. It is listed where the video is read, which raises OSError if it is not there and BadImage if
  it holds no image.

  Arguments and errors are those of `video_list`.
  """
  return listed_files(data, split, FrameFolders, ListForm('video', frames=True))
