"""Ids of a network's layers, from the stem to the heads, for layer-wise decay of the learning rate.

The scheme of ConvNeXt's object_detection (https://github.com/facebookresearch/ConvNeXt), for depths
(3, 3, 9, 3): the stem is 0, stages 1 and 2 are 1 and 2, stage 3 goes by groups of three blocks, 3 to 5,
stage 4 is 6, and everything behind it is 7. A downsampling layer counts with the stage that it opens. The
contextual parts are ours: a contextual convolution goes with its block, the merger and the image head of
stages 1 to 3 with the last layer of their stage, and the class embeddings, their scale and the image head of
stage 4, which classifies, with the heads.
"""

import re
from collections.abc import Sequence

GROUP = 3  # blocks of stage 3 that share an id


def num_layers(depths: Sequence[int]) -> int:
  """L, the id of the last stage: the stem has 0 and the heads L + 1."""
  return sum(_ids_in_stages(depths))


def layer_id(name: str, depths: Sequence[int], stem: Sequence[str]) -> int:
  """The id of a parameter's layer, 0 to L + 1.

  Args:
    name: of the parameter, 'stage3_block4/dwconv/kernel'.
    depths: blocks in each of the stages.
    stem: names of the modules before stage 1, such as 'stem_conv'.
  """
  module = name.partition('/')[0]
  if module in stem:
    return 0
  ids = _ids_in_stages(depths)
  block = re.fullmatch(r'stage(\d+)_block(\d+)', module)
  if block:
    stage, index = int(block[1]), int(block[2])
    return sum(ids[: stage - 1]) + 1 + (index // GROUP if ids[stage - 1] > 1 else 0)
  downsampling = re.fullmatch(r'downsample(\d+)_(?:conv|norm)', module)
  if downsampling:
    return sum(ids[: int(downsampling[1]) - 1]) + 1
  contextual = re.match(r'contextualizer/(head|merger)(\d+)/', name)
  if contextual and (contextual[1], int(contextual[2])) != ('head', len(depths)):
    return sum(ids[: int(contextual[2])])
  return num_layers(depths) + 1


def _ids_in_stages(depths: Sequence[int]) -> list[int]:
  return [-(-depth // GROUP) if stage == 3 else 1 for stage, depth in enumerate(depths, 1)]
