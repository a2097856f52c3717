"""How large the networks of an experiment are, and how long a training step takes."""

from typing import Any

from benchmarks.measure import median, take_turns
from benchmarks.train import compiled_step
from ctx_flax.tasks.classification import networks
from experiments import arms


def sizes_and_times(configs: dict[str, Any], rounds: int) -> dict[str, dict[str, Any]]:
  """{name: {'parameters', 'dims', 'seconds_per_step'}} of each config; steps are timed by turns.

  Args:
    configs: {name: config}.
    rounds: how often each step is timed; 0 leaves the time out.
  """
  facts: dict[str, dict[str, Any]] = {}
  for name, config in configs.items():
    keywords = networks.model_keywords(config, config.model.num_classes)
    facts[name] = {'parameters': arms.parameters(keywords, config), 'dims': config.model.dims}
  if rounds:
    programs = {
      name: compiled_step(config, config.model.num_classes, config.train.batch_size).run
      for name, config in configs.items()
    }
    for name, seconds in take_turns(programs, rounds).items():
      facts[name]['seconds_per_step'] = median(seconds)
  return facts
