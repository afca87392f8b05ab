"""The images of an export: content-addressed, each once, as the policy saw them.

An image is copied byte for byte where plain Pillow reads from it what the policy saw. Where it
does not (the photograph is turned by EXIF, has transparency, or was corrupted on purpose), what
the policy saw is written as PNG: whoever trains on the export must see the same.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from csr.errors import DataError
from csr.images import ALLOWED_FORMATS, as_referred, decode_image, load_bytes
from csr.types import ImageRef
from flows.exporting.request import ImagesMode

FOLDER = "images"
SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp",
            "GIF": ".gif"}  # fmt: skip
"""Pillow's name of a format -> the suffix of its files."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One image as an export holds it."""

    name: str
    """`<sha256 of the original file><suffix>`, with the corruption's name where it has one."""
    data: bytes
    is_original: bool
    """Whether `data` are the original file's bytes."""


@dataclass
class Pictures:
    """Puts images into `folder`, or refers to them; `final` is what `folder` will be called."""

    mode: ImagesMode
    folder: Path
    final: Path
    num_redrawn: int = 0
    """Images whose file other readers would see otherwise than the policy did."""
    _paths: dict[tuple[str, str | None], str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Images so far."""
        return len(self._paths)

    def path_of(self, ref: ImageRef) -> str:
        """How a row names the image: relative to the export's folder, or absolute by reference.

        DataError where the file changed since the run began, or cannot be referred to.
        """
        key = (ref.sha256, ref.corruption)
        if key not in self._paths:
            self._paths[key] = self._placed(ref, self._drawn(ref))
        return self._paths[key]

    def absolute_path_of(self, ref: ImageRef) -> str:
        """As `path_of`, for a file whose readers look nowhere beside it."""
        return str(self.final / self.path_of(ref))  # an absolute path stays as it is

    def embedded(self, ref: ImageRef) -> Picture:
        """The image for a table that holds the bytes itself."""
        key = (ref.sha256, ref.corruption)
        picture = picture_of(ref)
        if key not in self._paths:
            self.num_redrawn += not picture.is_original
            self._paths[key] = picture.name
        return picture

    def _drawn(self, ref: ImageRef) -> Picture:
        picture = picture_of(ref)
        self.num_redrawn += not picture.is_original
        return picture

    def _placed(self, ref: ImageRef, picture: Picture) -> str:
        if self.mode == "reference":
            if not picture.is_original:
                raise DataError(
                    f"The policy did not see {ref.uri} as other programs read that file (it was "
                    "corrupted on purpose, is turned by its EXIF data, or is transparent), so it "
                    "cannot be referred to. Export with --images copy, which writes what was seen."
                )
            return ref.uri
        target = self.folder / FOLDER / picture.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.mode == "link" and picture.is_original:
            os.symlink(ref.uri, target)
        else:
            target.write_bytes(picture.data)
        return f"{FOLDER}/{picture.name}"


def picture_of(ref: ImageRef) -> Picture:
    """The image's bytes as an export holds them. DataError as in `csr.images.load_bytes`."""
    data = load_bytes(ref)
    seen = as_referred(decode_image(data, ref.uri), ref)
    with Image.open(io.BytesIO(data), formats=ALLOWED_FORMATS) as plain:
        suffix = SUFFIXES[str(plain.format)]
        as_read = plain.convert("RGB")
    if as_read.size == seen.size and as_read.tobytes() == seen.tobytes():
        return Picture(f"{ref.sha256}{suffix}", data, is_original=True)
    buffer = io.BytesIO()
    seen.save(buffer, format="PNG")
    mark = f"-{ref.corruption.replace(':', '_')}" if ref.corruption else "-seen"
    return Picture(f"{ref.sha256}{mark}.png", buffer.getvalue(), is_original=False)
