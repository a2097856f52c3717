"""The config of a run: --config=configs/saved.py:RUN reads RUN/config.json; overrides still apply."""

from ctx_flax.configs.saved import get_config

__all__ = ['get_config']
