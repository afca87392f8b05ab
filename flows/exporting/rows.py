"""What the JSON formats share: a file a kind of row, and what a row carries beside its texts."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from csr.types import Demonstration, PreferencePair
from flows.exporting.lessons import DataFile, Lessons
from flows.exporting.pictures import Pictures
from flows.exporting.text import write_json_lines, write_json_list

Row = dict[str, Any]


def write_files(
    lessons: Lessons,
    pictures: Pictures,
    folder: Path,
    *,
    pair_row: Callable[[PreferencePair, str], Row],
    demonstration_row: Callable[[Demonstration, str], Row],
    suffix: Literal[".json", ".jsonl"] = ".json",
) -> list[DataFile]:
    """`pairs` and `demonstrations`, whichever has rows; a row is given its image's path."""
    write = write_json_list if suffix == ".json" else write_json_lines
    files = []
    if lessons.pairs:
        path = folder / f"pairs{suffix}"
        write(path, (pair_row(p, pictures.path_of(p.prompt.image)) for p in lessons.pairs))
        files.append(DataFile(kind="pairs", path=path, num_rows=len(lessons.pairs)))
    if shown := lessons.demonstrations:
        path = folder / f"demonstrations{suffix}"
        write(path, (demonstration_row(d, pictures.path_of(d.prompt.image)) for d in shown))
        files.append(DataFile(kind="demonstrations", path=path, num_rows=len(shown)))
    return files


def pair_facts(pair: PreferencePair) -> dict[str, Any]:
    """Columns that trainers leave alone and people filter by.

    No `margin`: ms-swift's reward model would take a column of that name into its loss.
    """
    return {
        "pair_id": pair.pair_id,
        "prompt_id": pair.prompt.prompt_id,
        "chosen_reward": finite(pair.chosen.reward),
        "rejected_reward": finite(pair.rejected.reward),
    }


def demonstration_facts(demonstration: Demonstration) -> dict[str, Any]:
    """As `pair_facts`. The weight is a fact here: other trainers weigh all rows alike."""
    return {
        "demonstration_id": demonstration.demonstration_id,
        "prompt_id": demonstration.prompt.prompt_id,
        "kind": demonstration.kind,
        "weight": finite(demonstration.weight),
    }


def finite(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None
