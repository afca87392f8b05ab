"""Where a recipe's prompts lie, and what every reader of them hands on.

A reader is a module of `csr/readers`, one format a file; the file's name is the format's name.
It offers

- `SETTINGS`: which of `images`, `image_prefix`, `columns`, `instruction` and `split` have an
  effect on it
- `recognises(prompts)`: whether `data.prompts` names data of its format, by content or extension
- `build(files) -> RawRecords`: every record, without any image's bytes

and may say `IS_FALLBACK = True`: what no other reader recognises is read by this one.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from csr.config import ComponentConfig, Location
from csr.errors import DataError
from csr.records import Entry

MAX_FILES = 100_000
"""Files that one recipe may read; more is a pattern that matches too much."""


class Columns(ComponentConfig):
    """The names under which a table, or a sample's JSON, has a record's fields.

    What is left out has CSR's own name where the data have it. Other columns are not read.
    """

    id: str | None = None
    """Default `id`; without such a column a record is named by its number, from 1."""
    image: str | None = None
    """Default `image`."""
    input: str | None = None
    """Default `input`; none where `data.instruction` is asked of every image."""
    reference: str | None = None
    """Default `reference`."""
    dataset: str | None = None
    """Default `dataset`."""
    conversations: str | None = None
    """Turns as LLaVA has them, in place of `input` and `reference`; default `conversations`, where
    there is neither an input nor an instruction."""


class PromptFiles(ComponentConfig):
    """Where prompts are read, and how."""

    prompts: Location
    """File or folder, a pattern of files with `*` and `?`, or `hf:owner/name[:config][@split]`; see
    docs/data_formats.md."""
    images: Location | None = None
    """Folder that the records' image paths are relative to; null where the data hold the images'
    bytes, or say themselves where the images lie."""
    image_prefix: str | None = Field(default=None, min_length=1)
    """What the files' names begin with and the records leave out, such as `COCO_train2014_`."""
    format: str | None = None
    """A module of `csr/readers`; null goes by content and extension."""
    columns: Columns | None = None
    """Column names, where they are not CSR's own."""
    instruction: str | None = Field(default=None, min_length=1)
    """What is asked of every image, for data that hold no question."""
    split: str | None = None
    """Split of a Hugging Face dataset in a local folder; null is `train`, or the only one."""


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedImage:
    """An image that is no file of its own. Its bytes are read when they are wanted."""

    name: str
    """How errors name it."""
    load: Callable[[], bytes | str | None]
    """Its bytes; or its path below the image folder, where the data hold only that; None where
    there is none. DataError where it cannot be read. Cheapest in the order of the records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRecords:
    """What stands in the data, not yet checked."""

    place: str
    """How errors name the data as a whole."""
    entries: Sequence[Entry]
    """Objects of `id`, `image`, `input`, and perhaps `reference` and `dataset`; `image` is a path
    below the image folder, or an `EmbeddedImage`."""
    image_root: Path | None
    """The image folder; None where nothing names one."""
    image_prefix: str = ""
    """What the names of image files begin with, where the records leave it out."""


def image_root(files: PromptFiles) -> Path | None:
    """The folder that the recipe names."""
    return None if files.images is None else Path(files.images)


def is_pattern(prompts: str) -> bool:
    """Whether it stands for any number of files."""
    return "*" in prompts or "?" in prompts


def files_at(prompts: str, suffixes: tuple[str, ...]) -> list[Path]:
    """The plain files that it stands for, sorted; hidden ones are left alone.

    Itself where it is a file; what a pattern matches; a folder's files with one of the suffixes.
    """
    path = Path(prompts)
    if path.is_file():
        return [path]
    if is_pattern(prompts):
        # `[` stands for itself: names of splits and of shards have it.
        found = map(Path, glob.iglob(prompts.replace("[", "[[]")))
        return _limited(prompts, [each for each in found if each.is_file()])
    if path.is_dir():
        named = (each for each in path.iterdir() if each.suffix.lower() in suffixes)
        return _limited(prompts, [f for f in named if f.is_file() and not f.name.startswith(".")])
    return []


def required_files(prompts: str, suffixes: tuple[str, ...]) -> list[Path]:
    """As `files_at`, but at least one. DataError says what was looked for."""
    found = files_at(prompts, suffixes)
    if found:
        return found
    if is_pattern(prompts):
        raise DataError(f"no file matches {prompts}. Check the pattern.")
    if not Path(prompts).exists():
        raise DataError(f"{prompts} does not exist. Check its path.")
    raise DataError(
        f"{prompts} is no file, and no folder that holds {' or '.join(suffixes)} files. Name the "
        "prompts' file, or a folder in one of the layouts that docs/data_formats.md lists."
    )


def head(path: Path, num_bytes: int) -> bytes:
    """The first bytes of a plain file; none of what cannot be read, as its reader will tell."""
    try:
        with path.open("rb") as file:
            return file.read(num_bytes)
    except OSError:
        return b""


def _limited(prompts: str, found: list[Path]) -> list[Path]:
    if len(found) > MAX_FILES:
        raise DataError(f"{prompts} stands for more than {MAX_FILES:,} files. Name fewer.")
    return sorted(found)
