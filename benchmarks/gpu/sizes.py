"""The sizes at which everything is measured, and tiny ones for a first look on any device."""

import dataclasses

Shapes = tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Sizes of all rows.

  Attributes:
    check: (images, side, channels in, channels out) of correctness.
    classes: between which the selection of classes decides.
    depthwise, dense: (side, channels) of contextual convolutions, 7x7 and 3x3.
    plain: (side, channels) of plain depthwise convolutions, 7x7.
    batches: of the operations, the more important one first.
    networks: {name in a row: name in ctx_flax.models.MODELS}.
    network_batches: of the networks.
    image_size: their side.
    timm: {name in a row: name in timm}.
    bandwidth, matmul: elements of a copy; side of a product of matrices.
  """

  check: tuple[int, int, int, int] = (4, 14, 64, 32)
  classes: int = 1000
  depthwise: Shapes = ((28, 192), (14, 384), (7, 768))  # stages 2-4 of ConvNeXt-T at 224 px
  dense: Shapes = ((28, 128), (14, 256), (7, 512))  # and of ResNet50
  plain: Shapes = ((56, 96), (28, 192), (14, 384), (7, 768))
  batches: tuple[int, ...] = (128, 32)
  networks: dict[str, str] = dataclasses.field(
    default_factory=lambda: {
      name: name for name in ('ctx_convnext_t', 'convnext_t', 'ctx_resnet50', 'resnet50')
    }
  )
  network_batches: tuple[int, ...] = (64, 128)
  image_size: int = 224
  timm: dict[str, str] = dataclasses.field(
    default_factory=lambda: {'convnext_t': 'convnext_tiny', 'resnet50': 'resnet50'}
  )
  bandwidth: int = 1 << 28
  matmul: int = 8192


FULL = Sizes()
SMOKE = Sizes(
  check=(2, 6, 8, 6),
  classes=40,
  depthwise=((4, 6),),
  dense=((4, 6),),
  plain=((4, 6),),
  batches=(2,),
  networks={
    'ctx_convnext_t': 'ctx_convnext_mini',
    'convnext_t': 'convnext_mini',
    'ctx_resnet50': 'ctx_resnet_mini',
    'resnet50': 'resnet_mini',
  },
  network_batches=(2,),
  image_size=32,
  timm={'convnext_t': 'convnext_atto', 'resnet50': 'resnet18'},
  bandwidth=1 << 12,
  matmul=64,
)
