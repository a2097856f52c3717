"""A trace of some training steps, to see where their time goes."""

import jax

FIRST, LAST = 10, 20  # steps of this start of the run; by then everything is compiled and the feed is full


class Profile:
  """Traces the steps FIRST to LAST after the start into a folder, for TensorBoard and Perfetto.

  Args:
    folder: where to; perfetto_trace.json.gz in it opens in ui.perfetto.dev.
    start: the step at which the run goes on.
    active: False traces nothing; of several processes one does.
  """

  def __init__(self, folder, start, active):
    self._folder, self._start, self._active = folder, start, active
    self._running = False

  def before(self, step):
    """To be called before a step is started."""
    if self._active and step == self._start + FIRST:
      jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
      self._running = True

  def after(self, step, result):
    """To be called when a step was started; waits for its result after the last traced one."""
    if self._running and step == self._start + LAST:
      jax.block_until_ready(result)
      self.close()

  def close(self):
    """Ends a trace that is still being made."""
    if self._running:
      self._running = False
      jax.profiler.stop_trace()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()
