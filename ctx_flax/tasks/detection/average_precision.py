"""COCO's average precision and recall, by pycocotools or, faster and equal to 15 digits, faster-coco-eval."""

import contextlib
import dataclasses
import importlib
import importlib.util
import math
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ctx_flax.data import coco_masks
from ctx_flax.tasks.detection.ground_truth import GroundTruth
from ctx_flax.tasks.detection.results import KINDS, Result, check_masks, check_results

BACKENDS = 'faster_coco_eval', 'pycocotools'  # the first that is installed
AREAS = 'mask', 'box'  # whose area makes a detected mask small, medium or large
SIZES = 'small', 'medium', 'large'  # below 32 x 32 pixels, up to 96 x 96, beyond
MOST = 1, 10, 100  # the best detections of an image and category that count


@dataclasses.dataclass(frozen=True)
class PrecisionRecall:
  """What COCO's evaluation says about boxes or masks.

  Axes: t least IoU of a hit, 0.5, 0.55, ..., 0.95; r recall, 0, 0.01, ..., 1; n categories, by rising id; a
  sizes of objects: all, small, medium, large; m the best 1, 10, 100 detections of an image and category.

  Attributes:
    precision: (t, r, n, a, m), the highest precision at a recall of r or more; -1 where there are no objects.
    recall: (t, n, a, m), the highest; -1 the same.
  """

  precision: np.ndarray
  recall: np.ndarray

  def summary(self) -> dict[str, float]:
    """COCO's twelve numbers, NaN for those of sizes that no object has (-1 in COCO's tools).

    Returns:
      ap, ap50, ap75, ap_small, ap_medium, ap_large: mean precision over recalls, categories and, but for ap50
      and ap75, IoUs; ar1, ar10, ar100, ar_small, ar_medium, ar_large: mean recall over categories and IoUs.
    """
    precision, recall = self.precision[..., -1], self.recall[..., -1]
    values = {
      'ap': precision[..., 0],
      'ap50': precision[0, ..., 0],
      'ap75': precision[5, ..., 0],
      **{f'ap_{size}': precision[..., a] for a, size in enumerate(SIZES, 1)},
      **{f'ar{most}': self.recall[..., 0, m] for m, most in enumerate(MOST)},
      **{f'ar_{size}': recall[..., a] for a, size in enumerate(SIZES, 1)},
    }
    return {name: _mean(value) for name, value in values.items()}

  def per_category(self) -> np.ndarray:
    """The average precision of each category, float (n,); NaN for one without objects."""
    return np.array([_mean(self.precision[:, :, n, 0, -1]) for n in range(self.precision.shape[2])])


def precision_recall(
  ground_truth: GroundTruth, results: Sequence[Result], kind: str, area: str = 'mask', backend: str = ''
) -> PrecisionRecall:
  """Compares results with what is annotated, as COCO does; prints nothing.

  Every image of the ground truth counts, also one without results. Without any result, precision is 0.

  Args:
    ground_truth: the objects.
    results: of its images, see ctx_flax.tasks.detection.results.
    kind: 'box' or 'mask': of which the overlap is measured.
    area: 'mask' takes a detected mask for small, medium or large by itself, as MMDetection 3 does, 'box' by
      its box, as MMDetection 2 and COCO's tools do with results that have one. A box goes by itself.
    backend: of BACKENDS; '' for the first that is installed.

  Raises:
    ValueError: an unknown name, a result that lacks what is compared or is of another image, or an annotation
      without mask.
    ImportError: pycocotools or the backend is not installed.
  """
  for name, value, known in (('kind', kind, tuple(KINDS)), ('area', area, AREAS)):
    if value not in known:
      raise ValueError(f'{name} must be one of {", ".join(known)}, but is {value!r}')
  by_mask = kind == 'mask' and area == 'mask'
  check_results(results, kind, *(() if by_mask else ('box',)))
  for number, result in enumerate(results):
    if result['image_id'] not in ground_truth.images:
      raise ValueError(
        f'result {number} (from 0) is of image {result["image_id"]!r}, which is not among the '
        f'{len(ground_truth.images)} that are compared'
      )
  check_masks(ground_truth, kind)
  coco, evaluation, evaluator = _load(backend)
  with _silent(coco, evaluation):
    annotated, detected = coco.COCO(), coco.COCO()
    annotated.dataset = ground_truth.dataset()
    # Not loadRes: it takes no empty list, writes into the results, and looks at the first to choose an area.
    detected.dataset = annotated.dataset | {'annotations': _as_annotations(results, by_mask)}
    annotated.createIndex()
    detected.createIndex()
    run = evaluator(annotated, detected, {'box': 'bbox', 'mask': 'segm'}[kind])
    run.evaluate()
    run.accumulate()
  return PrecisionRecall(np.asarray(run.eval['precision']), np.asarray(run.eval['recall']))


def coco_metrics(
  ground_truth: GroundTruth,
  results: Sequence[Result],
  kinds: Sequence[str] = tuple(KINDS),
  area: str = 'mask',
  backend: str = '',
) -> dict[str, float]:
  """The twelve numbers of each kind by name: {'box_ap', 'box_ap50', ..., 'mask_ap', ...}.

  Those of sizes that no object has are NaN. See `precision_recall` and `PrecisionRecall.summary`.
  """
  return {
    f'{kind}_{name}': value
    for kind in kinds
    for name, value in precision_recall(ground_truth, results, kind, area, backend).summary().items()
  }


def _mean(values: np.ndarray) -> float:
  there = values[values > -1]
  return float(np.mean(there)) if there.size else math.nan


def _as_annotations(results: Sequence[Result], by_mask: bool) -> list[dict[str, Any]]:
  """Results with the number, from 1, and the area that COCO's evaluation asks for."""
  from pycocotools import mask as coco_mask

  annotations = []
  for number, result in enumerate(results, 1):
    area = coco_mask.area(result['segmentation']) if by_mask else result['bbox'][2] * result['bbox'][3]
    annotations.append({**result, 'id': number, 'area': area, 'iscrowd': 0})
  return annotations


def _load(name: str) -> tuple[ModuleType, ModuleType, Any]:
  """The modules that read and evaluate, and the class that does."""
  if name not in ('', *BACKENDS):
    raise ValueError(f'the backend must be one of {", ".join(BACKENDS)}, but is {name!r}')
  coco_masks.require_pycocotools()
  faster, installed = BACKENDS[0], importlib.util.find_spec(BACKENDS[0]) is not None
  if name == faster and not installed:
    raise ImportError(f'{faster} is not installed: pip install {faster.replace("_", "-")}')
  if name == faster or (not name and installed):
    coco = importlib.import_module(faster)
    silent = lambda *args: coco.COCOeval_faster(*args, print_function=lambda *_: None)
    return coco, coco, silent
  coco, evaluation = (importlib.import_module(f'pycocotools.{part}') for part in ('coco', 'cocoeval'))
  return coco, evaluation, evaluation.COCOeval


@contextlib.contextmanager
def _silent(*modules: ModuleType) -> Iterator[None]:
  """Hides `print` from modules that tell what they do, and from nothing else: other threads print on."""
  for module in modules:
    # A name of the module hides the builtin; a type checker knows of none there.
    module.print = lambda *_, **__: None  # type: ignore[attr-defined]
  try:
    yield
  finally:
    for module in modules:
      vars(module).pop('print', None)
