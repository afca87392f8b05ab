"""POPE's questions: the authors' own files, or records of ours.

The authors' files are JSON Lines, one file a split, whose name ends in `pope_<split>.json`:
`{"question_id": 1, "image": "COCO_val2014_000000310196.jpg", "text": "Is there a snowboard in the
image?", "label": "yes"}`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from csr.errors import DataError, shown
from csr.evaluation._answers import LABELS
from csr.evaluation._records import read_records
from csr.records import Record, prompt_id, read_entries, text_field

SPLITS = ("random", "popular", "adversarial")
QUESTIONS_A_SPLIT = 3000
"""In the authors' files of today; copies that go round have 2,910 random ones."""

_SPLIT_NAME = re.compile(r"(random|popular|adversarial)\.jsonl?$")
_MISSPELT = re.compile(r"\bimange\b")


@dataclass(frozen=True, slots=True)
class PopeFiles:
    """Questions as records with `id`, `image`, `input`, `label` and `split`."""

    records: list[Record]
    facts: dict[str, float]
    """What the files are known to differ in, counted: misspelt questions, questions that miss."""


def read_pope(path: Path) -> PopeFiles:
    """From the authors' folder of three files, from one of its files, or from our own form.

    DataError names the record that has not the form, or says which files are missing.
    """
    if path.is_dir():
        files = _split_files(path)
        records = [record for split, file in files.items() for record in _official(file, split)]
        return PopeFiles(records, _facts(records, is_official=True))
    first = read_entries(path)[0].value
    if isinstance(first, dict) and "text" in first and "input" not in first:
        records = _official(path, _split_of(path))
        return PopeFiles(records, _facts(records, is_official=True))
    records = read_records(path, _check_record)
    return PopeFiles(records, _facts(records, is_official=False))


def _facts(records: Sequence[Record], *, is_official: bool) -> dict[str, float]:
    facts = {"pope_num_misspelt_prompts": sum(bool(_MISSPELT.search(r["input"])) for r in records)}
    if is_official:
        missing = [max(0, QUESTIONS_A_SPLIT - n) for n in _sizes(records).values()]
        facts["pope_num_missing_prompts"] = sum(missing)
    return {name: float(count) for name, count in facts.items()}


def _sizes(records: Sequence[Record]) -> Counter[str]:
    return Counter(record["split"] for record in records)


def _split_files(folder: Path) -> dict[str, Path]:
    """Split -> its file. A folder with files of two sets (COCO, A-OKVQA) is not guessed about."""
    found: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for file in sorted(folder.iterdir()):
        match = _SPLIT_NAME.search(file.name)
        if match:
            found[match[1]].append(file)
    wrong = {split: files for split, files in found.items() if len(files) != 1}
    if wrong:
        told = "; ".join(
            f"{split}: {', '.join(file.name for file in files) or 'none'}"
            for split, files in wrong.items()
        )
        raise DataError(
            f"{folder} must hold one file a split, named like coco_pope_random.json ({told}). Put "
            "the three files of one set into a folder of their own, or name one file."
        )
    return {split: files[0] for split, files in found.items()}


def _split_of(file: Path) -> str:
    match = _SPLIT_NAME.search(file.name)
    if match is None:
        raise DataError(
            f"{file} holds POPE's own records, but its name does not say the split. Name it as the "
            "authors do, like coco_pope_adversarial.json."
        )
    return match[1]


def _official(path: Path, split: str) -> list[Record]:
    """The authors' records in our form; an id is "<split>-<question_id>"."""
    records: list[Record] = []
    for entry in read_entries(path):
        given, where = entry.record(), entry.where
        number = prompt_id({"id": given.get("question_id")}, where)
        record = {
            "id": f"{split}-{number}",
            "image": text_field(given, "image", where),
            "input": text_field(given, "text", where),
            "label": given.get("label"),
            "split": split,
        }
        _check_record(record, where)
        records.append(record)
    repeated = [name for name, count in Counter(r["id"] for r in records).items() if count > 1]
    if repeated:
        raise DataError(
            f"{path}: the question_id of {shown(repeated[0])} stands twice. Give each its own."
        )
    return records


def _check_record(record: Record, where: str) -> None:
    for key, allowed in (("label", LABELS), ("split", SPLITS)):
        if record.get(key) not in allowed:
            raise DataError(
                f"{where} ({shown(record['id'])}): {key!r} is {shown(record.get(key))}, but "
                f"must be one of {', '.join(allowed)}."
            )
