"""What a run is: every field of a config either belongs to its identity or may differ, and says which."""

import os

import pytest

from ctx_flax.configs import default, fields
from ctx_flax.tasks import TASKS, task_of
from ctx_flax.training import run_folder


@pytest.mark.parametrize('name', fields.TASKS)
def test_every_field_is_identity_or_free(name):
  config = default.get_config(task=name)
  groups = task_of(config).identity
  known = run_folder.fields(config)
  free = (*run_folder.FREE_GROUPS, *run_folder.FREE_FIELDS)
  for field in known:
    named = any(field == group or field.startswith(f'{group}.') for group in free)
    assert run_folder.is_identity(field, groups) or named, f'{field} is neither identity nor free'


def test_what_is_listed_exists():
  """In the config of a task: a renamed field would silently change sides."""
  configs = [default.get_config(task=name) for name in fields.TASKS]
  known = {field for config in configs for field in run_folder.fields(config)}
  groups = [group for config in configs for group in task_of(config).identity]
  for listed in (*run_folder.IDENTITY, *groups, *run_folder.FREE_GROUPS, *run_folder.FREE_FIELDS):
    assert any(field == listed or field.startswith(f'{listed}.') for field in known), f'{listed} is no field'


@pytest.mark.parametrize(
  ('field', 'identity'),
  [
    *[
      (name, True)
      for name in ('task', 'seed', 'loss.alpha', 'optimizer.name', 'data.name', 'eval.crop_ratio')
    ],
    *[
      (name, False)
      for name in (
        'profile',
        'model.remat',
        'model.depthwise_path',
        'data.path',
        'eval.batch_size',
        'report.images',
      )
    ],
  ],
)
def test_examples(field, identity):
  assert run_folder.is_identity(field, task_of(default.get_config()).identity) == identity


def test_a_group_that_nobody_names_is_no_identity_of_other_tasks():
  """'loss' is classification's: another task says so itself."""
  assert not run_folder.is_identity('loss.alpha') and run_folder.is_identity('loss.alpha', ('loss',))


def test_a_field_that_changes_sides_refuses_a_run(tmp_path):
  config = default.get_config()
  run_folder.claim(tmp_path, config)
  config.eval.batch_size, config.data.path, config.report.images = 7, 'elsewhere', 9
  run_folder.check(tmp_path, config, task_of(config).identity)
  config.loss.alpha = 0.3
  run_folder.check(tmp_path, config)
  with pytest.raises(ValueError, match=r'loss\.alpha is 0\.15 there and 0\.3 here; take another --workdir'):
    run_folder.check(tmp_path, config, task_of(config).identity)


def test_a_folder_that_orbax_cannot_name_is_refused(tmp_path):
  config = default.get_config()
  run_folder.check(tmp_path / 'l\xf6wen "a"\n', config)
  with pytest.raises(
    ValueError, match=r'run-\\xe9 is a name that is not UTF-8.*take another --workdir$'
  ) as refused:
    run_folder.check(tmp_path / os.fsdecode(b'run-\xe9'), config)
  assert '\n' not in str(refused.value)


def test_the_tasks_of_configs_can_be_trained():
  assert set(fields.TASKS) == set(TASKS)
