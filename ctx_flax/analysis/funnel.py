"""The class funnel of an image: what each stage thought, and how many classes it left to the next."""

import jax
import jax.numpy as jnp

from ctx_flax.models.network import stages_of
from ctx_flax.tasks.classification.losses import stage_scores
from ctx_flax.tasks.classification.metrics import rank_of_label


def funnel(out, top):
  """What the stages of a network say about images, traced by jax.

  Args:
    out: the second output of a network; a plain one has stage 4 only.
    top: how many of the best classes are wanted; at most all.

  Returns:
    {name: array}, for every stage s
      'classes{s}': int (b, top), the best classes, best first, ties by index;
      'probabilities{s}': float32 (b, top), softmax over the classes between which the stage decides, 0 for
        others;
      'kept{s}': int (b,), how many classes the stage leaves to the next one (not for the last stage);
      'place{s}': int (b,), how many of all classes the stage scores higher than the final answer.
  """
  found = {}
  stages = stages_of(out)
  scores, alive = stage_scores(out, stages[-1])
  answer = jnp.where(alive, scores, -jnp.inf).argmax(-1)
  for stage in stages:
    scores, alive = stage_scores(out, stage)
    logits = jnp.where(alive, scores, -jnp.inf)
    probabilities, classes = jax.lax.top_k(jax.nn.softmax(logits), top)
    # Where fewer classes are left, the rest is not in the order of its scores, which decide nothing here.
    found[f'classes{stage}'], found[f'probabilities{stage}'] = classes, probabilities
    found[f'place{stage}'] = rank_of_label(scores, jnp.ones_like(alive), answer)
    if stage != stages[-1]:
      found[f'kept{stage}'] = out[f'considered{stage + 1}'].sum(-1)
  return found
