"""The flow UI of a finished scripted run, and Debian's Chromium to look at it with."""

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from storage.run_store import RunStore
from tests.ports import free_port
from tests.prefect_service import (
    ROOT,
    Json,
    Service,
    command,
    end,
    wait_until,
)
from tests.scripted_run import write_recipe

RUN = "night_01"
KEY = "night-01-9d8c"
HOSTILE = (
    "Beware `code` <img src=http://evil.example/x onerror=alert(1)> <b>bold</b> **stars** "
    "[click](javascript:alert(1)) ![pic](http://evil.example/y) <script>alert(1)</script>"
)
VLLM_WARNING = "KV cache is small"
PYTHON_WARNING = "this adapter is old"

# The command, where training warns as vLLM and as PEFT do.
WARNING_COMMAND = f"""
import logging, warnings
from csr.trainers.scripted import ScriptedTrainer
train = ScriptedTrainer.train
def warn(*args, **kwargs):
    logging.getLogger("vllm.v1.core").warning({VLLM_WARNING!r})
    warnings.warn({PYTHON_WARNING!r})
    return train(*args, **kwargs)
ScriptedTrainer.train = warn
from flows.cli import main
main()
"""


@dataclass(frozen=True)
class FlowUI:
    """Where everything is, once the run is done and `csr serve` waits."""

    service: Service
    reports_url: str

    @property
    def url(self) -> str:
        return self.service.api_url.removesuffix("/api")

    @property
    def store(self) -> RunStore:
        return RunStore(self.service.home)

    def flow_run_id(self, name: str) -> str:
        """The newest flow run of that name, finished."""

        def found() -> str | None:
            wanted = {"flow_runs": {"name": {"any_": [name]}}, "sort": "START_TIME_DESC"}
            runs = self.service.ask("/flow_runs/filter", wanted)
            done = [run for run in runs if run["state_type"] == "COMPLETED"]
            return str(done[0]["id"]) if done else None

        return str(wait_until(found, 60))

    def artifacts(self, key: str) -> list[Json]:
        """All under that key, the newest first."""
        wanted = {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC"}
        found: list[Json] = self.service.ask("/artifacts/filter", wanted)
        return found

    def artifact_url(self, key: str) -> str:
        """The page of the newest artifact under that key."""
        return f"{self.url}/artifacts/artifact/{self.artifacts(key)[0]['id']}"

    def deployment_url(self, name: str) -> str:
        found = self.service.ask(f"/deployments/name/{name}/{name}", method="GET")
        return f"{self.url}/deployments/deployment/{found['id']}"


def missing() -> str | None:
    """Why there can be no browser here; None where there can."""
    if shutil.which("chromium") is None:
        return "no Chromium: apt-get install chromium"
    if importlib.util.find_spec("playwright") is None:
        return "no playwright: pip install playwright (it drives the Chromium of apt-get)"
    return None


@contextlib.contextmanager
def flow_ui(folder: Path) -> Iterator[FlowUI]:
    """`csr serve` with a server of its own, and a run of two iterations that is done."""
    recipe = _write_recipe(folder / "data")
    with _served(folder, recipe) as ui:
        service = ui.service
        known = {"CSR_HOME": str(service.home), "CSR_REPORT_URL": ui.reports_url}
        arguments = ["run", str(recipe), "--home", str(service.home), "--run-id", RUN, "--json"]
        done = subprocess.run(
            [sys.executable, "-c", WARNING_COMMAND, *arguments],
            env=service.environment | known, cwd=ROOT, capture_output=True, text=True,
            check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["status"] == "done"
        yield ui


@contextlib.contextmanager
def _served(folder: Path, recipe: Path) -> Iterator[FlowUI]:
    """`csr serve` with a new database, once it waits for work."""
    port = free_port() - 1
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "CSR_"))}
    environment = {**plain, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *sys.path)))}
    service = Service(f"http://127.0.0.1:{port}/api", folder, environment)
    arguments = ("serve", "--recipe", recipe, "--home", service.home, "--port", port)
    with (folder / "serve.log").open("ab") as log:
        process = subprocess.Popen(
            command(*arguments), env=environment | {"PREFECT_RUNNER_POLL_FREQUENCY": "1"},
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        log_file = folder / "serve.log"
        wait_until(lambda: b"Your deployments are being served" in log_file.read_bytes(), 180)
        environment["PREFECT_API_URL"] = service.api_url
        yield FlowUI(service, f"http://127.0.0.1:{port + 1}")
    finally:
        end(process)


def _write_recipe(folder: Path) -> Path:
    """Images that can be seen, one hostile prompt, gates that stop nothing."""
    recipe = write_recipe(folder, gates={"on_trip": "continue"})
    for number, path in enumerate(sorted((folder / "images").glob("*.png"))):
        shades = Image.linear_gradient("L").rotate(90 * number).resize((640, 480))
        shades.putpixel((0, 0), number)
        shades.convert("RGB").save(path)
    prompts = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    prompts[1]["input"] = HOSTILE
    lines = "\n".join(json.dumps(prompt) for prompt in prompts)
    (folder / "train.jsonl").write_text(lines + "\n")
    return recipe


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A playwright browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        try:
            yield browser
        finally:
            browser.close()
