"""Plans: every image as often as the rule says, one canvas a batch, and the same from wherever one begins."""

import pickle
import threading

import numpy as np
import pytest

from ctx_flax.data import canvases
from ctx_flax.data.detection_draws import Augmentation
from ctx_flax.data.detection_plan import TrainPlan, eval_plan

AUGMENTATION = Augmentation(0.5, (32, 48, 64), 128, 0.5, (40, 60), (24, 40))
CANVASES = canvases.both_orientations(((64, 64), (64, 96), (64, 128)))
SIZES = np.random.default_rng(0).integers(40, 100, (101, 2)).astype(np.int32)


def make(batch_size=4, n=101, seed=0):
  return TrainPlan(SIZES[:n], AUGMENTATION, CANVASES, batch_size, seed)


def steps(plan, first, last):
  return [plan.batch(step) for step in range(first, last)]


def same(result, expected):
  for (a, canvas), (b, other) in zip(result, expected, strict=True):
    assert a.tobytes() == b.tobytes() and canvas.tolist() == other.tolist()


@pytest.mark.parametrize('batch_size, n', [(1, 101), (4, 101), (16, 101), (32, 40), (7, 3), (1, 1)])
def test_every_image_is_used_once_an_epoch(batch_size, n):
  """Of all epochs so far only the images that wait have not been used, fewer than a batch of each canvas."""
  plan = make(batch_size, n)
  used, waited = np.zeros(n, int), []
  for number in range(8):
    first, epoch = plan.epoch(number)
    assert first * batch_size == used.sum() and len(epoch.batches) == len(epoch.canvases)
    assert epoch.draws['index'].tolist() == list(range(n))
    used += np.bincount(epoch.batches['index'].ravel(), minlength=n)
    waiting = np.bincount(epoch.waiting['index'], minlength=n)
    np.testing.assert_array_equal(used + waiting, number + 1)
    by_canvas = np.bincount(canvases.smallest_canvas(epoch.waiting['hw'], CANVASES), minlength=len(CANVASES))
    assert by_canvas.max() < batch_size
    waited.append(waiting.sum())
  if batch_size > 1:
    assert max(waited) > 0
  # A run has as many steps as images in epochs over the batch, but for those that wait.
  assert abs(plan.epoch(8)[0] - 8 * n / batch_size) < len(CANVASES)


def test_images_that_wait_come_in_the_next_batch_of_their_canvas():
  plan = make(16)
  for number in range(4):
    waiting, later = plan.epoch(number)[1].waiting, plan.epoch(number + 1)[1]
    for draw in waiting:
      canvas = canvases.smallest_canvas(draw['hw'], CANVASES)
      if (later.canvases == canvas).any():
        assert draw in later.batches[later.canvases == canvas]
      else:
        assert draw in later.waiting


def test_a_batch_has_one_canvas_the_smallest_of_each_image():
  plan = make()
  for draws, canvas in steps(plan, 0, 60):
    chosen = canvases.smallest_canvas(draws['hw'], CANVASES)
    assert (CANVASES[chosen] == canvas).all()
  assert len({tuple(canvas) for _, canvas in steps(plan, 0, 60)}) == len(CANVASES)


def test_batches_and_images_are_shuffled():
  first, second = (plan.epoch(0)[1] for plan in (make(), make()))
  assert first.batches.tobytes() == second.batches.tobytes()
  order = first.batches['index'].ravel()
  assert (np.diff(order) > 0).mean() < 0.65
  assert (np.diff(first.canvases) != 0).mean() > 0.3  # not one canvas after the other
  later = make().epoch(1)[1]
  images = [set(map(frozenset, epoch.batches['index'].tolist())) for epoch in (first, later)]
  assert len(images[0] & images[1]) < 3 and (first.draws['hw'] != later.draws['hw']).any(-1).mean() > 0.5
  assert make(seed=1).epoch(0)[1].batches.tobytes() != first.batches.tobytes()


@pytest.mark.parametrize('start', [0, 1, 24, 25, 26, 60])
def test_a_plan_is_the_same_from_any_step_on(start):
  """25 steps are an epoch, about: from its first step, its last, and after forgetting it."""
  whole = steps(make(), 0, 70)
  same(steps(make(), start, 70), whole[start:])
  plan = make()
  same([plan.batch(step) for step in reversed(range(start, 70))], whole[start:][::-1])


def test_a_plan_pickles_and_serves_threads():
  whole = steps(make(), 0, 60)
  plan = pickle.loads(pickle.dumps(make()))
  result = {}
  threads = [
    threading.Thread(target=lambda part=part: result.update({s: plan.batch(s) for s in range(part, 60, 4)}))
    for part in range(4)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  same([result[step] for step in range(60)], whole)


def test_what_replaces_an_image_fits_and_is_the_next():
  plan = make()
  for step in (0, 30):
    draws, canvas = plan.batch(step)
    for row in range(4):
      candidates = list(plan.candidates(step, row))
      index = draws['index'][row]
      assert candidates[0] == draws[row]
      others = np.array([draw['index'] for draw in candidates[1:]])
      assert len(others) > 10 and index not in others
      np.testing.assert_array_equal(np.sort((others - index) % len(SIZES)), (others - index) % len(SIZES))
      assert all((draw['hw'] <= canvas).all() for draw in candidates)


def test_a_test_has_every_image_once_in_full_batches():
  for batch_size in (1, 4, 16, 500):
    plan = eval_plan(SIZES, 48, 128, CANVASES, batch_size)
    images = plan.images[plan.images >= 0]
    assert sorted(images) == list(range(len(SIZES)))
    assert len(plan.images) % batch_size == 0
    for numbers, rows in zip(
      plan.numbers.reshape(-1, batch_size), plan.images.reshape(-1, batch_size), strict=True
    ):
      assert len(set(numbers)) == 1 and rows[0] >= 0
      own = rows[rows >= 0]
      assert (own == np.sort(own)).all() and (rows[len(own) :] == -1).all()
      assert (canvases.smallest_canvas(plan.hw[own], CANVASES) == numbers[0]).all()
    filled = (plan.images < 0).sum()
    assert filled < len(set(plan.numbers)) * batch_size
