"""Converts PyTorch weights to a file of this project, or such a file to PyTorch weights.

python -m ctx_flax.torch_weights convnext_tiny.pth --model=convnext_t --out=convnext_t.safetensors
python -m ctx_flax.torch_weights convnext_tiny.pth --model=ctx_convnext_t --mask_gain=2 \\
    --allow_missing=contextual --allow_missing=head --num_classes=37 --out=start.safetensors
python -m ctx_flax.torch_weights convnext_t.safetensors --to=timm --out=timm.safetensors

The first two make what main.py takes as --config.init.weights; .pth files need PyTorch, .safetensors do not.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ctx_flax.models import DETECTORS, create_model, is_contextual, used_keywords
from ctx_flax.models.weight_files import flatten, load_weights, save_weights
from ctx_flax.torch_weights import fit_state_dict, names, number_of_classes, to_torch
from ctx_flax.torch_weights.state_dicts import read_state_dict, write_state_dict


def main(arguments: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog='python -m ctx_flax.torch_weights',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('file', help='.safetensors, or with PyTorch installed .pth, .pt, .bin or .tar')
  parser.add_argument('--out', required=True, help='the file to write')
  parser.add_argument('--model', default='', help='name of the network, such as ctx_resnet50')
  parser.add_argument('--backbone', default='', help="name of a detector's backbone, such as convnext_t")
  parser.add_argument('--num_classes', type=int, default=0, help='by default as the weights have')
  parser.add_argument('--class_selection', default='reduction', help='rerank for the weights of the authors')
  parser.add_argument('--mask_gain', type=float, default=1.0, help='2: plain weights keep their function')
  parser.add_argument(
    '--allow_missing',
    action='append',
    default=[],
    help='contextual, head, detector or a regex of parameters that start anew; may be repeated',
  )
  parser.add_argument('--entry', default='', help='the part of a .pth file that holds the weights')
  sources = sorted({source.name for source in names.SOURCES})
  parser.add_argument('--to', choices=sources, help='the way back: whose names to write')
  chosen = parser.parse_args(arguments)
  try:
    (back if chosen.to else forth)(chosen)
  except (ValueError, OSError, ImportError) as error:
    sys.exit(f'error: {error}')


def forth(chosen: argparse.Namespace) -> None:
  """PyTorch weights -> a file of variables."""
  if not chosen.model:
    raise ValueError('give --model=NAME, or --to=SOURCE for the way back')
  if not chosen.out.endswith('.safetensors'):
    raise ValueError(f'--out={chosen.out} must end in .safetensors')
  state = read_state_dict(chosen.file, chosen.entry)
  classes = chosen.num_classes or number_of_classes(state)
  if not classes:
    raise ValueError(f'{chosen.file} does not tell its number of classes: give --num_classes')
  keywords = {'name': chosen.model, 'num_classes': classes}
  if chosen.model in DETECTORS and chosen.backbone:
    keywords['backbone'] = chosen.backbone
  if is_contextual(keywords.get('backbone', chosen.model)):
    keywords |= {'class_selection': chosen.class_selection, 'mask_gain': chosen.mask_gain}
  model = create_model(**keywords)
  variables, _ = fit_state_dict(state, model, what=chosen.file, allow_missing=chosen.allow_missing)
  save_weights(chosen.out, variables, model=keywords)
  _tell(chosen.out, variables, chosen.model)


def back(chosen: argparse.Namespace) -> None:
  """A file of variables -> PyTorch weights."""
  variables, about = load_weights(chosen.file)
  variables.pop('class_tables', None)  # of an export; they follow from the parameters
  model = create_model(**used_keywords(about['model']['name'], about['model']))
  write_state_dict(chosen.out, to_torch(variables, model, chosen.to))
  _tell(chosen.out, variables, f'{chosen.to} names')


def _tell(path: str, variables: Mapping[str, Any], what: str) -> None:
  sizes = [value.size for name, value in flatten(variables).items() if name.startswith('params/')]
  print(f'{path}: {sum(sizes):,} parameters in {len(sizes)} arrays, {what}')


if __name__ == '__main__':
  main()
