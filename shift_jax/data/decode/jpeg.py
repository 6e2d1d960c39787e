"""The fast path for JPEGs: reading the header, and decoding no more than needed.

libjpeg-turbo, called through simplejpeg, decodes at 1/2, 1/4 or 1/8 of the size at a fraction of
the full cost. It also stops at the last row that the header announces, so a header edited to end
at the bottom of a crop saves the cost of all rows below.
"""

from typing import NamedTuple

import numpy as np

# Baseline and extended Huffman-coded, sequential: one pass over the rows, from the top.
_SEQUENTIAL = (0xC0, 0xC1)
_PROGRESSIVE = 0xC2
# The other markers that start a frame, all rare; C4, C8 and CC do not start one.
_OTHER_FRAMES = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_START_OF_SCAN = 0xDA
_ROWS_OF_BLOCKS = 8
# Twice the size at which Pillow warns: there it takes the image for a decompression bomb.
_MAX_PIXELS = 178_956_970


class Header(NamedTuple):
    """The frame header of a JPEG."""

    height: int
    width: int
    height_at: int
    """Position in the file of the two bytes that hold the height."""
    sequential: bool
    unit_rows: int
    """Rows of a minimum coded unit: 8, or 16 if the color channels have half the rows."""


def read_header(data: bytes) -> Header | None:
    """Reads the frame header of a JPEG, in about a microsecond.

    Args:
      data: An encoded image of any format.

    Returns:
      The header, or None if `decode` cannot take the image: if it is not an 8-bit gray or
      three-channel JPEG, or if its header is damaged or announces an absurd size.
    """
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # A fill byte.
            at += 1
            continue
        if marker in _SEQUENTIAL or marker == _PROGRESSIVE:
            height = data[at + 5] << 8 | data[at + 6]
            width = data[at + 7] << 8 | data[at + 8]
            usual = data[at + 4] == 8 and data[at + 9] in (1, 3)
            if not usual or not 0 < height * width <= _MAX_PIXELS:
                return None
            factors = data[at + 11 : at + 11 + 3 * data[at + 9] : 3]
            sampling = max((byte & 15 for byte in factors), default=0)
            if not 1 <= sampling <= 4:
                return None
            return Header(height, width, at + 5, marker in _SEQUENTIAL, _ROWS_OF_BLOCKS * sampling)
        if marker == _START_OF_SCAN or marker in _OTHER_FRAMES:
            return None
        at += 2 + (data[at + 2] << 8 | data[at + 3])
    return None


def decode(
    data: bytes, header: Header, channels: int, *, bottom: int | None = None, reduction: int = 1
) -> np.ndarray | None:
    """Decodes a JPEG, whole or down to a row.

    Args:
      data: The JPEG.
      header: Its header.
      channels: 3 for RGB, 1 for gray.
      bottom: First row that is not needed, which also permits fast approximations; None decodes
        everything exactly and rejects any damage.
      reduction: 1, 2, 4 or 8: decode at 1/reduction of the size, rounded up.

    Returns:
      uint8 [h, w, channels] with the full width and at least the first bottom / reduction rows, or
      None if libjpeg-turbo reports an error.
    """
    import simplejpeg

    height, strict = header.height, True
    # A file without its end marker may be truncated, which only decoding all of it can tell.
    if bottom is not None and header.sequential and data[-2:] == b"\xff\xd9":
        # One unit is enough: fast upsampling takes chroma from no other unit.
        height = min(height, -(-bottom // header.unit_rows) * header.unit_rows)
        if height < header.height:
            at = header.height_at
            data = data[:at] + height.to_bytes(2, "big") + data[at + 2 :]
            # Strict decoding would reject the remaining rows as extraneous data.
            strict = False
    try:
        return simplejpeg.decode_jpeg(
            data,
            "RGB" if channels == 3 else "GRAY",
            min_height=-(-height // reduction),
            min_width=-(-header.width // reduction),
            min_factor=reduction,
            # Training crops tolerate errors of one or two gray values, and this saves 4 %.
            fastdct=bottom is not None,
            fastupsample=bottom is not None,
            strict=strict,
        )
    except ValueError:
        return None
