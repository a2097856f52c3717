"""Fields of nested configs by their dotted paths, such as 'data.rand_augment.magnitude'."""

from collections.abc import Iterator, Mapping
from typing import Any


def leaves(config: Any, prefix: str = '') -> Iterator[tuple[str, Any]]:
  """Yields (path, value) of every field of a ConfigDict or of nested dicts, without the groups themselves."""
  for name, value in config.items():
    if is_group(value):
      yield from leaves(value, f'{prefix}{name}.')
    else:
      yield prefix + name, value


def get(config: Any, path: str) -> Any:
  """Returns a field or group by its path; KeyError if the config lacks it."""
  for name in path.split('.'):
    config = config[name]
  return config


def put(config: Any, path: str, value: Any) -> None:
  """Sets a field by its path."""
  group, _, name = path.rpartition('.')
  (get(config, group) if group else config)[name] = value


def is_group(value: Any) -> bool:
  """True for a group of fields, a ConfigDict or a dict."""
  return isinstance(value, Mapping) or hasattr(value, 'items')
