"""Recipes: one file each, every field in default.py; nothing here imports ctx_flax."""
