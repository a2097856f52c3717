"""The class funnel on hand-made scores: classes, probabilities, places of the answer and of a true class."""

import jax.numpy as jnp
import numpy as np
from steps import deciding

from ctx_flax.analysis.funnel import describe, funnel

NAMES = ('ant', 'bee', 'cat', 'dog')


def hand_made(selection):
  """One image: stage 2 loses the ant, stage 3 the bee; the best score of all at stage 4 is the ant's."""
  scores = {1: [0, 3, 2, 1], 2: [5, 1, 3, 2], 3: [9, 0, 1, 2], 4: [9, 8, 2, 1]}
  considered = {1: [1, 1, 1, 1], 2: [0, 1, 1, 1], 3: [0, 0, 1, 1], 4: [0, 0, 1, 1]}
  out = {f'scores{s}': jnp.array([v], jnp.float32) for s, v in scores.items()}
  return deciding(out | {f'considered{s}': jnp.array([v], bool) for s, v in considered.items()}, selection)


def test_funnel():
  values = {name: np.asarray(v)[0].tolist() for name, v in funnel(hand_made('reduction'), top=3).items()}
  said = describe('x.png', values, NAMES)
  assert [[c['class'] for c in step['classes']] for step in said['funnel']] == [
    ['bee', 'cat', 'dog'],
    ['cat', 'dog', 'bee'],
    ['dog', 'cat'],  # no other class is left
    ['cat', 'dog'],
  ]
  assert said['classes'] == said['funnel'][-1]['classes']
  # The answer is the cat; the ant, which the selection has dropped, scores higher at stages 2, 3 and 4.
  assert [step['answer_place'] for step in said['funnel']] == [2, 2, 3, 3]
  assert [step.get('kept') for step in said['funnel']] == [3, 2, 2, None]
  # Softmax over the classes that are left: 1 / (1 + exp(-1)).
  np.testing.assert_allclose(said['classes'][0]['probability'], 0.7310586, rtol=1e-6)
  np.testing.assert_allclose(sum(c['probability'] for c in said['funnel'][1]['classes']), 1, rtol=1e-6)


def followed(selection, label):
  """What the stages say of the answer and of a true class, by name: a value of each stage."""
  values = funnel(hand_made(selection), 3, jnp.array([label]))
  said = describe(
    'x.png', {name: np.asarray(v)[0].tolist() for name, v in values.items()}, NAMES, label=label
  )
  assert said['true'] == NAMES[label]
  return {name: [step.get(name) for step in said['funnel']] for name in said['funnel'][0]}


def test_what_stages_say_of_a_class():
  ant = followed('reduction', 0)
  assert ant['considered'] == ant['decided'] == [4, 3, 2, 2]
  # Among the classes that are left, unlike the places above; of the ant, which is dropped, there is none.
  assert ant['answer_rank'] == [2, 1, 2, 1] and ant['true_rank'] == [4, 0, 0, 0]
  assert ant['true_considered'] == [True, False, False, False] and ant['true_probability'][1:] == [0, 0, 0]
  np.testing.assert_allclose(ant['answer_probability'][3], 0.7310586, rtol=1e-6)
  # Nothing is dropped: the ant is left out of the contexts alone, and is the answer.
  ant = followed('rerank', 0)
  assert ant['considered'] == [4, 3, 2, 2] and ant['decided'] == [4] * 4
  assert ant['true_rank'] == ant['answer_rank'] == [4, 1, 1, 1]
  assert ant['true_considered'] == [True, False, False, False]


def test_funnel_that_reranks():
  values = {name: np.asarray(v)[0].tolist() for name, v in funnel(hand_made('rerank'), top=2).items()}
  said = describe('x.png', values, NAMES)
  assert [c['class'] for c in said['classes']] == ['ant', 'bee']
  assert [step['answer_place'] for step in said['funnel']] == [4, 1, 1, 1]
