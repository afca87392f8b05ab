"""Starting Prefect's server: what ends at once, and what never answers."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import psutil
import pytest

from csr.errors import EnvironmentFault
from flows import server

HEALTHY = """
import http.server, sys
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *unused): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Healthy).serve_forever()
"""
ENDS = "raise SystemExit(1)"
SILENT = "import time; time.sleep(60)"


def starting(*scripts: str) -> Callable[[int], subprocess.Popen[bytes]]:
    waiting = iter(scripts)
    return lambda port: subprocess.Popen([sys.executable, "-c", next(waiting), str(port)])


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_SECONDS_BETWEEN_STARTS", 0.0)


def test_a_server_that_ends_while_it_starts_is_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "_start", starting(ENDS, HEALTHY))
    process, api_url = server._started(30.0)
    try:
        assert process.poll() is None
        assert api_url.startswith("http://127.0.0.1:")
    finally:
        server.stop(process)


def test_one_that_ends_each_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_start", starting(ENDS, ENDS, ENDS))
    with pytest.raises(EnvironmentFault, match="ended while it started"):
        server._started(30.0)


def test_what_speaks_no_http_at_the_port_is_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            connection, _ = other.accept()
            connection.recv(1000)
            connection.sendall(b"GET /api/health HTTP/1.1\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        assert not server._is_healthy(f"http://127.0.0.1:{other.getsockname()[1]}/api")
        thread.join()


def test_one_that_does_not_answer_is_not_started_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_start", starting(SILENT))
    before = psutil.Process().children()
    with pytest.raises(EnvironmentFault, match="did not start within 1 s"):
        server._started(1.0)
    assert set(psutil.Process().children()) <= set(before), (
        "it would run on until this process ends"
    )
