"""The report: one file that asks for nothing, whole at the width of a telephone, of one run and of two."""

import html.parser
import json
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from run_files import make_run
from tiny import tiny_config

from ctx_flax.analysis import figures, page
from ctx_flax.analysis.report import report
from ctx_flax.training.halt import Halt

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)


class Reader(html.parser.HTMLParser):
  """What a page names, holds and leaves open."""

  def __init__(self, text):
    super().__init__()
    self.links, self.ids, self.images, self.open = [], [], [], []
    self.feed(text)

  def handle_starttag(self, tag, attributes):
    values = dict(attributes)
    self.links += [values[name] for name in ('src', 'href', 'srcset', 'data', 'action') if name in values]
    self.ids += [values['id']] if 'id' in values else []
    self.images += [values] if tag == 'img' else []
    if tag not in ('meta', 'img'):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """(config, folder of a contextual run with metrics, folder of a plain one)."""
  root = tmp_path_factory.mktemp('report')
  config, plain = tiny_config(), tiny_config()
  plain.model.name, plain.model.class_counts = 'convnext_mini', ()
  for one in (config, plain):
    one.grad_cam.steps, one.offsets.sample, one.failures.images, one.report.images = 3, 40, 4, 2
  contextual = make_run(config, root / 'contextual')
  lines = [
    {'step': s, 'train/loss4': 2.0 / s, 'train/accuracy4': s / 4, 'learning_rate': 0.1} for s in (1, 2)
  ]
  (contextual / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
  return config, contextual, make_run(plain, root / 'plain')


@pytest.fixture(scope='module')
def compared(runs):
  """The text of the report of the contextual run beside the plain one."""
  config, contextual, plain = runs
  config = config.copy_and_resolve_references()
  config.report.beside = str(plain)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(figures, 'DPI', 40)  # at full size they take half of the time
    return report(config, contextual).read_text()


@pytest.mark.slow
def test_everything_is_in_it(compared):
  found = Reader(compared)
  assert not found.open
  sections = ['summary', 'curves', 'funnel', 'recall', 'cam', 'offsets', 'context', 'failures']
  sections += ['network', 'config', 'environment']
  assert [name for name in found.ids if name in sections] == sections
  assert {f'#{name}' for name in sections} <= set(found.links)
  outside = [link for link in found.links if not link.startswith(('#', 'data:image/png;base64,'))]
  assert not outside and 'http' not in ''.join(found.links) and '<script' not in compared
  assert all(image['alt'] for image in found.images)
  # Two pictures of curves, the funnels, and those of the analyses.
  assert len(found.images) == 2 + 1 + 1 + 2 + 4 + 1 + 4
  assert compared.count('The classes that each stage considers, and the best of them') == 2  # alt and caption
  assert '; answer no. ' in compared and '; keeps 8' in compared
  for text in ('ctx_convnext_mini', 'accuracy of stage 3', '8, 6, 4', 'loss.alpha', 'million MACs', 'jaxlib'):
    assert text in compared


@pytest.mark.slow
def test_two_runs_are_compared(compared):
  assert 'sweeps' not in Reader(compared).ids
  assert '<th>contextual, step 2</th><th>plain, step 2</th>' in compared
  assert 'no selection' in compared


@pytest.mark.slow
def test_a_plain_run_alone_with_a_sweep(runs):
  config, _, plain = runs
  config = config.copy_and_resolve_references()
  config.model.name, config.model.class_counts = 'convnext_mini', ()
  (plain / 'sweep-loss.alpha').mkdir()
  Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(plain / 'sweep-loss.alpha' / 'sweep.png')
  text = report(config, plain).read_text()
  found = Reader(text)
  assert 'sweeps' in found.ids and 'Runs of sweep-loss.alpha' in text
  assert 'recall' not in found.ids and 'offsets' not in found.ids and 'cam' in found.ids
  assert 'no metrics.jsonl' in text


def test_wrong_input(runs, tmp_path):
  config, contextual, _ = runs
  config = config.copy_and_resolve_references()
  config.report.beside = str(tmp_path)
  with pytest.raises(Halt, match=r'report\.beside is .* holds no config\.json'):
    report(config, contextual)
  config.report.update(beside='', images=0)
  with pytest.raises(Halt, match=r'report\.images must be 1 or more'):
    report(config, contextual)


def in_chromium(text, width, tmp_path):
  """What a browser makes of a page in a frame of that width, as a dict."""
  frame = json.dumps(text).replace('</', '<\\/')
  (tmp_path / 'frame.html').write_text(f"""<iframe style="width:{width}px;height:900px;border:0"></iframe>
<output></output><script>
const frame = document.querySelector('iframe');
frame.onload = () => {{
  const page = frame.contentDocument;
  document.querySelector('output').textContent = JSON.stringify({{
    width: page.documentElement.scrollWidth,
    images: page.images.length,
    broken: [...page.images].filter(image => !image.naturalWidth).length,
    asked: frame.contentWindow.performance.getEntriesByType('resource').map(entry => entry.name),
    text: page.body.innerText.length,
  }});
}};
frame.srcdoc = {frame};
</script>""")
  command = [CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking']
  command += [
    '--no-first-run',
    f'--user-data-dir={tmp_path}/profile',
    '--window-size=1400,1000',
    '--dump-dom',
  ]
  command += ['--virtual-time-budget=20000', (tmp_path / 'frame.html').as_uri()]
  shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
  return json.loads(html.unescape(shown.split('<output>')[1].split('</output>')[0]))


@pytest.mark.skipif(
  CHROMIUM is None, reason='no Chromium is installed: it opens the report as a reader would'
)
@pytest.mark.slow
@pytest.mark.parametrize('width', [375, 1280])
def test_in_a_browser(compared, width, tmp_path):
  seen = in_chromium(compared, width, tmp_path)
  assert seen['images'] == len(Reader(compared).images) and seen['broken'] == 0
  assert seen['asked'] == [] and seen['text'] > 2000
  assert seen['width'] <= width  # nothing sticks out


def test_texts_are_escaped(tmp_path):
  """Class names of glyphs are characters such as < and &."""
  Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / 'x.png')
  content = page.table(['<a>', 'n'], [['<b>&"', 1234], [page.Markup('<i>x</i>'), 5]])
  content += page.picture(tmp_path / 'x.png', '"<c>') + page.details('<d>', '')
  text = page.page('<t>', '<u>', [('s', '<h>', content)])
  for name in ('a', 'b', 'c', 'd', 't', 'u', 'h'):
    assert f'<{name}>' not in text and f'&lt;{name}&gt;' in text
  assert '&lt;b&gt;&amp;&quot;' in text and '<i>x</i>' in text
  assert '<td class="number">1,234</td>' in text
  assert not Reader(text).open
