def stages_of(out):
  return sorted(int(k[6:]) for k in out if k.startswith('scores'))
