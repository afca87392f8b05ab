"""The images that records name: files below the image folder, or bytes within the data.

Bytes get a place of their own, named by their content, so that whatever comes later finds a file.
They are only checked and hashed here; `KeptImage` says what must be written, once the run is known
to be able to start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from csr.errors import DataError, shown
from csr.images import checked_bytes, sized_image_ref
from csr.prompt_files import EmbeddedImage
from csr.records import BadRecordError
from csr.types import ImageRef, SkipReason

SizedImage = tuple[ImageRef, tuple[int, int]]
"""With its width and height in pixels."""

ImagePlace = Callable[[str], Path]
"""The absolute path at which an image with this SHA-256 is kept."""


@dataclass(frozen=True, slots=True)
class KeptImage:
    """Bytes that a prompt's image reference counts on, and which are to be written."""

    ref: ImageRef
    num_bytes: int
    source: EmbeddedImage

    def load(self) -> bytes:
        """The bytes once more. DataError where the data changed since they were checked."""
        data = self.source.load()
        if not isinstance(data, bytes) or hashlib.sha256(data).hexdigest() != self.ref.sha256:
            raise DataError(
                f"image {self.source.name} changed while the run was being prepared. Start it "
                "again once nothing writes to the data any more."
            )
        return data


class PromptImages:
    """Looks at each distinct image once."""

    def __init__(self, root: Path | None, place: ImagePlace | None, prefix: str = "") -> None:
        self._root, self._place, self._prefix = root, place, prefix
        self._files: dict[str, SizedImage | DataError] = {}
        self._bytes: dict[str, SizedImage | DataError] = {}
        self._found: dict[str, KeptImage] = {}

    def look_at(self, image: str | EmbeddedImage) -> SizedImage:
        """The image, decoded once. BadRecordError, without the record's place, where it is bad."""
        found = self._file(image) if isinstance(image, str) else self._embedded(image)
        if isinstance(found, DataError):
            raise BadRecordError(str(found), SkipReason.UNREADABLE_IMAGE)
        return found

    def kept(self, sha256: str) -> KeptImage | None:
        """What is to be written for the image; None where it is a file already."""
        return self._found.get(sha256)

    def _file(self, image: str) -> SizedImage | DataError:
        if self._root is None:
            return DataError(
                f"the image {shown(image)} is named by its path, and there is no data.images. Name "
                "the folder that the image paths start from."
            )
        if image not in self._files:
            try:
                self._files[image] = sized_image_ref(self._file_name(image), root=self._root)
            except DataError as error:
                self._files[image] = error
        return self._files[image]

    def _file_name(self, image: str) -> Path:
        """With the prefix that the records leave out."""
        path = Path(image)
        if path.name.startswith(self._prefix):
            return path
        return Path(path.parent, self._prefix + path.name)

    def _embedded(self, image: EmbeddedImage) -> SizedImage | DataError:
        try:
            data = image.load()
        except BadRecordError:
            raise
        except DataError as error:
            return error
        if data is None:
            raise BadRecordError("it has no image.", SkipReason.NO_IMAGE)
        if isinstance(data, str):
            return self._file(data)
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 not in self._bytes:
            self._bytes[sha256] = self._checked(image, data, sha256)
        return self._bytes[sha256]

    def _checked(self, image: EmbeddedImage, data: bytes, sha256: str) -> SizedImage | DataError:
        assert self._place is not None, "data that hold bytes need a place to keep them"
        try:
            found = checked_bytes(data, name=image.name, uri=str(self._place(sha256)))
        except DataError as error:
            return error
        self._found[sha256] = KeptImage(found[0], len(data), image)
        return found
