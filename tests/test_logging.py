"""metrics.jsonl, TensorBoard events, the progress display and the table of results."""

import io
import json
import math
import re
import socket
import struct

import pytest
from tensorboardX.proto import event_pb2

from ctx_flax.training import logging, metric_log


def lines(path):
  return [json.loads(line) for line in (path / 'metrics.jsonl').read_text().splitlines()]


def shown_events(folder):
  """What TensorBoard shows, {(name, step): [values]}: a start voids what was written of later steps."""
  shown = []
  for path in sorted((folder / 'events').iterdir(), key=lambda path: path.stat().st_mtime_ns):
    data = io.BytesIO(path.read_bytes())
    while header := data.read(12):  # TFRecord: length, its checksum, the record, its checksum
      event = event_pb2.Event.FromString(data.read(struct.unpack('<Q', header[:8])[0]))
      data.read(4)
      if event.HasField('session_log') and event.session_log.status == event_pb2.SessionLog.START:
        shown = [entry for entry in shown if entry[1] < event.step]
      shown += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
  scalars = {}
  for name, step, value in shown:
    scalars.setdefault((name, step), []).append(value)
  return scalars


def test_metrics_are_written_at_once(tmp_path):
  with metric_log.MetricLog(tmp_path, 0) as log:
    log.write(10, {'train/loss': 0.5, 'test/raw/accuracy': 0.25})
    assert lines(tmp_path) == [{'step': 10, 'train/loss': 0.5, 'test/raw/accuracy': 0.25}]
    assert shown_events(tmp_path) == {('train/loss', 10): [0.5], ('test/raw/accuracy', 10): [0.25]}


def test_a_resumed_run_cuts_back_and_repeats_nothing(tmp_path):
  with metric_log.MetricLog(tmp_path, 0) as log:
    for step in (10, 20, 30):
      log.write(step, {'loss': float(step)})
  with metric_log.MetricLog(tmp_path, 20) as log:
    assert [line['step'] for line in lines(tmp_path)] == [10, 20]
    for step in (30, 40):
      log.write(step, {'loss': float(step)})
  assert lines(tmp_path) == [{'step': step, 'loss': float(step)} for step in (10, 20, 30, 40)]
  assert shown_events(tmp_path) == {('loss', step): [step] for step in (10, 20, 30, 40)}


@pytest.mark.parametrize('rest', ['{"step": 2', '{"step": 2}', '\x00\x00\x00'])
def test_an_unfinished_line_is_dropped(tmp_path, rest):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 1}\n' + rest)
  metric_log.cut_back(tmp_path / 'metrics.jsonl', 5)
  assert (tmp_path / 'metrics.jsonl').read_text() == '{"step": 1}\n'


def test_damaged_lines_are_moved_and_those_around_them_stay(tmp_path):
  """Bytes that are not UTF-8, no JSON, no object, no step: each is named by its number."""
  path = tmp_path / 'metrics.jsonl'
  lines = [b'{"step": 1}', b'\xff\xfe', b'{"step": 2}', b'{"ste', b'[3]', b'{"loss": 1}', b'\x00\x00']
  path.write_bytes(b'\n'.join([*lines, b'{"step": 3}', b'{"step": 4}', b'{"step": 5']))
  told = []
  metric_log.cut_back(path, 3, told.append)
  assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n{"step": 3}\n'
  aside = tmp_path / 'metrics.jsonl.damaged'
  assert told == [f'{path}: lines 2, 4, 5, 6, 7 are damaged, moved to {aside}']
  assert aside.read_bytes() == b'\n'.join([lines[1], *lines[3:], b''])
  metric_log.cut_back(path, 2, told.append)
  assert len(told) == 1 and path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'


def test_every_line_is_json(tmp_path):
  with metric_log.MetricLog(tmp_path, 0) as log:
    log.write(1, {'test/loss': math.inf, 'test/accuracy': 0.1})
  assert lines(tmp_path) == [{'step': 1, 'test/loss': None, 'test/accuracy': 0.1}]


def test_progress_without_a_terminal_is_few_plain_lines(capsys):
  with logging.Progress(last=1000, start=0, terminal=False) as progress:
    progress.note('a note')
    progress.within('step 0: 64 images tested')
    for step in range(1, 1001):
      progress.update(step, 'loss 0.5  800 images/s', 75.0)
  written = capsys.readouterr().out
  assert written.startswith('a note\n') and written.isprintable() is False
  assert all(character.isprintable() or character == '\n' for character in written)
  assert logging.LINES <= len(written.splitlines()) <= logging.LINES + 2
  assert written.splitlines()[-1] == 'step 1000/1000  loss 0.5  800 images/s  1:15 left'


def test_progress_on_a_terminal_is_a_bar(capsys, monkeypatch):
  monkeypatch.setenv('TERM', 'xterm')
  monkeypatch.setenv('FORCE_COLOR', '1')
  with logging.Progress(last=100, start=40, terminal=True) as progress:
    progress.note('step 50: [0.5]')
    progress.update(70, 'loss 0.5  800 images/s', 5.0)
  written = capsys.readouterr().out
  assert '\x1b[' in written and 'step 50: [0.5]' in written
  assert 'step 70/100  loss 0.5  800 images/s  0:05 left' in written
  with logging.Progress(last=100, start=40, terminal=True) as progress:
    progress.within('step 70: 64 images tested')
  assert 'step 70: 64 images tested' in capsys.readouterr().out


def test_the_machine_is_not_named(tmp_path):
  with metric_log.MetricLog(tmp_path, 3) as log:
    log.write(4, {'loss': 1.0})
  (path,) = (tmp_path / 'events').iterdir()
  assert re.fullmatch(r'events\.out\.tfevents\.\d+\.from3', path.name)
  assert socket.gethostname().encode() not in path.read_bytes()


def test_only_the_first_process_writes_and_tells(tmp_path, capsys):
  with metric_log.MetricLog(tmp_path, 0, active=False) as log:
    log.write(1, {'loss': 1.0})
  assert not list(tmp_path.iterdir())
  with logging.Progress(last=10, start=0, active=False) as progress:
    progress.note('a note')
    progress.update(10, 'loss 0.5', 0.0)
    progress.warn('only this one has seen it')
  assert capsys.readouterr().out == 'only this one has seen it\n'
