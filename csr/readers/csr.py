"""CSR's own form: JSON or JSON Lines files beside a folder of images.

- JSON as CSR published it: `[{"id": 42, "image": "000000000042.jpg", "input": "Describe ..."}]`
- JSON Lines: one such object a line.
"""

from __future__ import annotations

from csr.prompt_files import PromptFiles, RawRecords, image_root, required_files
from csr.records import read_entries

IS_FALLBACK = True
SETTINGS = frozenset({"images", "image_prefix"})
SUFFIXES = (".jsonl", ".json")


def recognises(prompts: str) -> bool:
    """Nothing sets it apart but that it is none of the others."""
    return False


def build(files: PromptFiles) -> RawRecords:
    """Every record of every file."""
    found = required_files(files.prompts, SUFFIXES)
    return RawRecords(
        place=files.prompts,
        entries=[entry for path in found for entry in read_entries(path)],
        image_root=image_root(files),
    )
