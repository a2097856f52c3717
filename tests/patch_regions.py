"""Regions of photographs as pixels."""

from ctx_flax.data import patches


def region(name, top, left):
  return patches.photograph(name)[top : top + patches.REGION, left : left + patches.REGION]
