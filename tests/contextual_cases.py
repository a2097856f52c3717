"""The two contextual convolutions beside their references, and the names of their arguments."""

import pytest
import reference

from ctx_flax.ops import contextual_conv, contextual_depthwise_conv

NAMES = 'x kernel kernel_delta offsets mask'
FUNCTIONS = {
  'dense': (contextual_conv, reference.contextual_conv),
  'depthwise': (contextual_depthwise_conv, reference.contextual_depthwise_conv),
}
both = pytest.mark.parametrize('kind', FUNCTIONS)
