"""Trains and evaluates contextual convolutional networks.

python main.py --config=configs/digits.py                        train; the same again resumes
python main.py --config=configs/digits.py:plain --config.seed=1  a variant; any field of ctx_flax/configs
python main.py --mode=evaluate --workdir=runs/digits             test a run; its config is in its folder
python main.py --mode=check --config=configs/convnext_t.py       what a run would be, without training
python main.py --mode=export --workdir=runs/digits               a folder that runs with jax and numpy alone
python main.py --mode=report --workdir=runs/digits               what the run does, in one HTML file
"""

from absl import flags

# Flags and the table of modes. The same program is `python -m ctx_flax` where the package is installed.
from ctx_flax import __main__ as program

flags.adopt_module_key_flags(program)  # for --help

if __name__ == '__main__':
  program.run()
