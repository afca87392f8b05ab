"""What a stage's fingerprint is made of: everything that changes its result, and no more.

Files count by content and not by place. Settings that only change speed (batch sizes, memory
shares) count too: on real hardware they move the last digits of a log-probability.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from csr.config import locations
from csr.files import file_sha256
from csr.protocols import Json
from csr.types import Prompt
from flows.components import Component
from storage.attempt import AttemptDir

IMAGE_FOLDERS = ("images",)
"""Settings that name one."""
_READ_SUFFIXES = (".json", ".jsonl", ".txt", ".safetensors")
"""What models and benchmarks read in a folder."""


def prompt_inputs(prompts: Sequence[Prompt]) -> list[list[str]]:
    """What each prompt contributes: not where its image lies."""
    return [[p.prompt_id, p.text, p.image.sha256, p.reference or ""] for p in prompts]


def component_inputs(component: Component | None) -> Json | None:
    """A component's settings, with every file, and every folder of a model or of annotations, as
    the digest of its content. Folders of images are left out: what is read there is an input of
    its own.
    """
    if component is None:
        return None
    settings = component.model_dump(mode="json")
    for name, value in locations(component.settings).items():
        if name in IMAGE_FOLDERS:
            del settings[name]
        elif (path := Path(value)).exists():
            settings[name] = _digest(path)
    return settings


def table_inputs(attempt: AttemptDir, stage: str, table: str) -> list[str]:
    """Digests of the files that an earlier stage of the attempt wrote to a table, by name."""
    records = [record for record in attempt.manifest.read().stages if record.stage == stage]
    files = [file for record in records for file in record.files if file.table == table]
    return [file.sha256 for file in sorted(files, key=lambda file: file.path)]


def _digest(path: Path) -> str:
    if path.is_file():
        return _sha256_of(path)
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if file.suffix in _READ_SUFFIXES and file.is_file():
            digest.update(f"{file.name} {_sha256_of(file)}\n".encode())
    return digest.hexdigest()


def _sha256_of(file: Path) -> str:
    facts = file.stat()
    return _cached_sha256(file, facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=1024)
def _cached_sha256(file: Path, mtime_ns: int, size: int) -> str:
    """Read once a process while the file's time and size stay."""
    return file_sha256(file)
