"""Images that the data hold as bytes, kept as files: `<home>/_images/<ab>/<sha256>`.

All runs of a home share them, each is kept once, and its name says what it must hold. A run's
tables name them like any other file. No run is called `_images`, since a run's name starts with a
letter or digit.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from csr.files import disk_errors, fsync, temporary_beside
from csr.prompt_images import KeptImage
from csr.protocols import Progress
from storage.atomic import remove_temporaries, short_lock

FOLDER = "_images"


@dataclass(frozen=True, slots=True)
class ImageStore:
    """The images of all runs below one home directory."""

    home: Path

    def path(self, sha256: str) -> Path:
        """Where the image with these bytes is, or will be."""
        return self.home / FOLDER / sha256[:2] / sha256

    def missing_bytes(self, images: Iterable[Iterable[KeptImage]]) -> int:
        """Room that those take which are not there yet."""
        wanted = {image.ref.sha256: image.num_bytes for group in images for image in group}
        return sum(size for sha256, size in wanted.items() if not self.path(sha256).exists())

    def keep(self, images: Sequence[KeptImage], progress: Progress | None = None) -> None:
        """Write those that are not there, or are damaged. EnvironmentFault on a full disk.

        One process at a time, so that what a killed one left half-written can be told and removed.
        `progress` is called with (images done, all images).
        """
        if not images:
            return
        folder = self.home / FOLDER
        with disk_errors(folder), short_lock(folder / ".lock"):
            remove_temporaries(folder)
            for done, image in enumerate(images, start=1):
                self._keep(image)
                if progress is not None:
                    progress(done, len(images))
            # Once for all, those included that a killed process wrote: what a power failure leaves
            # half-written is mended when the run, which has not begun yet, is prepared again.
            paths = [self.path(image.ref.sha256) for image in images]
            for path in [*paths, *sorted({path.parent for path in paths})]:
                fsync(path)

    def _keep(self, image: KeptImage) -> None:
        path, data = self.path(image.ref.sha256), image.load()
        if path.is_file() and path.read_bytes() == data:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(path)
        temporary.write_bytes(data)
        os.replace(temporary, path)
