"""ms-swift's standard form: JSON Lines with `messages`, `rejected_response` and `images`.

The last assistant turn is the chosen answer. `<image>` marks where the image goes. A relative image
path is taken from the folder that `ROOT_IMAGE_DIR` names, else from the working directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from csr.types import Demonstration, PreferencePair
from flows.exporting.lessons import DataFile, Lessons
from flows.exporting.pictures import Pictures
from flows.exporting.rows import demonstration_facts, pair_facts, write_files

MARKERS = (
    "<image>", "<video>", "<audio>", "<bbox>", "<ref-object>", "<cot-process>", "<start-image>",
)  # fmt: skip
"""ms-swift splits every text at these, a response as well."""
FITS = "ms-swift 4.6.0 (Customization, Custom Dataset: DPO and multimodal)"


def write(lessons: Lessons, pictures: Pictures, folder: Path, name: str) -> list[DataFile]:
    """`pairs.jsonl` and `demonstrations.jsonl`, whichever has rows."""
    return write_files(
        lessons,
        pictures,
        folder,
        pair_row=pair_row,
        demonstration_row=demonstration_row,
        suffix=".jsonl",
    )


def pair_row(pair: PreferencePair, image_path: str) -> dict[str, Any]:
    """The conversation with the chosen answer, and the rejected one beside it."""
    return {
        "messages": _messages(pair.prompt.text, pair.chosen.text),
        "rejected_response": pair.rejected.text.strip(),
        "images": [image_path],
        **pair_facts(pair),
    }


def demonstration_row(demonstration: Demonstration, image_path: str) -> dict[str, Any]:
    """The conversation to imitate."""
    return {
        "messages": _messages(demonstration.prompt.text, demonstration.text),
        "images": [image_path],
        **demonstration_facts(demonstration),
    }


def _messages(asked: str, answer: str) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"<image>{asked}"},
        {"role": "assistant", "content": answer.strip()},
    ]


def usage(name: str, kinds: Sequence[str]) -> str:
    """How to train on the files, in Markdown. `name` is the data set's, `kinds` those written."""
    command = "swift rlhf --rlhf_type dpo" if "pairs" in kinds else "swift sft"
    return (
        "With this folder as `PATH`:\n\n"
        "```bash\n"
        f"ROOT_IMAGE_DIR=PATH {command} --dataset PATH/{kinds[0]}.jsonl --model MODEL\n"
        "```"
    )
