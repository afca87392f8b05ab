"""A PostgreSQL of Debian's package, started for a test in a folder of its own."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.ports import free_port

INSTALL = ["apt-get", "install", "--yes", "--no-install-recommends", "postgresql"]


@cache
def unavailable() -> str:
    """Why no PostgreSQL can be started here; "" where one can."""
    if _binaries() is None:
        _install()
    if _binaries() is None:
        return f"PostgreSQL is not installed, and could not be: run `{' '.join(INSTALL)}` as root"
    if os.geteuid() == 0 and _user() is None:
        return "PostgreSQL refuses to run as root, and there is no other user to run it"
    return ""


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The URL, for Prefect, of a fresh database on loopback."""
    binaries = _binaries()
    assert binaries is not None, unavailable()
    folder = Path(tempfile.mkdtemp(prefix="csr-postgres-"))
    if user := _user():
        shutil.chown(folder, user)
    data, port = folder / "data", free_port()
    _run(binaries / "initdb", "-D", data, "-U", "prefect", "--auth=trust", "--no-sync")
    options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off"
    _run(binaries / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start")
    try:
        _run(binaries / "createdb", "-h", "127.0.0.1", "-p", port, "-U", "prefect", "prefect")
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/prefect"
    finally:
        _run(binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def _binaries() -> Path | None:
    """Where Debian keeps the server's programs: outside of PATH, by version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


def _install() -> None:
    """Only where that needs nobody's password and changes nobody's own machine by surprise."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None or not os.environ.get("CI"):
        return
    for command in (["apt-get", "update"], INSTALL):
        subprocess.run(command, capture_output=True, check=False, timeout=300)


def _user() -> str | None:
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres").pw_name
    return None


def _run(*command: object) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        user=_user(),
        env={**os.environ, "LC_ALL": "C"},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
