"""Image files made byte by byte, as no encoder would."""

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

from PIL import Image

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
"""PNG's colour types."""


def chunk(kind: bytes, body: bytes, *, checksum: int | None = None) -> bytes:
    """One PNG chunk."""
    right = zlib.crc32(kind + body)
    return (
        struct.pack(">I", len(body))
        + kind
        + body
        + struct.pack(">I", right if checksum is None else checksum)
    )


def png(
    width: int,
    height: int,
    data: bytes,
    *,
    depth: int = 8,
    colour: int = GREY,
    before: Sequence[bytes] = (),
    checksum: int | None = None,
) -> bytes:
    """A PNG of these header values and these raw rows (each with its filter byte)."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *before,
            chunk(b"IDAT", zlib.compress(data), checksum=checksum),
            chunk(b"IEND", b""),
        ]
    )


def rows(*lines: bytes) -> bytes:
    """Raw rows without a filter."""
    return b"".join(b"\x00" + line for line in lines)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The image as a file of this kind."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int = 48, height: int = 48) -> Image.Image:
    """Pixels that do not compress away, the same every time."""
    state, values = 1, bytearray()
    for _ in range(width * height * 3):
        state = (state * 1103515245 + 12345) % 2**31
        values.append(state >> 16 & 255)
    return Image.frombytes("RGB", (width, height), bytes(values))


def two_frames(kind: str) -> bytes:
    """An animation of red and blue."""
    red, blue = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    return encoded(red, kind, save_all=True, append_images=[blue])
