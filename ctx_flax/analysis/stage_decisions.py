"""What an image's outputs come down to: who decided what, how surely, and where the true class was lost."""

import jax
import jax.numpy as jnp

from ctx_flax.models.network import stages_of
from ctx_flax.tasks.classification.losses import stage_scores


def decide(out, labels):
  """The decisions of a network about images, traced by jax.

  Args:
    out: the second output of a network; a plain one has stage 4 only.
    labels: int (b,).

  Returns:
    {name: (b,)}:
      'predicted1'..'predicted4': int, the best class of the stage among those that it decides between, as far
        as there are such stages;
      'predicted': the last of them, the network's answer;
      'confidence', 'true_probability': float32, softmax of the final logits at that class and at the label; 0
        for a label that was dropped;
      'correct1'..'correct4': bool, 'predicted' of the stage is the label;
      'correct': the same of the last stage;
      'decidable': bool, the last stage decides between classes of which the label is one;
      'kept2'..'kept4': bool, the label is among the classes considered at the stage;
      'dropped': int, the first stage that did not consider the label any more, 0 for none.
  """
  found = {}
  dropped = jnp.zeros(labels.shape, jnp.int32)
  at_label = lambda x: jnp.take_along_axis(x, labels[:, None], axis=1)[:, 0]
  stages = stages_of(out)
  for stage in stages:
    scores, alive = stage_scores(out, stage)
    logits = jnp.where(alive, scores, -jnp.inf)
    found[f'predicted{stage}'] = found['predicted'] = logits.argmax(-1)
    found[f'correct{stage}'] = found['predicted'] == labels
    if stage != stages[0]:
      kept = at_label(out[f'considered{stage}'])
      found[f'kept{stage}'] = kept
      dropped = jnp.where((dropped == 0) & ~kept, stage, dropped)
  found['correct'], found['decidable'] = found[f'correct{stage}'], at_label(alive)
  probabilities = jax.nn.softmax(logits)
  found['confidence'] = probabilities.max(-1)
  found['true_probability'] = at_label(probabilities)
  # A network that reranks considers a class again that an earlier stage had left out.
  found['dropped'] = dropped
  return found
