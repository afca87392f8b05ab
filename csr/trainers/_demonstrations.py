"""Reads the `demonstrations` table into what a trainer needs of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csr.errors import DataError
from csr.trainers._tables import read_rows, row_image
from csr.types import ImageRef

_REQUIRED = (
    "demonstration_id", "prompt_text", "image_uri", "image_sha256", "text", "token_ids", "weight",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingDemonstration:
    """One response to imitate."""

    demonstration_id: str
    prompt_text: str
    image: ImageRef
    text: str
    token_ids: tuple[int, ...] | None
    """As they were sampled; None for a text that nobody sampled."""
    weight: float

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"demonstration {self.demonstration_id}"


def read_demonstrations(path: Path) -> list[TrainingDemonstration]:
    """All demonstrations of a Parquet file, or of a directory of them, in the order of their ids.

    DataError where there is none, or a column or a value is missing.
    """
    rows = read_rows(path, _REQUIRED, ("image_corruption",))
    if not rows:
        raise DataError(
            f"There are no demonstrations under {path}, so there is nothing to train on. Look at "
            "the skip counts of the pairing stage: a milder critic, more samples or more prompts "
            "yield some."
        )
    return sorted((_demonstration(row) for row in rows), key=lambda each: each.demonstration_id)


def _demonstration(row: dict[str, Any]) -> TrainingDemonstration:
    for name in _REQUIRED:
        if row[name] is None and name != "token_ids":
            raise DataError(
                f"Demonstration {row['demonstration_id']!r} has an empty {name}. It needs an "
                "image, a prompt, a response and a weight."
            )
    return TrainingDemonstration(
        demonstration_id=row["demonstration_id"],
        prompt_text=row["prompt_text"],
        image=row_image(row),
        text=row["text"],
        token_ids=None if row["token_ids"] is None else tuple(row["token_ids"]),
        weight=row["weight"],
    )
