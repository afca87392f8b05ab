"""TRL's vision preference format: Parquet with `images`, `prompt`, `chosen`, `rejected`.

Messages without image markers: TRL puts the image before the first user turn itself. The image's
bytes stand in the table, as on the hub, since a Parquet file names no file beside it; with
`--images link` or `reference` its absolute path stands there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from csr.types import Demonstration, ImageRef, PreferencePair
from flows.exporting.lessons import DataFile, Lessons
from flows.exporting.pictures import Pictures
from flows.exporting.rows import demonstration_facts, finite, pair_facts
from storage.schema import IMAGES, MESSAGES, REAL, STRING

MARKERS: tuple[str, ...] = ()
"""None: texts and images are told apart by their place, not by marks in the text."""
FITS = "TRL 1.16 (`DPOTrainer`, `SFTTrainer`), datasets 5.2"

ROWS_PER_GROUP = 100
"""Of a Parquet row group: what is in memory at once, and what the hub's viewer reads at once."""

_COMMON = [("images", IMAGES), ("prompt", MESSAGES)]
PAIR_COLUMNS = [
    *_COMMON, ("chosen", MESSAGES), ("rejected", MESSAGES),
    ("pair_id", STRING), ("prompt_id", STRING), ("chosen_reward", REAL), ("rejected_reward", REAL),
    ("margin", REAL), ("source", STRING), ("image_sha256", STRING),
]  # fmt: skip
DEMONSTRATION_COLUMNS = [
    *_COMMON, ("completion", MESSAGES),
    ("demonstration_id", STRING), ("prompt_id", STRING), ("kind", STRING), ("weight", REAL),
    ("source", STRING), ("image_sha256", STRING),
]  # fmt: skip
_FEATURES = {"images": {"feature": {"_type": "Image"}, "_type": "List"}}
"""What tells `datasets` that the column holds images."""


def write(lessons: Lessons, pictures: Pictures, folder: Path, name: str) -> list[DataFile]:
    """`data/pairs.parquet` and `data/demonstrations.parquet`, whichever has rows."""
    files = []
    if lessons.pairs:
        rows = (pair_row(pair, pictures) for pair in lessons.pairs)
        path = _write_table(folder / "data" / "pairs.parquet", PAIR_COLUMNS, rows)
        files.append(DataFile(kind="pairs", path=path, num_rows=len(lessons.pairs)))
    if lessons.demonstrations:
        rows = (demonstration_row(each, pictures) for each in lessons.demonstrations)
        path = _write_table(folder / "data" / "demonstrations.parquet", DEMONSTRATION_COLUMNS, rows)
        number = len(lessons.demonstrations)
        files.append(DataFile(kind="demonstrations", path=path, num_rows=number))
    return files


def pair_row(pair: PreferencePair, pictures: Pictures) -> dict[str, Any]:
    """One row of `PAIR_COLUMNS`."""
    return {
        "images": [_image(pair.prompt.image, pictures)],
        "prompt": [_message("user", pair.prompt.text)],
        "chosen": [_message("assistant", pair.chosen.text.strip())],
        "rejected": [_message("assistant", pair.rejected.text.strip())],
        **pair_facts(pair),
        "margin": finite(pair.margin),
        "source": pair.source,
        "image_sha256": pair.prompt.image.sha256,
    }


def demonstration_row(demonstration: Demonstration, pictures: Pictures) -> dict[str, Any]:
    """One row of `DEMONSTRATION_COLUMNS`."""
    return {
        "images": [_image(demonstration.prompt.image, pictures)],
        "prompt": [_message("user", demonstration.prompt.text)],
        "completion": [_message("assistant", demonstration.text.strip())],
        **demonstration_facts(demonstration),
        "source": demonstration.source,
        "image_sha256": demonstration.prompt.image.sha256,
    }


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _image(ref: ImageRef, pictures: Pictures) -> dict[str, Any]:
    if pictures.mode != "copy":
        return {"bytes": None, "path": pictures.absolute_path_of(ref)}
    picture = pictures.embedded(ref)
    return {"bytes": picture.data, "path": picture.name}


def _write_table(
    path: Path, columns: Sequence[tuple[str, pa.DataType]], rows: Iterable[dict[str, Any]]
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"huggingface": json.dumps({"info": {"features": _FEATURES}})}
    schema = pa.schema(columns, metadata=metadata)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in _groups(rows):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
    return path


def _groups(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(rows)
    while group := list(islice(iterator, ROWS_PER_GROUP)):
        yield group


def usage(name: str, kinds: Sequence[str]) -> str:
    """How to train on the files, in Markdown. `name` is the data set's, `kinds` those written."""
    trainer = "trl.DPOTrainer" if "pairs" in kinds else "trl.SFTTrainer"
    return (
        "```python\n"
        "from datasets import load_dataset\n\n"
        f'rows = load_dataset("PATH", "{kinds[0]}", split="train")\n'
        "```\n\n"
        f"`{trainer}` takes `rows` as they are; `processing_class` is the model's processor."
    )
