"""Hugging Face datasets: by hub id, from a folder of data files, or as `save_to_disk` left them.

`hf:owner/name`, with `:config` and `@split` behind it where they are needed. Data are taken in
Arrow's own form, so that the datasets library decodes no image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from csr.errors import ConfigError, DataError, shown
from csr.prompt_files import PromptFiles, RawRecords, image_root
from csr.readers._tables import Chosen, Row, choose, entries

SETTINGS = frozenset({"images", "image_prefix", "columns", "instruction", "split"})
PREFIX = "hf:"
DEFAULT_SPLIT = "train"
_HUB = re.compile(
    r"hf:(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^@:]+))?(?:@(?P<split>[\w.\[\]:%+-]+))?"
)
_SAVED = ("dataset_info.json", "state.json")
_SAVED_SPLITS = "dataset_dict.json"
_ROWS_AT_ONCE = 1024


def recognises(prompts: str) -> bool:
    """A hub id, or a folder that `save_to_disk` wrote."""
    return prompts.startswith(PREFIX) or _is_saved(Path(prompts))


def build(files: PromptFiles) -> RawRecords:
    """Every row of the split. DataError where there is no such dataset, split or column."""
    place, root = files.prompts, image_root(files)
    if place.startswith(PREFIX):
        dataset = _from_hub(files)
    else:
        dataset = _from_folder(Path(place), files.split)
        root = root or Path(place)  # a folder of images names them by absolute paths
    table = dataset.with_format("arrow")
    chosen = choose(table.features.arrow_schema, files, place)
    records = list(entries(_rows(table, place, chosen), chosen))
    if not records:
        raise DataError(f"{place} has no rows. It needs at least one record.")
    return RawRecords(place=place, entries=records, image_root=root)


def _rows(table: Any, place: str, chosen: Chosen) -> Iterator[Row]:
    images = table.select_columns([chosen.image])
    names = list(dict.fromkeys(chosen.columns.values()))
    texts = table.select_columns(names)
    for start in range(0, len(table), _ROWS_AT_ONCE):
        end = min(start + _ROWS_AT_ONCE, len(table))
        batch: Any = texts[start:end] if names else None
        for number in range(start, end):
            yield Row(
                where=f"{place}, row {number + 1}",
                cells={name: batch[name][number - start] for name in names},
                has_image=True,  # told as it is read
                load_image=partial(_image_cell, images, number),
            )


def _image_cell(images: Any, number: int) -> pa.Scalar:
    return images[number : number + 1].column(0)[0]


def _from_hub(files: PromptFiles) -> Any:
    found = _HUB.fullmatch(files.prompts)
    if found is None:
        raise ConfigError(
            f"data.prompts: {shown(files.prompts)} is no dataset's id. Write "
            "hf:owner/name[:config][@split]."
        )
    if files.split is not None:
        raise ConfigError(
            f"data.split would have no effect on a hub id. Write {files.prompts.split('@')[0]}"
            f"@{files.split}."
        )
    if Path(found["name"]).exists():  # the library would take it for the hub's, unasked
        raise ConfigError(
            f"data.prompts: {found['name']} is also a folder here, and which of the two is meant "
            "is unclear. Write the folder's path without hf:, or start csr in another folder."
        )
    return _loaded(found["name"], found["config"], found["split"] or DEFAULT_SPLIT, files.prompts)


def _from_folder(folder: Path, split: str | None) -> Any:
    if not folder.is_dir():
        raise DataError(
            f"{folder} is no folder. Name a dataset's folder, or a hub id as hf:owner/name."
        )
    if not _is_saved(folder):
        return _loaded(str(folder), None, split or DEFAULT_SPLIT, str(folder))
    with _Faults(str(folder)):
        from datasets import Dataset, load_from_disk

        saved = load_from_disk(str(folder))
        splits = {DEFAULT_SPLIT: saved} if isinstance(saved, Dataset) else dict(saved)
    asked = split or (next(iter(splits)) if len(splits) == 1 else DEFAULT_SPLIT)
    if asked not in splits:
        raise DataError(
            f"{folder} has no split {shown(asked)}, only {', '.join(map(shown, splits))}. Name one "
            "of them in data.split."
        )
    return splits[asked]


def _loaded(name: str, config: str | None, split: str, place: str) -> Any:
    with _Faults(place):
        from datasets import load_dataset

        return load_dataset(name, config, split=split)


def _is_saved(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    return all((folder / name).is_file() for name in _SAVED) or (folder / _SAVED_SPLITS).is_file()


class _Faults:
    """The datasets library and its file systems raise almost anything: one message for all."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or not isinstance(error, Exception):
            return
        told = " ".join(str(error).split())
        raise DataError(
            f"{self._place} cannot be loaded as a dataset ({kind.__name__}: {told[:300]}). Check "
            "its name, configuration and split, and whether the hub can be reached."
        ) from error
