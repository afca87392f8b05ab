"""Several `csr` commands in one fresh process: what they answer, and what they leave on disk.

A process of its own, because a run starts engines and sets variables; one process for several
commands, because importing the engines costs more than such commands themselves.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OFFLINE = {"HF_HUB_OFFLINE": "1"}
NO_HUB = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
"""The hub is asked, and nobody answers: port 9 is closed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How one command ended."""

    status: int
    stdout: str
    stderr: str
    made_home: bool
    """Whether its `--home` exists afterwards."""

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


def environment(**changes: str) -> dict[str, str]:
    """This process's variables, one thread a library, with `changes`."""
    return {**os.environ, "OMP_NUM_THREADS": "1", **changes}


def run_console_script(arguments: Sequence[str]) -> Answer:
    """One command as a user types it."""
    script = Path(sys.executable).with_name("csr")
    done = subprocess.run(
        [script, *arguments], capture_output=True, text=True, env=environment(**OFFLINE)
    )
    return Answer(done.returncode, done.stdout, done.stderr, _home(arguments).exists())


def run_batch(
    commands: Mapping[str, Sequence[str]],
    *,
    variables: Mapping[str, str] = OFFLINE,
    open_clip_config: Path | None = None,
) -> dict[str, Answer]:
    """Run every command after the other through the console script's own entry point.

    `open_clip_config` is a JSON file whose stem becomes one of open_clip's model names.
    """
    job = {"commands": commands, "open_clip_config": open_clip_config}
    done = subprocess.run(
        [sys.executable, "-m", "tests.cli_batch"],
        input=json.dumps(job, default=str),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(**variables),
    )
    assert done.returncode == 0, done.stderr[-4000:]
    lines = done.stdout.splitlines()
    return {name: Answer(**json.loads(line)) for name, line in zip(commands, lines, strict=True)}


def _run_here(arguments: Sequence[str]) -> Answer:
    from flows.cli import main

    sys.argv = ["csr", *arguments]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
    return Answer(status, out.getvalue(), err.getvalue(), _home(arguments).exists())


def _home(arguments: Sequence[str]) -> Path:
    return Path(arguments[list(arguments).index("--home") + 1])


def _main() -> None:
    job = json.load(sys.stdin)
    if job["open_clip_config"]:
        import open_clip

        open_clip.add_model_config(job["open_clip_config"])
    for arguments in job["commands"].values():
        answer = _run_here(arguments)
        print(json.dumps({name: getattr(answer, name) for name in Answer.__slots__}), flush=True)


if __name__ == "__main__":
    _main()
