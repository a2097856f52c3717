"""The class funnel of an image: the best classes of each stage, and how many it leaves to the next."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ctx_flax.analysis.explained_classes import a_few_at_a_time
from ctx_flax.models.network import stages_of
from ctx_flax.tasks.classification.losses import stage_scores
from ctx_flax.tasks.classification.metrics import rank_of_label


def funnel(out, top, labels=None):
  """What the stages of a network say about images, traced by jax.

  Args:
    out: the second output of a network; a plain one has stage 4 only.
    top: how many of the best classes are wanted; at most all.
    labels: int (b,), the true classes, if they are known.

  Returns:
    {name: array}, for every stage s
      'classes{s}': int (b, top), the best classes, best first, ties by index;
      'probabilities{s}': float32 (b, top), softmax over the classes between which the stage decides, 0 for
        others;
      'considered{s}': int (b,), how many classes the stage considers: with class_selection 'rerank' those in
        its context;
      'decided{s}': int (b,), between how many it decides: the same, with 'rerank' all;
      'kept{s}': int (b,), how many classes the stage leaves to the next one (not for the last stage);
      'place{s}': int (b,), how many of all classes the stage scores higher than the final answer;
      'answer_rank{s}', 'answer_probability{s}': (b,), how many of the classes between which the stage decides
        come before the final answer, as in 'classes{s}', and its probability;
      'true_rank{s}', 'true_probability{s}': the same of the true class; n and 0 if it was dropped;
      'true_considered{s}': bool (b,), whether it is one of the 'considered'.
  """
  found = {}
  stages = stages_of(out)
  scores, alive = stage_scores(out, stages[-1])
  followed = {'answer': jnp.where(alive, scores, -jnp.inf).argmax(-1)}
  if labels is not None:
    followed['true'] = labels
  for stage in stages:
    scores, alive = stage_scores(out, stage)
    considered = out[f'considered{stage}']
    probabilities = jax.nn.softmax(jnp.where(alive, scores, -jnp.inf))
    # Where fewer classes are left, the rest is not in the order of its scores, which decide nothing here.
    found[f'probabilities{stage}'], found[f'classes{stage}'] = jax.lax.top_k(probabilities, top)
    found[f'considered{stage}'], found[f'decided{stage}'] = considered.sum(-1), alive.sum(-1)
    found[f'place{stage}'] = rank_of_label(scores, jnp.ones_like(alive), followed['answer'])
    for which, classes in followed.items():
      # By probability, as top_k orders them.
      found[f'{which}_rank{stage}'] = rank_of_label(probabilities, alive, classes)
      found[f'{which}_probability{stage}'] = _of_class(probabilities, classes)
    if labels is not None:
      found[f'true_considered{stage}'] = _of_class(considered, labels)
    if stage != stages[-1]:
      found[f'kept{stage}'] = out[f'considered{stage + 1}'].sum(-1)
  return found


def _of_class(values, classes):
  return jnp.take_along_axis(values, classes[:, None], 1)[:, 0]


def describe(name, values, class_names, noun='image', label=-1):
  """A prediction as nested dicts.

  Args:
    name: of the image.
    values: one row of what `funnel` returns.
    class_names: by number.
    noun: what it is.
    label: number of the true class; -1 if it is not known.

  Returns:
    {noun: name, 'classes': [{'class', 'probability'}, ...] best first, without those that were dropped,
    'true': the true class (only if it is known), 'funnel': [step, ...]}, a step of every stage:
      'stage': its number; 'classes': its best classes, the same way; 'kept': how many go on (not at the last
      stage); 'considered', 'decided': see `funnel`;
      'answer_place': place of the final answer among all classes, from 1;
      'answer_rank', 'answer_probability': its place among the classes between which the stage decides;
      'true_rank', 'true_probability', 'true_considered': the same of the true class, if it is known; rank 0
      if it was dropped.
  """
  stages = sorted(int(name.removeprefix('classes')) for name in values if name.startswith('classes'))
  steps = []
  for stage in stages:
    pairs = zip(values[f'classes{stage}'], values[f'probabilities{stage}'], strict=True)
    step = {
      'stage': stage,
      'classes': [{'class': class_names[c], 'probability': p} for c, p in pairs if p > 0],
      'answer_place': values[f'place{stage}'] + 1,
    }
    if f'kept{stage}' in values:
      step['kept'] = values[f'kept{stage}']
    step |= {part: values[f'{part}{stage}'] for part in ('considered', 'decided')}
    for which in ('answer', 'true') if label >= 0 else ('answer',):
      rank = values[f'{which}_rank{stage}']
      step[f'{which}_rank'] = rank + 1 if rank < len(class_names) else 0
      step[f'{which}_probability'] = values[f'{which}_probability{stage}']
    if label >= 0:
      step['true_considered'] = values[f'true_considered{stage}']
    steps.append(step)
  true = {'true': class_names[label]} if label >= 0 else {}
  return {noun: name, 'classes': steps[-1]['classes'], **true, 'funnel': steps}


def describe_images(run, images, top):
  """The predictions of a few images, with their true classes where they are known.

  Args:
    run: a Run.
    images: Images, as the run's network sees them.
    top: how many classes of each stage.
  """
  stages = jax.jit(functools.partial(funnel, top=min(top, run.num_classes)))

  def said(some, labels):
    _, out = run.apply(run.variables, some)
    return stages(out, labels=labels)

  values = a_few_at_a_time(said, images.arrays, np.maximum(images.labels, 0))
  rows = [{name: value[i].tolist() for name, value in values.items()} for i in range(len(images))]
  return [
    describe(name, row, run.class_names, run.task.kind.noun, int(label))
    for name, row, label in zip(images.names, rows, images.labels, strict=True)
  ]
