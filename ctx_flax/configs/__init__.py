"""Configs: the fields of a run, their legal values, and reading them from recipes, runs and command lines.

Imports nothing else of the package but `ctx_flax.nearest`, so that a recipe, which starts from
`default.get_config()`, runs wherever the package is installed.
"""
