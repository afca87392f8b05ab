"""Prompts in each format that is read, written by the library that owns the format."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from csr.prompt_files import PromptFiles
from csr.prompt_images import ImagePlace
from csr.prompts import BadRecordPolicy, LoadedPrompts, checked_prompts
from flows.reading import read_records


@dataclass(frozen=True)
class Sample:
    """One image and what is asked of it."""

    id: str
    image: bytes
    input: str = "What is shown?"
    reference: str | None = None


def picture(number: int, kind: str = "PNG") -> bytes:
    """An image file that no other number gives."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (number % 256, number // 256, 77)).save(buffer, kind)
    return buffer.getvalue()


def samples(num: int, start: int = 0) -> list[Sample]:
    return [
        Sample(f"s{n}", picture(n), f"What is in picture {n}?", f"Picture {n}.")
        for n in range(start, start + num)
    ]


def embedded(given: Sequence[Sample]) -> pa.Table:
    """Images as `struct<bytes, path>`."""
    return pa.table(
        {
            "id": [each.id for each in given],
            "image": [{"bytes": each.image, "path": f"{each.id}.png"} for each in given],
            "input": [each.input for each in given],
            "reference": [each.reference for each in given],
        }
    )


def write_parquet(path: Path, given: Sequence[Sample], **options: Any) -> Path:
    pq.write_table(embedded(given), path, **options)
    return path


def write_files(folder: Path, given: Sequence[Sample]) -> Path:
    """Each image as a file `<id>.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in given:
        (folder / f"{each.id}.png").write_bytes(each.image)
    return folder


def write_coco(folder: Path, num: int, split: str = "train2014") -> Path:
    """Official layout and fields; two captions an image, the second one listed first."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / split).mkdir()
    images, captions = [], []
    for n in range(1, num + 1):
        name = f"COCO_{split}_{n:012}.jpg"
        (folder / split / name).write_bytes(picture(n, "JPEG"))
        images.append({"id": n, "file_name": name, "height": 6, "width": 8, "license": 3})
        captions += [
            {"image_id": n, "id": 1000 + n, "caption": f"Another caption of {n}."},
            {"image_id": n, "id": n, "caption": f"Caption of {n}."},
        ]
    value = {"info": {}, "licenses": [], "images": images, "annotations": captions}
    (folder / "annotations" / f"captions_{split}.json").write_text(json.dumps(value))
    return folder


def read(
    prompts: Path | str,
    kept: Path | None = None,
    *,
    image_place: ImagePlace | None = None,
    on_bad_record: BadRecordPolicy = "skip",
    **settings: Any,
) -> LoadedPrompts:
    """What a run reads, its bytes placed below `kept`; bad records are left out."""
    files = PromptFiles.model_validate({"prompts": str(prompts), **settings})
    return checked_prompts(
        read_records(files),
        image_place=image_place or (kept.joinpath if kept else None),
        on_bad_record=on_bad_record,
        max_bad_share=1.0,
    )
