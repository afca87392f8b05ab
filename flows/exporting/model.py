"""An iteration's policy as a folder that transformers or PEFT loads, with a card."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from csr.errors import ConfigError, DataError
from csr.files import file_sha256
from csr.protocols import Json
from flows.exporting.adapter import write_adapter
from flows.exporting.lineage import hub_id
from flows.exporting.model_card import write_card
from flows.exporting.request import What
from flows.exporting.subject import Subject, policies_to, verified
from storage.atomic import require_free_space
from storage.manifest import FileRecord

ENDED = ("done", "held")
"""What an attempt is at its end."""


def write_model(
    subject: Subject, what: What, folder: Path, *, base_model: str | None, for_hub: bool
) -> Json:
    """Fill `folder`; what was written, in numbers.

    DataError where the iteration is half finished or damaged; ConfigError for an adapter that
    goes to a hub and whose base has no name there.
    """
    if subject.manifest.status not in ENDED:
        raise DataError(
            f"{subject.id} is half finished ({subject.manifest.status}): its policy is not yet "
            "trained, evaluated and judged. The command that began it, without --until, goes on "
            "with it."
        )
    for stage in ("train", "evaluate", "gate"):
        verified(subject.attempt, stage)
    counts = (_merged if what == "merged" else _adapter)(subject, folder, base_model, for_hub)
    write_card(subject, what, folder, base_model, counts)
    return {"counts": counts, "left_out": {}, "policy": subject.manifest.policy_out}


def _merged(subject: Subject, folder: Path, base_model: str | None, for_hub: bool) -> Json:
    """The whole model, byte for byte."""
    prefix = "policy/model/"
    record = verified(subject.attempt, "train")
    files = [file for file in record.files if file.path.startswith(prefix)]
    require_free_space(folder.parent, sum(file.size_bytes for file in files), "--output")
    _copy(files, subject.attempt.path, prefix, folder)
    weights = [file for file in files if file.path.endswith(".safetensors")]
    return {"files": len(files), "weight_bytes": sum(file.size_bytes for file in weights)}


def _copy(files: Sequence[FileRecord], source: Path, prefix: str, folder: Path) -> None:
    for file in files:
        target = folder / file.path.removeprefix(prefix)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file.path, target)
        if file_sha256(target) != file.sha256:
            raise DataError(f"{source / file.path} changed while it was copied. Export again.")


def _adapter(subject: Subject, folder: Path, base_model: str | None, for_hub: bool) -> Json:
    """All iterations' adapters as one for the base model."""
    base = hub_id(subject, base_model)
    if base is None and for_hub:
        raise ConfigError(
            "An adapter on a hub must say which model there it is for, and the recipe names a "
            "directory. Give --base-model owner/name, or push the merged model: --what merged."
        )
    if subject.lineage_problem:
        raise DataError(
            f"{subject.lineage_problem} So the way from the base model to {subject.id} is not "
            "whole, and no adapter can say it. Export the merged model: --what merged."
        )
    attempts = list(policies_to(subject))
    for attempt in attempts:
        verified(attempt, "train")
    adapters = [attempt.policy / "adapter" for attempt in attempts]
    rank = write_adapter(adapters, folder, base or subject.base.model_path)
    return {"adapters": len(adapters), "rank": rank}
