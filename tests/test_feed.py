"""Batches made ahead in a thread: order, errors, an end without leftovers; bad images named once."""

import itertools
import threading

import pytest

from ctx_flax.training.feed import NAMED, BadImages, Clock, Feed


class Numbers:
  """0, 1, ... up to `last`, then `error`; counts how many were taken and remembers being closed."""

  def __init__(self, last=10**9, error=StopIteration):
    self.last, self.error = last, error
    self.taken, self.closed = 0, False

  def __next__(self):
    if self.taken == self.last:
      raise self.error
    self.taken += 1
    return self.taken - 1

  def close(self):
    self.closed = True


def feed_threads():
  return [thread for thread in threading.enumerate() if thread.name == 'feed']


@pytest.mark.parametrize('ahead', [0, 1, 3])
def test_batches_come_in_order_and_placed(ahead):
  numbers = Numbers()
  feed = Feed(numbers, lambda number: 10 * number, ahead)
  assert list(itertools.islice(feed, 20)) == [10 * i for i in range(20)]
  assert len(feed_threads()) == (ahead > 0)
  feed.close()
  assert numbers.closed and not feed_threads()
  # One waits in the hands of the thread beside those in the queue.
  assert 20 <= numbers.taken <= 20 + ahead + 1


@pytest.mark.parametrize('ahead', [0, 2])
@pytest.mark.parametrize('error', [StopIteration, ValueError('a bad file')])
def test_the_end_and_errors_come_after_the_batches_before_them(ahead, error):
  feed = Feed(Numbers(3, error), lambda number: number, ahead)
  assert [next(feed) for _ in range(3)] == [0, 1, 2]
  kind = error if isinstance(error, type) else type(error)
  for _ in range(2):
    with pytest.raises(kind):
      next(feed)
  feed.close()
  assert not feed_threads()


def test_an_error_in_placing_is_told():
  feed = Feed(Numbers(), lambda number: 1 / (number - 1), 2)
  assert next(feed) == -1
  with pytest.raises(ZeroDivisionError):
    next(feed)
  feed.close()


def test_it_runs_ahead_without_being_asked_and_counts_the_waiting():
  reached = threading.Event()

  def place(number):
    if number == 1:
      reached.set()
    return number

  feed = Feed(Numbers(), place, 2)
  assert reached.wait(10)
  assert feed.waited == 0
  next(feed)
  assert feed.waited > 0
  feed.close()


def test_bad_images_are_counted_always_and_named_once():
  told = []
  bad = BadImages(lambda index: f'{index}.jpg: truncated', told.append)
  bad.add([-1, 7, -1, 7], 'replaced by the next one')
  bad.add([7, 3], 'replaced by the next one')
  assert told == [
    'unreadable image replaced by the next one: 7.jpg: truncated',
    'unreadable image replaced by the next one: 3.jpg: truncated',
  ]
  assert (bad.take(), bad.take()) == (4, 0)
  bad.add(range(100, 100 + 2 * NAMED), 'left out')
  assert len(told) == NAMED + 1 and 'counted, but not named' in told[-1]
  assert bad.take() == 2 * NAMED


def test_clock(monkeypatch):
  """Two of ten steps after the compiler's, at one second each, half of it waiting; then a pause."""
  now = [100.0]
  monkeypatch.setattr('time.perf_counter', lambda: now[0])
  feed = Feed(Numbers(), None, 0)
  clock = Clock(feed, batch_size=8, steps=11)
  now[0] = 130.0
  clock.tick()
  clock.resume()
  for _ in range(2):
    clock.tick()
    now[0] += 1.0
    feed.waited += 0.5
  assert clock.look() == {'images_per_second': 8.0, 'data/wait_share': 0.5}
  assert clock.remaining() == 8.0
  now[0] += 50.0
  clock.resume()
  clock.tick()
  now[0] += 2.0
  assert clock.look() == {'images_per_second': 4.0, 'data/wait_share': 0.0}
