"""Trains the world's two models, in this process or each in one of its own.

    python -m csr.world.parts PART DIRECTORY CONFIG_JSON

reports on standard output, one JSON object a line: `{"done": .., "total": ..}` as it
advances, `{"report": {..}}` at the end.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from csr.errors import EnvironmentFault
from csr.protocols import Progress

PARTS = ("policy", "clip")
Report = dict[str, Any]
"""`num_parameters`, `quality` (name -> value) and `seconds` (`wall`, `cpu`)."""

_COMMAND = (sys.executable, "-m", "csr.world.parts")
_REPORTS_A_PART = 100
_END = object()


def build_part(
    part: str, config_json: dict[str, Any], directory: Path, progress: Progress
) -> Report:
    """Train `part`, save it under `directory / part`, and measure it on validation scenes.

    Runs on one thread and leaves the caller's random state and thread count as they were.
    """
    import torch

    from csr.world.settings import Config

    config = Config.model_validate(config_json)
    wall, cpu = time.perf_counter(), time.process_time()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            model, quality = _BUILDERS[part](config, directory / part, progress)
    finally:
        torch.set_num_threads(threads)
    return {
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "quality": quality,
        "seconds": {
            "wall": round(time.perf_counter() - wall, 1),
            "cpu": round(time.process_time() - cpu, 1),
        },
    }


def run_inline(
    config_json: dict[str, Any], directory: Path, progress: Callable[[str, int, int], None]
) -> dict[str, Report]:
    """Build the parts one after the other in this process."""
    return {
        part: build_part(part, config_json, directory, _named(progress, part)) for part in PARTS
    }


def run_parallel(
    config_json: dict[str, Any], directory: Path, progress: Callable[[str, int, int], None]
) -> dict[str, Report]:
    """Build the parts at the same time, each in a child process.

    EnvironmentFault, with what the child said last, when one of them fails.
    """
    events: queue.Queue[tuple[str, Any]] = queue.Queue()
    children = {part: _Child(part, config_json, directory, events) for part in PARTS}
    reports: dict[str, Report] = {}
    try:
        running = len(children)
        while running:
            part, event = events.get()
            if event is _END:
                children[part].check()
                running -= 1
            elif "report" in event:
                reports[part] = event["report"]
            else:
                progress(part, event["done"], event["total"])
    finally:
        for child in children.values():
            child.stop()
    return reports


class _Child:
    """One part's process, with a thread that forwards what it prints."""

    def __init__(
        self, part: str, config_json: dict[str, Any], directory: Path, events: queue.Queue[Any]
    ) -> None:
        self._part = part
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by `stop`)
        self._process = subprocess.Popen(
            [*_COMMAND, part, str(directory), json.dumps(config_json)],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": _python_path()},
        )
        threading.Thread(target=self._forward, args=(events,), daemon=True).start()

    def _forward(self, events: queue.Queue[Any]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                events.put((self._part, json.loads(line)))
        events.put((self._part, _END))

    def check(self) -> None:
        """Raise unless the process ended well."""
        status = self._process.wait()
        if status == 0:
            return
        self._errors.seek(0)
        last = "".join(self._errors.readlines()[-15:])
        raise EnvironmentFault(
            f"Training the world's {self._part} model failed (exit status {status}). Free some "
            f"memory if it was killed; otherwise run `csr doctor`. It said last:\n{last}"
        )

    def stop(self) -> None:
        """End the process if it still runs."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
        self._errors.close()


def _build_policy(config: Any, directory: Path, progress: Progress) -> tuple[Any, dict[str, float]]:
    from csr.world.measure import measure_policy
    from csr.world.scenes import sample_scenes
    from csr.world.stages import train_policy
    from csr.world.vlm import save_policy

    model = train_policy(
        config.policy, config.scenes, config.captions, config.questions, config.seed, progress
    )
    validation = sample_scenes("validation", config.num_validation, config.scenes)
    quality = measure_policy(model, validation)
    save_policy(model, directory)
    return model, quality


def _build_clip(config: Any, directory: Path, progress: Progress) -> tuple[Any, dict[str, float]]:
    from csr.world.clip import train_clip
    from csr.world.measure import measure_clip
    from csr.world.scenes import sample_scenes

    model = train_clip(config.clip, config.scenes, directory, progress)
    validation = sample_scenes("validation", config.num_validation, config.scenes)
    return model, measure_clip(model, validation)


_BUILDERS: dict[str, Callable[[Any, Path, Progress], tuple[Any, dict[str, float]]]] = {
    "policy": _build_policy,
    "clip": _build_clip,
}


def _named(progress: Callable[[str, int, int], None], part: str) -> Progress:
    return lambda done, total: progress(part, done, total)


def _python_path() -> str:
    """The caller's own import path, so that the child finds this package as the caller did."""
    return os.pathsep.join(path for path in sys.path if path)


def _print_progress(done: int, total: int) -> None:
    if done == total or done % max(1, total // _REPORTS_A_PART) == 0:
        print(json.dumps({"done": done, "total": total}), flush=True)


def main() -> None:
    """Build one part as a child process."""
    part, directory, config_json = sys.argv[1:]
    report = build_part(part, json.loads(config_json), Path(directory), _print_progress)
    print(json.dumps({"report": report}), flush=True)


if __name__ == "__main__":
    main()
