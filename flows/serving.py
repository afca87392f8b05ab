"""`csr serve`: the deployments from one process, with a server beside it where there is none.

For a laptop or one machine. Each flow run is a process of its own; one runs at a time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from flows.forms import RunRequest
from flows.home import open_store
from flows.launch import recipe_of
from flows.report_server import REPORT_URL, serve_reports
from flows.schedules import cron_schedule
from flows.server import stop, wait_until_healthy


def serve(port: int, cron: str | None, request: RunRequest) -> None:
    """Serve until stopped. `cron` starts `request` regularly, UTC, e.g. "0 1 * * *".

    The reports of the home are served on the port after `port`. ConfigError before anything
    starts where the request or `cron` cannot work; EnvironmentFault where a server does not start.
    """
    _check(request, cron)
    home = request.home_path.absolute()
    os.environ["CSR_HOME"] = str(home)  # what an empty home in a form means, and the reports'
    with _reports(home, port + 1), _server(port):
        import prefect
        from prefect.deployments.runner import RunnerDeployment
        from prefect.types.entrypoint import EntrypointType

        from flows.run import csr_evaluate, csr_iteration, csr_run
        from flows.settling import settle_dead_runs
        from flows.slots import ensure_engine_limit

        ensure_engine_limit()
        settle_dead_runs()
        served = partial(
            RunnerDeployment.from_flow, tags=["csr"], entrypoint_type=EntrypointType.MODULE_PATH
        )
        parameters = {"request": request.model_dump(mode="json")}
        prefect.serve(
            served(csr_run, "csr-run", cron=cron, parameters=parameters, concurrency_limit=1),
            served(csr_iteration, "csr-iteration"),
            served(csr_evaluate, "csr-evaluate"),
            limit=1,
        )


def _check(request: RunRequest, cron: str | None) -> None:
    """What would else be found at night, by the first scheduled run."""
    _, run_id = recipe_of(request.dated(datetime.now(UTC)))
    open_store(request.home_path).run_path(run_id)
    if cron is not None:
        cron_schedule(cron)


@contextmanager
def _reports(home: Path, port: int) -> Iterator[None]:
    """The reports on this machine. Links name another address where the user has set one."""
    with serve_reports(home, port) as url:
        os.environ.setdefault(REPORT_URL, url)
        print(f"Reports: {url}/RUN/report.html", file=sys.stderr)
        yield


@contextmanager
def _server(port: int) -> Iterator[None]:
    """The server that PREFECT_API_URL names, or one of our own with the flow UI."""
    if "PREFECT_API_URL" in os.environ:
        yield
        return
    url = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1",
        "--port", str(port),
    ]  # fmt: skip
    # The option alone leaves the web pages asking port 4200.
    env = {**os.environ, "PREFECT_SERVER_API_PORT": str(port)}
    process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_until_healthy(f"{url}/api", process, 120.0)
        os.environ["PREFECT_API_URL"] = f"{url}/api"
        print(f"Flow UI: {url}", file=sys.stderr)
        yield
    finally:
        stop(process)
