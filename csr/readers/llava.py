"""LLaVA's training data: JSON or JSON Lines files beside a folder of images.

`[{"id": "1", "image": "coco/1.jpg", "conversations": [{"from": "human", "value": "<image>\\nWhat
is this?"}, {"from": "gpt", "value": "A dog."}]}]`

What becomes of the turns is told in `csr/readers/_conversations.py`. Other keys are not read.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from csr.prompt_files import (
    PromptFiles,
    RawRecords,
    files_at,
    head,
    image_root,
    required_files,
)
from csr.readers._conversations import Conversations
from csr.records import BadRecordError, Entry, read_entries

SETTINGS = frozenset({"images", "image_prefix"})
SUFFIXES = (".json", ".jsonl")
_HEAD_BYTES = 2**16
_KEY = re.compile(rb'(?<!\\)"conversations"\s*:')
"""A key, since a quotation mark within a JSON text has a backslash."""


def recognises(prompts: str) -> bool:
    """Whether the first file begins with a record that has `conversations`."""
    found = files_at(prompts, SUFFIXES)
    first = head(found[0], _HEAD_BYTES) if found else b""
    is_json = first.removeprefix(codecs.BOM_UTF8).lstrip().startswith((b"[", b"{"))
    return is_json and _KEY.search(first) is not None


def build(files: PromptFiles) -> RawRecords:
    """An entry for each question of each conversation."""
    found = required_files(files.prompts, SUFFIXES)
    return RawRecords(
        place=files.prompts, entries=list(_entries(found)), image_root=image_root(files)
    )


def _entries(paths: list[Path]) -> Iterator[Entry]:
    conversations = Conversations()
    for path in paths:
        for entry in read_entries(path):
            try:
                record = entry.record()
            except BadRecordError:
                yield entry  # told when it is checked
            else:
                yield from conversations.entries(entry.position, entry.where, record)
