"""What the shell offers at the Tab key: runs and iterations that are there.

Called by the scripts of `csr completion` through cyclopts. A look at folders' names alone: it
reads no table and loads no package, so it answers at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclopts.completion import CompletionContext

DEFAULT_HOME = Path("runs")


def run_ids(context: CompletionContext) -> list[str]:
    """The runs in the home that the command line or `CSR_HOME` names, newest first."""
    home = _home(context)
    records = [(path.stat().st_mtime, path.parent.name) for path in home.glob("*/run.json")]
    return [name for _, name in sorted(records, reverse=True)]


def iteration_ids(context: CompletionContext) -> list[str]:
    """`RUN/NN` of each run; `RUN/NN.A` too once a `.` behind the iteration asks for attempts."""
    asks_attempts = "." in context.incomplete.rpartition("/")[2]
    found = []
    for run_id in run_ids(context):
        for iteration in _children(_home(context) / run_id / "iterations"):
            found.append(f"{run_id}/{iteration.name}")
            if asks_attempts:
                attempts = _children(iteration / "attempts")
                found += [f"{run_id}/{iteration.name}.{attempt.name}" for attempt in attempts]
    return found


def _children(folder: Path) -> Iterator[Path]:
    """Its folders, in order of their names, numbers by value."""
    folders = [path for path in folder.glob("*") if path.is_dir()]
    yield from sorted(folders, key=lambda path: (len(path.name), path.name))


def _home(context: CompletionContext) -> Path:
    given = context.get("home")
    if given is not None and isinstance(given.value, Path) and given.provided:
        return given.value.expanduser()
    return Path(os.environ.get("CSR_HOME") or DEFAULT_HOME).expanduser()
