"""The drawing styles of the set `emoji`: nine families of openly licensed pictures of the same things.

Each is an npm package of the Iconify project with SVG pictures by name, drawn by ctx_flax.data.emoji_folder.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Style:
  """A family of pictures.

  Attributes:
    package: its name on npm.
    version: of the package, exactly: the classes were chosen for it.
    lineage: styles of one lineage are redrawings of each other; no two of them are on both sides of a test.
    licence: of the pictures, as an SPDX identifier.
  """

  package: str
  version: str
  lineage: str
  licence: str


STYLES = {
  'twemoji': Style('@iconify-json/twemoji', '1.2.5', 'twemoji', 'CC-BY-4.0'),
  'openmoji': Style('@iconify-json/openmoji', '1.2.29', 'openmoji', 'CC-BY-SA-4.0'),
  'noto': Style('@iconify-json/noto', '1.2.9', 'noto', 'Apache-2.0'),
  'noto-v1': Style('@iconify-json/noto-v1', '1.2.5', 'noto', 'Apache-2.0'),
  'fluent-emoji': Style('@iconify-json/fluent-emoji', '1.2.7', 'fluent', 'MIT'),
  'fluent-emoji-flat': Style('@iconify-json/fluent-emoji-flat', '1.2.6', 'fluent', 'MIT'),
  'fxemoji': Style('@iconify-json/fxemoji', '1.2.2', 'fxemoji', 'Apache-2.0'),
  'emojione': Style('@iconify-json/emojione', '1.2.3', 'emojione', 'CC-BY-4.0'),
  'emojione-v1': Style('@iconify-json/emojione-v1', '1.2.3', 'emojione', 'CC-BY-SA-4.0'),
}
TEST_STYLES = ('twemoji', 'openmoji')
TRAIN_STYLES = tuple(name for name in STYLES if name not in TEST_STYLES)
