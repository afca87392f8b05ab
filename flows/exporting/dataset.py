"""An iteration's pairs and demonstrations as the files of another trainer, with a card."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from csr.protocols import Json
from flows.exporting.dataset_card import write_card
from flows.exporting.lessons import read_lessons, usable
from flows.exporting.pictures import Pictures
from flows.exporting.request import ImagesMode
from flows.exporting.subject import Subject, verified


def write_dataset(
    subject: Subject, format_name: str, images: ImagesMode, folder: Path, final: Path
) -> Json:
    """Fill `folder`, which will be called `final`; what was written, in numbers.

    DataError where pairing is not done, a table is damaged, or an image changed since the run.
    """
    verified(subject.attempt, "pair")
    module: Any = importlib.import_module(
        f"flows.exporting.formats.{format_name.replace('-', '_')}"
    )
    lessons = usable(read_lessons(subject.attempt), module.MARKERS)
    pictures = Pictures(mode=images, folder=folder, final=final)
    files = module.write(lessons, pictures, folder, subject.slug)
    write_card(subject, lessons, files, pictures, folder, module=module, format_name=format_name)
    return {
        "counts": {file.kind: file.num_rows for file in files} | {"images": pictures.count},
        "left_out": lessons.left_out,
        "policy": subject.manifest.policy_in,
    }
