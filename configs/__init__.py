"""Recipes, one file each; they start from the fields of ctx_flax.configs and import nothing else of it."""
