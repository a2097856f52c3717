"""The README's promises: its two commands, its programs, its table of networks, its files."""

import pathlib
import re

import jax
import jax.numpy as jnp
from test_models import CONTEXTUAL_BLOCKS, PARAMETERS

from ctx_flax.models import create_model

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / 'README.md').read_text()


def test_the_two_commands_stand_at_the_top():
  first = re.search(r'```\n(.*?)```', TEXT, re.DOTALL)[1].splitlines()
  assert first == [
    'pip install -r requirements.txt && python main.py --config=configs/digits.py',
    'pip install -r requirements-test.txt && python -m pytest',
  ]
  assert TEXT.index(first[0]) < 200


def test_programs_run():
  """As they stand; the second needs variables and images, which stay abstract."""
  layers, networks = re.findall(r'```python\n(.*?)```', TEXT, re.DOTALL)
  names: dict = {}
  exec(layers, names)
  assert names['adaptation']['offsets'].shape == (2, 28, 28, 49, 2)
  assert names['y'].shape == (2, 28, 28, 256)

  def run(images):
    variables = create_model('ctx_convnext_t').init(jax.random.key(0), images)
    names = {'variables': variables, 'images': images}
    exec(networks, names)
    return names['logits']

  assert jax.eval_shape(run, jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)).shape == (1, 1000)


def test_table_of_networks():
  rows = re.findall(r'^\| (`(?:convnext|resnet).*?) \| (.*?) \| (.*?) \| (.*?) \|$', TEXT, re.MULTILINE)
  seen = set()
  for names, plain, contextual, blocks in rows:
    for i, name in enumerate(re.findall(r'`(.*?)`', names)):
      assert int(plain.split(', ')[i].replace(',', '')) == PARAMETERS[name]
      assert int(contextual.split(', ')[i].replace(',', '')) == PARAMETERS[f'ctx_{name}']
      if 'every' not in blocks:
        assert blocks.split(', ') == CONTEXTUAL_BLOCKS[f'ctx_{name}'].split()
      seen |= {name, f'ctx_{name}'}
  assert seen == set(PARAMETERS)


def test_linked_files_exist():
  for target in re.findall(r'\]\((?!http)(.*?)\)', TEXT):
    assert (ROOT / target).exists(), target
  for room in re.findall(r'^\| `((?:ctx_flax/|configs|main|tests)\S*?)` \|', TEXT, re.MULTILINE):
    assert (ROOT / room).exists(), room
