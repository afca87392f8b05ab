"""WebDataset's shards: tar files in which a sample's files share a name up to the first dot.

`0001.jpg`, `0001.json`, `0001.txt` are the sample `0001`. Nothing is extracted, and a name in an
archive never becomes a path: files are read where they lie within the shard. The `webdataset`
library is not used, because it unpickles by file extension and runs `pipe:` addresses in a shell.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from csr.errors import DataError, shown
from csr.images import MAX_IMAGE_BYTES, too_many_bytes
from csr.prompt_files import (
    Columns,
    EmbeddedImage,
    PromptFiles,
    RawRecords,
    files_at,
    head,
    required_files,
)
from csr.readers._conversations import Conversations, no_image
from csr.records import BadRecordError, Entry, Record, parse_json

SETTINGS = frozenset({"columns", "instruction"})
SUFFIXES = (".tar",)
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "gif")
MAX_TEXT_BYTES = 2**20
"""Bytes of one sample's JSON or text."""
_BLOCK_BYTES = 2**20
_MAGIC, _MAGIC_AT = b"ustar", 257
_FIELDS = ("id", "input", "reference", "dataset")


def recognises(prompts: str) -> bool:
    """Whether its files are tar archives, by their content."""
    found = files_at(prompts, SUFFIXES)
    first = head(found[0], _MAGIC_AT + len(_MAGIC)) if found else b""
    return first[_MAGIC_AT:] == _MAGIC


def build(files: PromptFiles) -> RawRecords:
    """An entry for each sample of each shard. DataError where a shard is no plain tar file."""
    found = required_files(files.prompts, SUFFIXES)
    reader = _Records(files)
    entries = [
        entry for path in found for sample in _samples(path) for entry in reader.entries(sample)
    ]
    if not entries:
        raise DataError(f"{files.prompts} has no samples. It needs at least one record.")
    return RawRecords(place=files.prompts, entries=entries, image_root=None)


@dataclass(slots=True)
class _Sample:
    """Files of one name, by extension."""

    shard: Path
    key: str
    files: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    fault: str = ""

    @property
    def where(self) -> str:
        """How errors name it."""
        return f"{self.shard}, sample {shown(self.key)}"

    def read(self, extension: str) -> bytes:
        """The bytes of one of its files, which lie in one piece."""
        member = self.files[extension]
        with _faults(self.shard), self.shard.open("rb") as file:
            file.seek(member.offset_data)
            data = file.read(member.size)
        if len(data) < member.size:
            raise DataError(f"{self.shard} ends within {shown(member.name)}. Fetch it again.")
        return data

    def text(self, extension: str) -> str:
        """The same as text. BadRecordError where it is too long or not UTF-8."""
        if self.files[extension].size > MAX_TEXT_BYTES:
            raise BadRecordError(
                f"{self.where}: its .{extension} is larger than {MAX_TEXT_BYTES:,} bytes. Shorten "
                "it."
            )
        try:
            return self.read(extension).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadRecordError(
                f"{self.where}: its .{extension} is not UTF-8 ({error}). Mend it."
            ) from error


class _Records:
    """Makes a record of a sample: its JSON's fields, its text, and its image."""

    def __init__(self, files: PromptFiles) -> None:
        self._columns = files.columns or Columns()
        self._instruction = files.instruction
        self._conversations = Conversations()
        self._num = 0

    def entries(self, sample: _Sample) -> Iterator[Entry]:
        self._num += 1
        record: Record = {"id": sample.key}
        try:
            if sample.fault:
                raise BadRecordError(f"{sample.where}: {sample.fault}")
            image = self._image(sample)
            record |= {"image": image} | self._fields(sample)
        except BadRecordError as error:
            yield Entry(self._num, sample.where, record, error)
            return
        if "conversations" in record:
            yield from self._conversations.entries(self._num, sample.where, record)
        else:
            yield Entry(self._num, sample.where, record, no_image(image, sample.where))

    def _image(self, sample: _Sample) -> EmbeddedImage | None:
        named = self._columns.image
        wanted = (named.lower().removeprefix("."),) if named else IMAGE_EXTENSIONS
        found = [extension for extension in wanted if extension in sample.files]
        if len(found) > 1:
            raise BadRecordError(
                f"{sample.where}: it has several images (.{', .'.join(found)}). Say in "
                "data.columns.image which extension is meant."
            )
        if not found:
            return None
        name = f"{sample.shard}/{sample.key}.{found[0]}"
        name = name if name.isprintable() else shown(name)
        return EmbeddedImage(name, partial(_image_bytes, sample, found[0], name))

    def _fields(self, sample: _Sample) -> Record:
        """From the JSON, where it has them; the text is asked, or is the reference of what is."""
        given = _json_of(sample)
        names = {name: getattr(self._columns, name) or name for name in _FIELDS}
        found = {name: self._value(sample, given, key) for name, key in names.items()}
        chosen = self._columns.conversations
        if chosen is not None or (
            "conversations" in given and self._instruction is None and found["input"] is None
        ):
            found["conversations"] = given.get(chosen or "conversations")
        text = "reference" if self._instruction is not None else "input"
        is_named = getattr(self._columns, text) is not None
        if "conversations" not in found and found[text] is None and not is_named:
            found[text] = self._value(sample, given, "txt")
        if self._instruction is not None:
            found["input"] = self._instruction
        return {name: value for name, value in found.items() if value is not None}

    def _value(self, sample: _Sample, given: Record, key: str) -> Any:
        """Of the JSON's key; the name `txt` is the text itself."""
        if key == "txt":
            return sample.text("txt").strip() if "txt" in sample.files else None
        return given.get(key)


def _json_of(sample: _Sample) -> Record:
    if "json" not in sample.files:
        return {}
    try:
        value = parse_json(sample.text("json"), f"{sample.where}, .json")
    except BadRecordError:
        raise
    except DataError as error:
        raise BadRecordError(str(error)) from error
    return Entry(0, sample.where, value).record()


def _image_bytes(sample: _Sample, extension: str, name: str) -> bytes:
    if sample.files[extension].size > MAX_IMAGE_BYTES:
        raise too_many_bytes(name)
    return sample.read(extension)


def _samples(path: Path) -> Iterator[_Sample]:
    """The shard's samples: neighbouring files of one name, as the format has them."""
    sample: _Sample | None = None
    for member in _members(path):
        folder, _, name = member.name.rpartition("/")
        stem, dot, extension = name.partition(".")
        if not dot or not stem:
            continue  # no sample's file: the format names them all with an extension
        key = f"{folder}/{stem}" if folder else stem
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = _Sample(path, key)
        _add(sample, extension.lower(), member)
    if sample is not None:
        yield sample


def _add(sample: _Sample, extension: str, member: tarfile.TarInfo) -> None:
    if not member.isreg() or member.issparse():
        sample.fault = f"its .{extension} is a link, a device or full of holes. Store it plainly."
    elif extension in sample.files:
        sample.fault = f"its .{extension} stands twice, and one would go unnoticed. Remove one."
    sample.files[extension] = member


def _members(path: Path) -> Iterator[tarfile.TarInfo]:
    """What the archive holds, but for folders."""
    with (
        _faults(path),
        _Capped(io.FileIO(path)) as file,
        tarfile.open(fileobj=file, mode="r:") as archive,
    ):
        end = 0
        for member in archive:
            if member.size < 0 or member.offset_data < end:  # it would go round for ever
                raise tarfile.ReadError("a header points backwards")
            end = member.offset_data
            if not member.isdir():
                yield member
        file.seek(archive.offset)
        # The library takes a damaged header for the end of the archive, and looks no further: not
        # at a second archive behind the first either.
        if not (block := file.read(_BLOCK_BYTES)) or _has_content(block, file):
            raise tarfile.ReadError(f"it is cut or damaged at byte {archive.offset:,}")


def _has_content(block: bytes, file: io.BufferedReader) -> bool:
    while block:
        if block.strip(b"\0"):
            return True
        block = file.read(_BLOCK_BYTES)
    return False


class _Capped(io.BufferedReader):
    """A header may ask for all of the file as a name; nothing of that size is read at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0 or size > MAX_IMAGE_BYTES:
            raise tarfile.ReadError("a header is far too long")
        return super().read(size)


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} cannot be read as a plain tar file ({error}). Fetch it again; a compressed "
            "one must be unpacked to .tar first."
        ) from error
