"""A real Prefect server of the tests' own: loopback, a new database, web pages and all services."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows import environment
from flows.server import stop, wait_until_healthy

ROOT = Path(__file__).parents[1]

STARTUP_SECONDS = 180.0


@contextmanager
def prefect_server(tmp_path: Path, database_url: str | None = None) -> Iterator[str]:
    """The URL of its API, such as "http://127.0.0.1:40123/api"; its web pages are beside it.

    `database_url` is SQLAlchemy's; without one, an SQLite file below `tmp_path`, new at first use.
    What the server says is in `tmp_path/server.log`. It ends with the process that started it.
    """
    port = free_port()
    api_url = f"http://127.0.0.1:{port}/api"
    settings = {
        "PREFECT_UI_ENABLED": "1",
        "PREFECT_UI_API_URL": api_url,
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
    }
    if database_url is not None:
        settings["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database_url
    with (tmp_path / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.server", str(port), str(os.getpid())],
            env=clean_environment(tmp_path) | settings,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until_healthy(api_url, process, STARTUP_SECONDS)
        yield api_url
    finally:
        stop(process)


def clean_environment(home: Path, api_url: str | None = None) -> dict[str, str]:
    """Variables for a process of ours that has its home there and uses that server.

    No variable of Prefect's that the tests were started with.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "CSR_"))
    }
    named = {} if api_url is None else {"PREFECT_API_URL": api_url}
    ours = environment.settings(home, offline=True)
    return {**kept, **ours, **named, "PYTHONPATH": str(ROOT)}


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
