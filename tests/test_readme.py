"""The README's promises: its two commands, its programs, its table of networks, its files."""

import pathlib
import re
import runpy

import jax
import jax.numpy as jnp
import pytest
from networks import CONTEXTUAL_BLOCKS, PARAMETERS

from ctx_flax.configs import default
from ctx_flax.configs.fields import TASKS
from ctx_flax.models import create_model

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / 'README.md').read_text()
DOCS = sorted(ROOT.glob('docs/*.md'))
ALL = '\n'.join([TEXT, *(path.read_text() for path in DOCS)])


def test_the_two_commands_stand_at_the_top():
  first = re.search(r'```\n(.*?)```', TEXT, re.DOTALL)[1].splitlines()
  assert first == [
    'pip install -r requirements.txt && python main.py --config=configs/digits.py',
    'pip install -r requirements-test.txt && python -m pytest',
  ]
  assert TEXT.index(first[0]) < 200


@pytest.mark.slow
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
  rows = re.findall(r'^\| (`(?:convnext|resnet)[^.|]*) \| (.*?) \| (.*?) \| (.*?) \|$', TEXT, re.MULTILINE)
  seen = set()
  for names, plain, contextual, blocks in rows:
    for i, name in enumerate(re.findall(r'`(.*?)`', names)):
      assert int(plain.split(', ')[i].replace(',', '')) == PARAMETERS[name]
      assert int(contextual.split(', ')[i].replace(',', '')) == PARAMETERS[f'ctx_{name}']
      if 'every' not in blocks:
        assert blocks.split(', ') == CONTEXTUAL_BLOCKS[f'ctx_{name}'].split()
      seen |= {name, f'ctx_{name}'}
  assert seen == set(PARAMETERS)


def test_recipes_variants_and_fields_exist():
  """Everywhere in the documentation: configs/NAME.py[:VARIANT], NAME.py:VARIANT and config.FIELD=."""
  named = set(re.findall(r'(?:configs/)?(\w+)\.py((?::[\w.,=]+)?)(?=[\s`)])', ALL))
  recipes = {
    (name, argument)
    for name, argument in named
    if name != '__init__' and (ROOT / 'configs' / f'{name}.py').exists()
  }
  assert {('convnext_t', ':wd=0.05'), ('digits', ''), ('resnet50', ':smoothing=0.1')} <= recipes
  for name, argument in recipes:
    recipe = runpy.run_path(str(ROOT / 'configs' / f'{name}.py'))['get_config']
    if argument.strip(':') != 'VARIANT' and name != 'saved':
      recipe(argument.strip(':'))
  configs = [default.get_config(task=task) for task in TASKS]
  fields = set(re.findall(r'--config\.([a-z_.]+)=', ALL))
  fields |= set(
    re.findall(r'`((?:train|model|data|eval|loss|optimizer|check|init|probe)\.[a-z_]+)(?:=\S+)?`', ALL)
  )
  assert len(fields) > 15
  for field in fields:
    assert any(has_field(config, field) for config in configs), f'{field} is not a field of any task'


def has_field(config, field):
  for name in field.split('.'):
    if name not in config:
      return False
    config = config[name]
  return True


def test_linked_files_exist():
  for page in (ROOT / 'README.md', *DOCS):
    for target in re.findall(r'\]\((?!http)(.*?)\)', page.read_text()):
      path, _, anchor = target.partition('#')
      linked = page.parent / path if path else page
      assert linked.exists(), target
      headings = re.findall(r'^#+ (.*)$', linked.read_text(), re.MULTILINE) if anchor else []
      known = [re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings]
      assert not anchor or anchor in known, target
  for room in re.findall(r'^\| `((?:ctx_flax/|configs|main|tests)\S*?)` \|', TEXT, re.MULTILINE):
    assert (ROOT / room).exists(), room
