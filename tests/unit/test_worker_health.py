"""The health check of the worker's container, against a server of the test's own."""

import base64
import http.server
import json
import platform
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import worker_health

NAME = f"csr-{platform.node()}"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What was asked; `workers` is what is answered."""
    seen: dict[str, Any] = {"workers": []}

    class Server(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.update(path=self.path, auth=self.headers["Authorization"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(seen["workers"]).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_port}/api")
    monkeypatch.delenv("PREFECT_API_AUTH_STRING", raising=False)
    yield seen
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("workers", "status"),
    [
        ([{"name": NAME, "status": "ONLINE"}], 0),
        ([{"name": NAME, "status": "OFFLINE"}], 1),
        ([{"name": "csr-other", "status": "ONLINE"}], 1),
        ([], 1),
    ],
)
def test_only_a_worker_that_polls_is_healthy(
    asked: dict[str, Any], workers: Any, status: int
) -> None:
    asked["workers"] = workers
    assert worker_health.main() == status
    assert asked["path"] == "/api/work_pools/csr/workers/filter"
    assert asked["auth"] is None


def test_the_servers_password_is_sent(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "csr:secret")
    worker_health.main()
    assert asked["auth"] == f"Basic {base64.b64encode(b'csr:secret').decode()}"


def test_without_a_server_it_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert worker_health.main() == 1


def test_it_asks_for_the_worker_that_csr_worker_starts() -> None:
    from flows.deploying import WORK_POOL

    assert worker_health.WORK_POOL == WORK_POOL
