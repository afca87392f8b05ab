"""Reads the `pairs` table into what a preference trainer needs of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csr.corruptions import corrupted
from csr.errors import DataError
from csr.images import as_referred, decode_image, load_image
from csr.trainers._tables import read_rows, row_image
from csr.types import ImageRef

if TYPE_CHECKING:
    from PIL.Image import Image

_REQUIRED = (
    "pair_id", "prompt_text", "images", "image_uri", "image_sha256",
    "chosen_token_ids", "rejected_token_ids",
)  # fmt: skip
_OPTIONAL = ("image_corruption",)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPair:
    """One pair, responses as the token ids that were sampled (EOS included where it was)."""

    pair_id: str
    prompt_text: str
    image: ImageRef
    image_bytes: bytes | None
    """The image file's bytes where the table embeds them, else None."""
    chosen_token_ids: tuple[int, ...]
    rejected_token_ids: tuple[int, ...]

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"pair {self.pair_id}"


def read_pairs(path: Path) -> list[TrainingPair]:
    """All pairs of a Parquet file, or of a directory of them, in the order of their ids.

    Sorting makes training independent of how the table was sharded. DataError where
    there is no pair, or a column or a value is missing.
    """
    rows = read_rows(path, _REQUIRED, _OPTIONAL)
    if not rows:
        raise DataError(
            f"There are no preference pairs under {path}, so there is nothing to train on. Look at "
            "the skip counts of the pairing stage: a lower margin, more candidates or more prompts "
            "yield pairs."
        )
    return sorted((_pair(row) for row in rows), key=lambda pair: pair.pair_id)


def pair_image(pair: TrainingPair) -> Image:
    """The pair's image, verified by its hash. DataError as in `csr.images.load_image`."""
    if pair.image_bytes is None:
        return load_image(pair.image)
    if hashlib.sha256(pair.image_bytes).hexdigest() != pair.image.sha256:
        raise DataError(
            f"The image embedded in pair {pair.pair_id} does not have the hash that the table "
            "names. The pairs table is damaged: make the pairs again."
        )
    return as_referred(decode_image(pair.image_bytes, pair.image.uri), pair.image)


def corrupted_pair_image(pair: TrainingPair, corruption: str) -> Image:
    """The pair's image with a corruption on top of what its reference names.

    DataError where that leaves it as it is: a term would compare the image with itself.
    """
    clean = pair_image(pair)
    image = corrupted(clean, corruption, pair.image.sha256)
    if image.size == clean.size and image.tobytes() == clean.tobytes():
        raise DataError(
            f"The corruption {corruption} leaves the image of pair {pair.pair_id} "
            f"({pair.image.uri}) as it is: it may be of one colour, or corrupted already. Remove "
            "its prompt, or name another corruption in image_terms."
        )
    return image


def _pair(row: dict[str, Any]) -> TrainingPair:
    for name in _REQUIRED:
        if row[name] is None or (name.endswith("token_ids") and not row[name]):
            raise DataError(
                f"Pair {row['pair_id']!r} has an empty {name}. A pair needs an image, a prompt and "
                "the sampled token ids of both responses."
            )
    return TrainingPair(
        pair_id=row["pair_id"],
        prompt_text=row["prompt_text"],
        image=row_image(row),
        image_bytes=_embedded_bytes(row["images"]),
        chosen_token_ids=tuple(row["chosen_token_ids"]),
        rejected_token_ids=tuple(row["rejected_token_ids"]),
    )


def _embedded_bytes(images: list[dict[str, Any]]) -> bytes | None:
    return images[0]["bytes"] if images else None
