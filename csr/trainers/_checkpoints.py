"""Checkpoints inside one training: each whole or absent, checked before use, never another's."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csr.files import (
    TEMPORARY_SUFFIX,
    disk_errors,
    file_sha256,
    publish_directory,
    temporary_beside,
)
from csr.trainers._tables import data_sha256

if TYPE_CHECKING:
    from csr.trainers._settings import TrainingSettings
    from csr.types import PolicyRef

logger = logging.getLogger(__name__)

_NUM_KEPT = 2
_SEAL = "checkpoint.json"
"""Written last: which training the checkpoint is of, and the digest of each other file."""
_PACKAGES = ("csr", "accelerate", "peft", "torch", "transformers", "trl")


def training_sha256(
    policy: PolicyRef, data_path: Path, config: TrainingSettings, seed: int, device: str
) -> str:
    """Names a training by all that decides its weights, versions of the libraries included."""
    inputs = {
        "policy": policy.sha256,
        "pairs": data_sha256(data_path),
        "config": config.model_dump(mode="json"),
        "seed": seed,
        "device": device,
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """The newest checkpoints of one training, folders `step-00000050` below `directory`."""

    directory: Path
    training_sha256: str

    def latest(self) -> Path | None:
        """The newest checkpoint. Call `remove_unusable` first: here no byte is checked."""
        return max(self._folders(), default=None)

    def remove_unusable(self) -> None:
        """Remove what cannot be gone on from; a warning names each that is damaged.

        That is: another training's checkpoints, half-written ones, and damaged ones down
        to the newest that is as it was written.
        """
        for folder in self.directory.glob(f".*{TEMPORARY_SUFFIX}"):
            self._drop(folder, "it is half-written")
        for folder in self._folders():
            if self._is_anothers(folder):
                logger.info("Checkpoint %s is of another training: removed", folder)
                shutil.rmtree(folder)
        for folder in sorted(self._folders(), reverse=True):
            problem = _damage(folder)
            if problem is None:
                return
            self._drop(folder, problem)

    def publish(self, step: int, write: Callable[[Path], None]) -> None:
        """Let `write` fill a folder, which then appears whole; only the newest two are kept.

        EnvironmentFault where the disk is full or closed; earlier checkpoints stay as they are.
        """
        final = self.directory / f"step-{step:08d}"
        building = temporary_beside(final)
        try:
            with disk_errors(final):
                building.mkdir(parents=True)
                write(building)
                files = {file.name: file_sha256(file) for file in sorted(building.iterdir())}
                seal = {"training_sha256": self.training_sha256, "files": files}
                (building / _SEAL).write_text(json.dumps(seal, indent=2) + "\n")
            publish_directory(building, final)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        for old in sorted(self._folders())[:-_NUM_KEPT]:
            shutil.rmtree(old)

    def _folders(self) -> list[Path]:
        return list(self.directory.glob("step-*"))

    def _is_anothers(self, folder: Path) -> bool:
        """A seal that cannot be read says nothing of whose it is: that is damage."""
        seal = _read_seal(folder)
        return seal is not None and seal["training_sha256"] != self.training_sha256

    def _drop(self, folder: Path, problem: str) -> None:
        logger.warning(
            "Checkpoint %s is skipped and removed: %s. Training goes on from the one before it, "
            "or from the start.",
            folder,
            problem,
        )
        shutil.rmtree(folder)


def _damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, None where every file is as it was written."""
    seal = _read_seal(folder)
    if seal is None:
        return f"{_SEAL} is missing or damaged"
    for name, sha256 in seal["files"].items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file_sha256(file) != sha256:
            return f"{name} is not as it was written"
    return None


def _read_seal(folder: Path) -> dict[str, Any] | None:
    try:
        seal = json.loads((folder / _SEAL).read_text())
        return seal if {"training_sha256", "files"} <= seal.keys() else None
    except (OSError, ValueError, AttributeError):
        return None
