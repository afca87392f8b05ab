"""Finds the reader of a recipe's data, by name or by what the data are."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from csr.errors import ConfigError, DataError
from csr.prompt_files import PromptFiles, RawRecords, is_pattern
from flows.components import components, load

PACKAGE = "csr.readers"
_SETTINGS = ("images", "image_prefix", "columns", "instruction", "split")


def read_records(files: PromptFiles) -> RawRecords:
    """Every record of the data, unchecked. CSRError where they cannot be read as their format."""
    reader = _reader(files)
    _refuse_unused(files, reader)
    records: RawRecords = reader.build(files)
    return replace(records, image_prefix=files.image_prefix or "")


def count_records(files: PromptFiles) -> int | None:
    """How many records there are; None where the data are not here, or are of no use."""
    path = Path(files.prompts)
    if not path.exists() and not is_pattern(files.prompts):
        return None
    try:
        return sum(entry.fault is None for entry in read_records(files).entries)
    except (ConfigError, DataError):
        return None


def check_settings(files: PromptFiles) -> None:
    """ConfigError where the settings contradict each other, or the format has no use for one."""
    if files.instruction is not None and files.columns is not None:
        for name in ("input", "conversations"):
            if getattr(files.columns, name) is not None:
                raise ConfigError(
                    f"data.instruction is asked of every image, so that data.columns.{name} would "
                    "have no effect. Leave one of them out."
                )
    if files.columns is not None and files.columns.conversations is not None:
        for name in ("input", "reference"):
            if getattr(files.columns, name) is not None:
                raise ConfigError(
                    f"data.columns.conversations holds questions and answers, so that "
                    f"data.columns.{name} would have no effect. Leave one of them out."
                )
    if files.format is not None:
        _refuse_unused(files, load(PACKAGE, files.format))


def absolute_pattern(path: Path) -> str | None:
    """A pattern of files as an absolute one; None for what is no pattern."""
    return os.path.abspath(path) if is_pattern(str(path)) else None


def _reader(files: PromptFiles) -> ModuleType:
    if files.format is not None:
        return load(PACKAGE, files.format)
    readers = components(PACKAGE)
    found = [name for name, reader in readers.items() if reader.recognises(files.prompts)]
    if len(found) > 1:
        raise ConfigError(
            f"{files.prompts} may be read as {' or '.join(found)}. Say in data.format which is "
            "meant."
        )
    if found:
        return readers[found[0]]
    (fallback,) = (each for each in readers.values() if getattr(each, "IS_FALLBACK", False))
    return fallback


def _refuse_unused(files: PromptFiles, reader: ModuleType) -> None:
    unused = [
        name
        for name in _SETTINGS
        if getattr(files, name) is not None and name not in reader.SETTINGS
    ]
    if unused:
        raise ConfigError(
            f"data.{unused[0]} would have no effect on data in the format {_name(reader)!r}. Leave "
            "it out, or say in data.format how the data are to be read."
        )


def _name(reader: ModuleType) -> str:
    return reader.__name__.rpartition(".")[2]
