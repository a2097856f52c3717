from configs import default as _d


def get_config(argument='', *, task='classification'):
  return _d.get_config(argument)
