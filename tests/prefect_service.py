"""A real Prefect server and worker for tests: fresh, on loopback, gone afterwards."""

import contextlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.ports import free_port

ROOT = Path(__file__).parents[1]

Json = dict[str, Any]

FAST_SERVER = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
    "PREFECT_SERVER_SERVICES_SCHEDULER_DEPLOYMENT_BATCH_SIZE": "10",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "2",
    "PREFECT_SERVER_SERVICES_TRIGGERS_LOOP_SECONDS": "2",
}
FAST_WORKER = {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}


@dataclass(frozen=True)
class Service:
    """A server, and what its commands run in."""

    api_url: str
    folder: Path
    environment: dict[str, str]

    @property
    def home(self) -> Path:
        """The runs."""
        return self.folder / "home"

    def ask(self, path: str, body: Json | None = None, method: str = "POST") -> Any:
        """One request to the API; its answer's JSON. On SQLite the server is busy now and then."""

        def answered() -> httpx.Response | None:
            try:
                found = httpx.request(method, f"{self.api_url}{path}", json=body, timeout=60)
            except httpx.TimeoutException:
                return None
            return None if found.status_code == 503 else found

        answer = wait_until(answered, 180)
        assert answer.is_success, f"{path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def start(self, deployment: str, request: Json) -> str:
        """A flow run of the deployment, asked for as the form of the flow UI does; its ID."""
        known = self.ask(f"/deployments/name/{deployment}/{deployment}", method="GET")
        parameters = {"request": {"home": str(self.home), **request}}
        made = self.ask(f"/deployments/{known['id']}/create_flow_run", {"parameters": parameters})
        return str(made["id"])

    def flow_run(self, flow_run_id: str) -> Json:
        """The flow run as the API tells it."""
        answer: Json = self.ask(f"/flow_runs/{flow_run_id}", method="GET")
        return answer

    def wait(self, flow_run_id: str, *states: str, seconds: float = 360) -> Json:
        """The flow run once it is in one of these state types; a failure tells its logs."""

        def reached() -> Json | None:
            found = self.flow_run(flow_run_id)
            return found if found["state"]["type"] in states else None

        try:
            return wait_until(reached, seconds)
        except AssertionError:
            state = self.flow_run(flow_run_id)["state"]
            raise AssertionError(
                f"{state['name']}: {state['message']}, wanted {states}. Its logs:\n"
                + "\n".join(self.logs(flow_run_id)[-30:])
            ) from None

    def logs(self, flow_run_id: str) -> list[str]:
        """The lines that the flow run's page shows."""
        body = {"logs": {"flow_run_id": {"any_": [flow_run_id]}}, "sort": "TIMESTAMP_ASC"}
        return [line["message"] for line in self.ask("/logs/filter", body)]

    def csr(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """The console command, to its end."""
        return subprocess.run(
            command(*arguments), env=self.environment, cwd=ROOT, capture_output=True, text=True,
            check=False, timeout=300,
        )  # fmt: skip

    @contextlib.contextmanager
    def worker(self) -> Iterator[subprocess.Popen[bytes]]:
        """`csr worker`, stopped at the end where it still runs."""
        with (self.folder / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                command("worker", "--home", self.home), env=self.environment, cwd=ROOT,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            yield process
        finally:
            end(process)


@contextlib.contextmanager
def webhook() -> Iterator[tuple[str, list[Json]]]:
    """A URL on loopback, and what was posted there so far."""
    posted: list[Json] = []

    class Sink(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            posted.append(json.loads(self.rfile.read(length)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", posted
    finally:
        server.shutdown()


@contextlib.contextmanager
def prefect_service(folder: Path, database_url: str | None = None) -> Iterator[Service]:
    """A server with its own database: SQLite in `folder`, unless a URL is given."""
    api_url = f"http://127.0.0.1:{free_port()}/api"
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "CSR_"))}
    environment = {
        **plain, **FAST_WORKER, "PYTHONPATH": str(ROOT), "DO_NOT_TRACK": "1",
        "HOME": str(folder / "user"), "CSR_CACHE": str(folder / "cache"),
    }  # fmt: skip
    (folder / "user").mkdir(parents=True)
    server = {**environment, **FAST_SERVER, "PREFECT_HOME": str(folder / "server")}
    (folder / "server").mkdir()
    if database_url:
        server["PREFECT_API_DATABASE_CONNECTION_URL"] = database_url
    port = api_url.split(":")[2].split("/")[0]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1",
             "--port", port],
            env=server, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    try:
        wait_until(lambda: _answers(api_url), 120)
        yield Service(api_url, folder, {**environment, "PREFECT_API_URL": api_url})
    finally:
        end(process)


def command(*arguments: object) -> list[str]:
    """The console command of this checkout."""
    return [sys.executable, "-c", "from flows.cli import main; main()", *map(str, arguments)]


def wait_until(look: Callable[[], Any], seconds: float) -> Any:
    """What `look` gives once that is true. The limit is for a hang, and no measurement."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"nothing came of it in {seconds:.0f} s"
        time.sleep(0.3)
    return found


def end(process: subprocess.Popen[bytes]) -> None:
    """Stop a process and all below it."""
    if process.poll() is None:
        below = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        for child in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        if process.poll() is None:
            process.kill()
            process.wait()


def _answers(api_url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{api_url}/health", timeout=2).status_code == 200
    return False
