"""PNG files without what makes Pillow refuse them though their pixels are good."""

import struct

SIGNATURE = b'\x89PNG\r\n\x1a\n'
# Pillow inflates these, and refuses the whole file if one of them gets long. Nothing of them is used here.
COMPRESSED = frozenset((b'zTXt', b'iCCP'))
TEXT = frozenset((b'tEXt', b'iTXt'))
LONGEST_TEXT = 2**16  # bytes; the orientation that XMP may hold stands in a short one


def without_long_text(encoded: bytes) -> bytes:
  """A PNG file without its colour profile and its compressed and long texts; any other file as it is.

  Nothing is inflated, so that a bomb in a text cannot go off. A damaged file is cut up no further than it can
  be read: the decoder shall say what is wrong with it.
  """
  if not encoded.startswith(SIGNATURE):
    return encoded
  kept, begun, place, texts = [], 0, len(SIGNATURE), 0
  while place + 12 <= len(encoded):
    length, kind = struct.unpack_from('>I4s', encoded, place)
    end = place + 12 + length  # with the length itself, the kind and the checksum
    if end > len(encoded):
      break
    if kind in TEXT:
      texts += length
    if kind in COMPRESSED or (kind in TEXT and (texts > LONGEST_TEXT or _is_compressed(encoded, place, end))):
      kept.append(encoded[begun:place])
      begun = end
    place = end
  return b''.join((*kept, encoded[begun:])) if kept else encoded


def _is_compressed(encoded: bytes, place: int, end: int) -> bool:
  """Whether a text chunk is an iTXt that is compressed: a byte after the keyword and its zero says so."""
  if encoded[place + 4 : place + 8] != b'iTXt':
    return False
  zero = encoded.find(b'\0', place + 8, end - 4)
  return zero >= 0 and encoded[zero + 1] != 0
