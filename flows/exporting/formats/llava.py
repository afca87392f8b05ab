"""The LLaVA code base's JSON, with POVID's and CSR's `rejected_conversations` for pairs.

One image a record, by a path relative to `--image_folder`; `<image>` and a new line begin the
human's turn. The released code of POVID (arXiv:2402.11411) and CSR (arXiv:2405.14622) trains on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from csr.types import Demonstration, PreferencePair
from flows.exporting.lessons import DataFile, Lessons
from flows.exporting.pictures import Pictures
from flows.exporting.rows import demonstration_facts, pair_facts, write_files

MARKERS = ("<image>",)
FITS = "LLaVA 1.5's training data, and POVID's preference data"


def write(lessons: Lessons, pictures: Pictures, folder: Path, name: str) -> list[DataFile]:
    """`pairs.json` and `demonstrations.json`, whichever has rows."""
    return write_files(
        lessons,
        pictures,
        folder,
        pair_row=pair_row,
        demonstration_row=demonstration_row,
    )


def pair_row(pair: PreferencePair, image_path: str) -> dict[str, Any]:
    """Both conversations in full; they differ in the last turn alone."""
    return {
        "id": pair.pair_id,
        "image": image_path,
        "conversations": _turns(pair.prompt.text, pair.chosen.text),
        "rejected_conversations": _turns(pair.prompt.text, pair.rejected.text),
        **pair_facts(pair),
    }


def demonstration_row(demonstration: Demonstration, image_path: str) -> dict[str, Any]:
    """The conversation to imitate."""
    return {
        "id": demonstration.demonstration_id,
        "image": image_path,
        "conversations": _turns(demonstration.prompt.text, demonstration.text),
        **demonstration_facts(demonstration),
    }


def _turns(asked: str, answer: str) -> list[dict[str, str]]:
    return [
        {"from": "human", "value": f"<image>\n{asked}"},
        {"from": "gpt", "value": answer.strip()},
    ]


def usage(name: str, kinds: Sequence[str]) -> str:
    """How to train on the files, in Markdown. `name` is the data set's, `kinds` those written."""
    return (
        "Arguments of the LLaVA code base's training scripts, with this folder as `PATH`:\n\n"
        "```bash\n"
        f"--data_path PATH/{kinds[0]}.json --image_folder PATH\n"
        "```"
    )
