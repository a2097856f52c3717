"""What each task adds to the common fields of default.py."""

from ctx_flax.configs.fields import classification, video

# Name of a task -> a module with add_fields(config), called before the config is locked, and RULES, the rules
# of the fields that it adds, by path.
TASKS = {'classification': classification, 'video': video}
