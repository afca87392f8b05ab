"""LLaMA-Factory's sharegpt form: a JSON list a file, and the `dataset_info.json` that names them.

A pair is `conversations` up to the user's turn, with `chosen` and `rejected` as one turn each, and
`ranking: true`. `<image>` marks where the image goes; the number of marks in all turns must be the
number of `images`, or the trainer stops. Image paths are relative to `media_dir`, which is
`dataset_dir` unless set.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from csr.types import Demonstration, PreferencePair
from flows.exporting.lessons import DataFile, Lessons
from flows.exporting.pictures import Pictures
from flows.exporting.rows import demonstration_facts, pair_facts, write_files
from storage.atomic import write_json

MARKERS = ("<image>", "<video>", "<audio>")
FITS = "LLaMA-Factory 0.9.5 (`data/README.md`, sharegpt preference and multimodal datasets)"


def write(lessons: Lessons, pictures: Pictures, folder: Path, name: str) -> list[DataFile]:
    """`pairs.json` and `demonstrations.json`, whichever has rows, and `dataset_info.json`."""
    files = write_files(
        lessons, pictures, folder, pair_row=pair_row, demonstration_row=demonstration_row
    )
    described = {f"{name}_{file.kind}": _described(file) for file in files}
    write_json(folder / "dataset_info.json", described)
    return files


def pair_row(pair: PreferencePair, image_path: str) -> dict[str, Any]:
    """The prompt's turn, the two answers, and the image's path."""
    return {
        "conversations": [_turn("human", f"<image>{pair.prompt.text}")],
        "chosen": _turn("gpt", pair.chosen.text.strip()),
        "rejected": _turn("gpt", pair.rejected.text.strip()),
        "images": [image_path],
        **pair_facts(pair),
    }


def demonstration_row(demonstration: Demonstration, image_path: str) -> dict[str, Any]:
    """The prompt's turn and the answer to imitate."""
    return {
        "conversations": [
            _turn("human", f"<image>{demonstration.prompt.text}"),
            _turn("gpt", demonstration.text.strip()),
        ],
        "images": [image_path],
        **demonstration_facts(demonstration),
    }


def _turn(speaker: str, text: str) -> dict[str, str]:
    return {"from": speaker, "value": text}


def _described(file: DataFile) -> dict[str, Any]:
    """The entry of `dataset_info.json`; tags are the format's defaults."""
    entry: dict[str, Any] = {
        "file_name": file.path.name,
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "images": "images"},
    }
    if file.kind == "pairs":
        entry["ranking"] = True
        entry["columns"] |= {"chosen": "chosen", "rejected": "rejected"}
    return entry


def usage(name: str, kinds: Sequence[str]) -> str:
    """How to train on the files, in Markdown. `name` is the data set's, `kinds` those written."""
    stage = "stage: dpo" if "pairs" in kinds else "stage: sft"
    return (
        "In LLaMA-Factory's configuration, with this folder as `PATH`:\n\n"
        "```yaml\n"
        f"{stage}\n"
        "dataset_dir: PATH\n"
        f"dataset: {name}_{kinds[0]}\n"
        "```"
    )
