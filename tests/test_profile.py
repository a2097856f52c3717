"""The trace of a run: of the steps it says, ended also where the run ends early."""

import jax

from ctx_flax.training import profile


def test_it_traces_from_the_tenth_to_the_twentieth_step(tmp_path, monkeypatch):
  calls = []
  monkeypatch.setattr(jax.profiler, 'start_trace', lambda folder, **_: calls.append(folder))
  monkeypatch.setattr(jax.profiler, 'stop_trace', lambda: calls.append('stop'))

  def run(start, last, active=True):
    calls.clear()
    with profile.Profile(tmp_path, start, active) as traced:
      for step in range(start + 1, last + 1):
        traced.before(step)
        calls.append(step)
        traced.after(step, step)
    return calls

  assert run(5, 30)[8:23] == [14, tmp_path, *range(15, 26), 'stop', 26]
  assert run(0, 12)[-2:] == [12, 'stop']
  assert run(0, 30, active=False) == list(range(1, 31))


def test_the_trace_opens_in_perfetto(tmp_path):
  with profile.Profile(tmp_path, 0, active=True) as traced:
    traced.before(profile.FIRST)
    result = jax.numpy.ones(3) + 1
    traced.after(profile.LAST, result)
  assert list(tmp_path.rglob('perfetto_trace.json.gz')) and list(tmp_path.rglob('*.xplane.pb'))
