"""The folder that holds all runs, as every verb opens it."""

from __future__ import annotations

from pathlib import Path

from csr.errors import EnvironmentFault
from csr.files import disk_errors
from storage.run_store import RunStore


def open_store(home: Path) -> RunStore:
    """The runs below `home`, which need not exist yet. EnvironmentFault where it is no folder."""
    try:
        path = home.expanduser().absolute()
        str(path).encode()  # records and tables name their files in UTF-8
        existing = next(p for p in (path, *path.parents) if p.exists())
    except (OSError, RuntimeError, ValueError) as error:  # a name that no file of ours can have
        raise EnvironmentFault(
            f"The home {str(home)[:60]!r} cannot be a folder ({error.__class__.__name__}: "
            f"{getattr(error, 'strerror', None) or error}). Give another one with --home."
        ) from None
    if not existing.is_dir():
        raise EnvironmentFault(
            f"{existing} is a file, so there can be no runs in {path}. Give a folder with --home "
            "(or CSR_HOME)."
        )
    return RunStore(path)


def make_home(home: Path) -> None:
    """The folder itself: Prefect makes its own below it, but not this one."""
    path = open_store(home).home
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
