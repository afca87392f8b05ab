"""Small copies of images that travel inside an HTML page."""

from __future__ import annotations

import base64
import io

from csr.errors import DataError
from csr.images import image_ref, load_image

THUMBNAIL_PIXELS = 320
"""Longest side."""


def thumbnail_uri(path: str) -> tuple[str, str]:
    """The image as a `data:` URI of at most `THUMBNAIL_PIXELS` a side, and "".

    Where the image cannot be used: "", and what is wrong.
    """
    try:
        image = load_image(image_ref(path))
    except DataError as error:
        return "", str(error)
    small = max(image.size) <= THUMBNAIL_PIXELS
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG" if small else "JPEG")
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", ""
