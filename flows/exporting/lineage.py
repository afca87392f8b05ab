"""Where weights come from, as cards tell it."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from flows.exporting.subject import Subject
from flows.inert import as_code


def hub_id(subject: Subject, given: str | None = None) -> str | None:
    """The base model's hub id: as given, or where the recipe names one; None for a directory."""
    if given is not None:
        return given
    name = str(subject.config["policy"]["model"])
    return name if name.count("/") == 1 and not name.startswith((".", "/", "~")) else None


def base_label(subject: Subject, given: str | None = None) -> str:
    """The base model for people: its hub id, or the name of its directory."""
    known = hub_id(subject, given)
    if known is not None:
        return as_code(known)
    name = as_code(PurePath(str(subject.config["policy"]["model"])).name)
    if subject.config.get("world") is not None:
        return f"{name} of CSR's embedded tiny world"
    return f"{name} (a directory of whoever made this; it has no known name on a hub)"


def about_policy(name: str, sha256: str) -> str:
    """Name and digest of weights."""
    return f"{as_code(name)}, weights sha256 {as_code(sha256)}"


def recipe_rows(subject: Subject, given: str | None = None) -> list[tuple[str, str]]:
    """Run, iteration, attempt, recipe, seed and versions; `given` as in `hub_id`."""
    manifest, base_sha256 = subject.manifest, as_code(subject.base.sha256)
    return [
        ("run", as_code(manifest.run_id)),
        ("iteration", str(manifest.iteration)),
        ("attempt", str(manifest.attempt)),
        *([("rerun of", as_code(manifest.rerun_of))] if manifest.rerun_of else []),
        ("recipe", as_code(subject.run.recipe)),
        ("recipe's configuration, sha256", as_code(subject.run.config_sha256)),
        ("seed", str(manifest.seed)),
        ("source", as_code(_named(manifest.config.get("source")))),
        ("trainer", as_code(_named(manifest.config.get("trainer")))),
        (
            "base model",
            f"{base_label(subject, given)}, weights sha256 {base_sha256}",
        ),
        ("made at", manifest.created_at),
        ("csr", as_code(manifest.code_version)),
    ]


def _named(component: Any) -> str:
    return str(component["name"]) if isinstance(component, dict) else str(component)
