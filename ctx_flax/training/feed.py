"""Batches made ahead of the step that takes them, and images that could not be read on the way."""

import queue
import threading
import time

NAMED = 10  # bad images that a run names one by one


class Feed:
  """Runs an iterator of batches in a thread, so that the next ones are on the devices when they are wanted.

  Close it, or use it in contextlib.closing: it then closes the iterator.

  Args:
    batches: an iterator; with a close() where it has one.
    place: what to do with each batch, in the thread: split it and send it to the devices.
    ahead: how many placed batches wait; 0 runs without a thread.

  Attributes:
    waited: seconds that the caller has spent waiting for batches.
  """

  def __init__(self, batches, place, ahead):
    self.waited = 0.0
    self._batches, self._place = batches, place
    self._ready: queue.Queue = queue.Queue(max(ahead, 1))
    self._closed = threading.Event()
    self._thread = None
    if ahead:
      self._thread = threading.Thread(target=self._run, name='feed', daemon=True)
      self._thread.start()

  def __iter__(self):
    return self

  def __next__(self):
    began = time.perf_counter()
    try:
      if self._thread is None:
        return self._place(next(self._batches))
      batch, error = self._ready.get()
    finally:
      self.waited += time.perf_counter() - began
    if error is not None:
      self._ready.put((None, error))  # it stays so for whoever asks again
      raise error
    return batch

  def close(self):
    """Ends the thread and closes the iterator."""
    self._closed.set()
    if self._thread is not None:
      while self._thread.is_alive():
        self._drain()
        self._thread.join(0.05)
    if hasattr(self._batches, 'close'):
      self._batches.close()

  def _run(self):
    while not self._closed.is_set():
      try:
        batch = self._place(next(self._batches))
      except BaseException as error:  # StopIteration too: the caller's thread raises it
        self._ready.put((None, error))
        return
      self._ready.put((batch, None))

  def _drain(self):
    while not self._ready.empty():
      self._ready.get_nowait()


class BadImages:
  """Counts the images, or other examples, that could not be read, and names each once.

  Args:
    describe: from an image's index to 'NAME: reason'.
    warn: what shows a line to the user.
    examples: what they are, in the plural.
  """

  def __init__(self, describe, warn, examples='images'):
    self._count = 0
    self._describe, self._warn, self._examples = describe, warn, examples
    self._seen: set = set()

  def add(self, indices, what):
    """Adds the indices of a batch, -1 where nothing is wrong; `what` says what was done about the image."""
    for index in (int(i) for i in indices if i >= 0):
      self._count += 1
      if index in self._seen:
        continue
      self._seen.add(index)
      if len(self._seen) <= NAMED:
        self._warn(f'unreadable {self._examples.removesuffix("s")} {what}: {self._describe(index)}')
      elif len(self._seen) == NAMED + 1:
        self._warn(f'further unreadable {self._examples} are counted, but not named')

  def take(self):
    """How many there were since this was last called."""
    count, self._count = self._count, 0
    return count


class Clock:
  """Times the training steps between two looks at them; compiling, testing and saving are left out.

  Args:
    feed: the Feed of the steps.
    batch_size: images, or other examples, of a step, over all devices.
    steps: how many the run still has to do.
    examples: what they are, in the plural.
  """

  def __init__(self, feed, batch_size, steps, examples='images'):
    self._feed, self._batch_size, self._steps, self._examples = feed, batch_size, steps, examples
    self._done = 0
    self._spent = 0.0
    self.resume()

  def resume(self):
    """Starts timing: after the first step, which is the compiler's, and after every pause."""
    self._since, self._timed, self._waited = time.perf_counter(), 0, self._feed.waited

  def tick(self):
    """Counts a step that was started."""
    self._done += 1
    self._timed += 1

  def look(self):
    """{'images_per_second', 'data/wait_share'} since `resume`, when the steps started so far are finished."""
    seconds = max(time.perf_counter() - self._since, 1e-9)
    self._spent += seconds
    return {
      f'{self._examples}_per_second': self._timed * self._batch_size / seconds,
      'data/wait_share': min((self._feed.waited - self._waited) / seconds, 1.0),
    }

  def remaining(self):
    """Seconds that the steps to come will take, without testing and saving."""
    return (self._steps - self._done) * self._spent / max(self._done - 1, 1)
