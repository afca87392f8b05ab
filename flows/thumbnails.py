"""Small copies of images that travel inside an HTML page."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from csr.errors import DataError
from csr.files import file_sha256
from csr.images import load_image
from csr.types import ImageRef

THUMBNAIL_PIXELS = (320, 224, 160, 112)
"""Longest side; the smaller ones are for pages that must stay small."""


def thumbnail_uri(path: str, max_characters: int | None = None) -> tuple[str, str]:
    """The image as a `data:` URI, in the largest size that stays below the limit, and "".

    Where the image cannot be used: "", and what is wrong.
    """
    try:
        image = load_image(_as_it_is_now(path))
    except DataError as error:
        return "", str(error)
    for pixels in THUMBNAIL_PIXELS:
        uri = _data_uri(image, pixels)
        if max_characters is None or len(uri) <= max_characters:
            return uri, ""
    return "", f"{path} takes more than {max_characters} characters even when it is small"


def _as_it_is_now(path: str) -> ImageRef:
    """Without a proof that it decodes, which loading it gives: large photographs take time."""
    file = Path(path)
    return ImageRef(uri=path, sha256=file_sha256(file) if file.is_file() else "")


def _data_uri(image: Any, pixels: int) -> str:
    """A copy of at most `pixels` a side: PNG where that is the whole image, else JPEG."""
    whole = max(image.size) <= pixels == THUMBNAIL_PIXELS[0]
    copy = image.copy()
    copy.thumbnail((pixels, pixels))
    buffer = io.BytesIO()
    copy.save(buffer, format="PNG" if whole else "JPEG")
    kind = "png" if whole else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
