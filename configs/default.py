"""The default config, of ctx_flax.configs: --config=configs/default.py trains with it."""

from ctx_flax.configs.default import get_config, nearest, with_variants

__all__ = ['get_config', 'nearest', 'with_variants']
