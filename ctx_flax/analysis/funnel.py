"""The class funnel of an image: what each stage thought, and how many classes it left to the next."""

import jax
import jax.numpy as jnp

from ctx_flax.training import losses, metrics


def funnel(out, selection, top):
  """What the stages of a network say about images, traced by jax.

  Args:
    out: the second output of a network; a plain one has stage 4 only.
    selection: its class_selection.
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
  scores, alive = losses.stage_scores(out, 4, selection)
  answer = jnp.where(alive, scores, -jnp.inf).argmax(-1)
  for stage in losses.stages(out):
    scores, alive = losses.stage_scores(out, stage, selection)
    logits = jnp.where(alive, scores, -jnp.inf)
    probabilities, classes = jax.lax.top_k(jax.nn.softmax(logits), top)
    # Where fewer classes are left, the rest is not in the order of its scores, which decide nothing here.
    found[f'classes{stage}'], found[f'probabilities{stage}'] = classes, probabilities
    found[f'place{stage}'] = metrics.rank_of_label(scores, jnp.ones_like(alive), answer)
    if stage < 4:
      found[f'kept{stage}'] = out[f'considered{stage + 1}'].sum(-1)
  return found
