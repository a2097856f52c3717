"""What each task adds to the common fields of default.py."""

from ctx_flax.configs.fields import classification, detection, video

# Name of a task -> a module with add_fields(config), called before the config is locked, RULES, the rules of
# the fields that it adds, by path, and example_size(config), how many bytes an example of a batch takes.
TASKS = {'classification': classification, 'video': video, 'detection': detection}
