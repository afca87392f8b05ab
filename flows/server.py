"""A Prefect server for this process's runs, where the user has configured none.

Prefect would start one itself, but in the terminal's process group: Ctrl-C then ends the
server first, and Prefect waits minutes for it before the run can stop. This one has a session
of its own, and ends with the process that started it however that ends.
"""

from __future__ import annotations

import atexit
import ctypes
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from csr.errors import EnvironmentFault

_OWN_SERVER = "CSR_OWN_SERVER"
"""Set while a server of ours runs, also for child processes: nobody else uses it."""

_servers: dict[tuple[tuple[str, str], ...], tuple[subprocess.Popen[bytes], str]] = {}
"""Prefect's settings in the environment -> the server that was started under them, its address."""

_PR_SET_PDEATHSIG = 1
_STOP_SECONDS = 10
_SECONDS_BETWEEN_STARTS = 2.0
_ANSWER_SECONDS = 10
"""A busy server may take its time."""


@contextmanager
def prefect_server() -> Iterator[None]:
    """A server that Prefect uses inside. EnvironmentFault where it does not start in time.

    It goes on until the process ends, for the runs that follow.
    """
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
        temporary_settings,
    )

    if PREFECT_API_URL.value():
        yield
        return
    api_url = _own_server(float(PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()))
    os.environ[_OWN_SERVER] = api_url
    try:
        with temporary_settings({PREFECT_API_URL: api_url}):
            yield
    finally:
        del os.environ[_OWN_SERVER]


def _own_server(start_seconds: float) -> str:
    """The API address of this process's server; a later run under the same settings has it too."""
    settings = tuple(sorted(item for item in os.environ.items() if item[0].startswith("PREFECT_")))
    process, api_url = _servers.get(settings, (None, ""))
    if process is None or process.poll() is not None:
        process, api_url = _servers[settings] = _started(start_seconds)
    else:
        wait_until_healthy(api_url, process, start_seconds)
    return api_url


def _started(start_seconds: float) -> tuple[subprocess.Popen[bytes], str]:
    """A server that answers, and its address.

    Of two servers that make one new database at the same time one fails, and finds it made later.
    """
    for is_last in (False, False, True):
        port = _free_port()
        api_url = f"http://127.0.0.1:{port}/api"
        process = _start(port)
        # Not before: Prefect sends its last logs and events when the interpreter ends.
        atexit.register(stop, process)
        try:
            wait_until_healthy(api_url, process, start_seconds)
        except EnvironmentFault:
            if is_last or process.poll() is None:
                stop(process)
                raise
            time.sleep(_SECONDS_BETWEEN_STARTS)
        else:
            break
    return process, api_url


def require_server() -> None:
    """EnvironmentFault unless the server at PREFECT_API_URL answers."""
    from prefect.settings import PREFECT_API_URL

    api_url = PREFECT_API_URL.value()
    if not api_url:
        raise EnvironmentFault(
            "PREFECT_API_URL is not set, so there is no server to talk to. Start one with "
            "`prefect server start` and set it to http://127.0.0.1:4200/api, or use `csr serve`."
        )
    deadline = time.monotonic() + _ANSWER_SECONDS
    while not _is_healthy(api_url):
        if time.monotonic() < deadline:
            time.sleep(0.5)
            continue
        raise EnvironmentFault(
            f"No Prefect server answers at {api_url} (PREFECT_API_URL). Start it with "
            "`prefect server start`, or set the variable to where it is."
        )


def is_own_server() -> bool:
    """Whether the server in use lives for one run alone."""
    return _OWN_SERVER in os.environ


def _start(port: int) -> subprocess.Popen[bytes]:
    # Underscored names as Prefect's own temporary server has them: no schedules, no web pages.
    env = {**os.environ, "PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "flows.server", str(port), str(os.getpid())],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_until_healthy(api_url: str, process: subprocess.Popen[bytes], seconds: float) -> None:
    """EnvironmentFault where the server that `process` runs does not answer in time."""
    deadline = time.monotonic() + seconds
    while not _is_healthy(api_url):
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            how = "ended while it started" if ended else f"did not start within {seconds:.0f} s"
            raise EnvironmentFault(
                f"Prefect's server {how}. Run `csr doctor`; on a slow machine raise "
                "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS, or start `prefect server start` "
                "yourself and set PREFECT_API_URL."
            )
        time.sleep(0.1)


def _is_healthy(api_url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api_url}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, http.client.HTTPException):
        return False  # also where something else has the port, and speaks no HTTP


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server in an orderly way, and by force where it takes too long."""
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serve(port: int, parent: int) -> None:
    """The child: serve until told to stop, or until `parent` is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we could ask for the signal
        return
    import uvicorn

    uvicorn.run(
        "prefect.server.api.server:create_app",
        factory=True,
        host="127.0.0.1",
        port=port,
        log_level="error",
        lifespan="on",
    )


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]))
