"""Which fields of a config the code reads, by its syntax trees: a name counts only in its own group."""

import ast
import collections


class Reads:
  """The (group, field) pairs that the code reads, in `fields`.

  A group is known by an attribute (`run.config.data`), by a name that stands for one (`data = config.data`),
  or by a parameter that a call in the code binds to one. A field is then an attribute or a subscript of it;
  where the subscript is no literal, as in a loop over names, any literal of the function may be meant.

  Args:
    texts: {name of a module, without its packages: its text}.
    groups: the names of the groups, of nested ones the last: {'data', 'rand_augment', ...}.
  """

  def __init__(self, texts, groups):
    self.groups, self.fields = groups, set()
    self.parameters = collections.defaultdict(set)  # (module, function, parameter) -> groups
    trees = {module: ast.parse(text) for module, text in texts.items()}
    self.imports = {module: _imports(tree) for module, tree in trees.items()}
    functions = [
      (module, node)
      for module, tree in trees.items()
      for node in ast.walk(tree)
      if isinstance(node, ast.FunctionDef)
    ]
    self.positions = {(module, f.name): [argument.arg for argument in f.args.args] for module, f in functions}
    for _ in range(3):  # a parameter may be handed on
      for module, function in functions:
        self._bind_calls(module, function)
    for module, function in functions:
      self._read(module, function)

  def _groups(self, node, names):
    """The groups that an expression may be."""
    if isinstance(node, ast.Attribute):
      return {node.attr} & self.groups
    return names.get(node.id, set()) if isinstance(node, ast.Name) else set()

  def _names(self, module, function):
    """{name in the function: the groups that it may be}."""
    names = {}
    for argument in (*function.args.args, *function.args.kwonlyargs):
      bound = self.parameters[module, function.name, argument.arg]
      names[argument.arg] = bound | ({argument.arg} & self.groups)
    for node in ast.walk(function):
      for target in node.targets if isinstance(node, ast.Assign) else ():
        pairs = [(target, node.value)]
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
          pairs = list(zip(target.elts, node.value.elts, strict=True))
        for left, value in pairs:
          if isinstance(left, ast.Name) and self._groups(value, names):
            names[left.id] = self._groups(value, names)
    return names

  def _bind_calls(self, module, function):
    names = self._names(module, function)
    for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
      if isinstance(call.func, ast.Name):
        called = self.imports[module].get(call.func.id, (module, call.func.id))
      elif isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
        imported = self.imports[module].get(call.func.value.id, ('', module))
        called = imported[1], call.func.attr
      else:
        continue
      bound = [*zip(self.positions.get(called, ()), call.args, strict=False)]
      for parameter, value in bound + [(keyword.arg, keyword.value) for keyword in call.keywords]:
        self.parameters[*called, parameter] |= self._groups(value, names)

  def _read(self, module, function):
    names = self._names(module, function)
    strings = {node.value for node in ast.walk(function) if isinstance(node, ast.Constant)}
    for node in ast.walk(function):
      if isinstance(node, ast.Attribute):
        base, fields = node.value, {node.attr}
      elif isinstance(node, ast.Subscript):
        base = node.value
        fields = {node.slice.value} if isinstance(node.slice, ast.Constant) else strings
      elif isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'getattr':
        base, fields = node.args[0], strings
      else:
        continue
      self.fields |= {(group, field) for group in self._groups(base, names) for field in fields}


def _imports(tree):
  """{name in a module: (the module that it comes from, its name there)}."""
  return {
    alias.asname or alias.name: ((node.module or '').rpartition('.')[2], alias.name)
    for node in ast.walk(tree)
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
  }
