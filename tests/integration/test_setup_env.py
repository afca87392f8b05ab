"""The set-up script itself, run in a checkout of its own, with no package index to reach."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copytree(
        ROOT / "deploy" / "setup",
        tmp_path / "deploy" / "setup",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def start(checkout: Path, *arguments: str) -> subprocess.Popen[str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return subprocess.Popen(
        [sys.executable, "deploy/setup/setup_env.py", "--extra", "cpu", *arguments],
        cwd=checkout,
        env={**others, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's background jobs ignore Ctrl-C, and what they start inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def stamp(checkout: Path, **changes: str) -> None:
    """Make `.venv` look as a set-up left it."""
    program = (
        "import sys, json; sys.path.insert(0, 'deploy/setup'); import setup_env;"
        "print(json.dumps(setup_env._wanted('cpu', ['dev'])))"
    )
    wanted = subprocess.check_output([sys.executable, "-c", program], cwd=checkout, text=True)
    make = [sys.executable, "-m", "venv", "--without-pip", ".venv"]
    subprocess.run(make, cwd=checkout, check=True)
    state = {**json.loads(wanted), "status": "complete", **changes}
    (checkout / ".venv" / "csr-setup.json").write_text(json.dumps(state))


def test_a_failed_installation_leaves_no_environment_and_one_line(checkout: Path) -> None:
    process = start(checkout)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert not (checkout / ".venv").exists()
    [told] = [line for line in errors.splitlines() if not line.endswith("...")]
    assert "has no CPU build of torch (torch==2.13.0+cpu)" in told
    assert "PyTorch's own CPU wheel index" in told
    assert str(checkout / ".cache" / "setup.log") in told
    assert "ERROR" in (checkout / ".cache" / "setup.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_installation_leaves_no_environment(
    checkout: Path, number: signal.Signals
) -> None:
    process = start(checkout)
    while not (checkout / ".venv" / "bin").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == 130
    assert not (checkout / ".venv").exists()
    assert not (checkout / ".cache" / "removed").exists()


def test_a_stopped_step_leaves_none_of_its_processes(checkout: Path) -> None:
    program = (
        "import signal, sys; sys.path.insert(0, 'deploy/setup'); import setup_env;"
        "signal.signal(signal.SIGTERM, setup_env._interrupt);"
        "setup_env.LOG.parent.mkdir(); setup_env.LOG.write_bytes(b'');"
        "worker = 'sleep 600 & echo $! > unnamed; mv unnamed worker; wait';"
        "setup_env._run('compiling', ['sh', '-c', worker])"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=checkout)
    while not (checkout / "worker").exists():
        assert process.poll() is None
        time.sleep(0.02)
    worker = psutil.Process(int((checkout / "worker").read_text()))
    process.send_signal(signal.SIGTERM)
    process.wait()
    assert psutil.wait_procs([worker], timeout=10)[1] == []


def test_an_extra_that_is_not_known_is_told_before_anything_is_made(checkout: Path) -> None:
    process = start(checkout, "--with", "ray,rya")
    told = process.communicate()[1]
    assert process.returncode == 1
    assert told.startswith("setup: no extra 'rya'. Known to --with: dev, docs, ray,")
    assert not (checkout / ".venv").exists()


def test_other_extras_update_in_place(checkout: Path) -> None:
    stamp(checkout)
    process = start(checkout, "--with", "ray")
    assert "No module named pip" in process.communicate()[1]  # which `stamp` leaves out
    state = json.loads((checkout / ".venv" / "csr-setup.json").read_text())
    assert (state["status"], state["others"]) == ("updating", ["ray"])


def test_a_complete_environment_is_left_alone(checkout: Path) -> None:
    stamp(checkout)
    process = start(checkout)
    assert process.communicate()[1] == ""
    assert process.returncode == 0


def test_new_pins_update_in_place_and_a_failed_update_is_tried_again(checkout: Path) -> None:
    stamp(checkout, sha256="of the old pins")
    (checkout / ".venv" / "kept").write_text("")
    process = start(checkout)
    assert "No module named pip" in process.communicate()[1]
    assert process.returncode == 1
    assert (checkout / ".venv" / "kept").exists()
    state = json.loads((checkout / ".venv" / "csr-setup.json").read_text())
    assert state["status"] == "updating"


def test_a_half_made_environment_is_made_anew(checkout: Path) -> None:
    stamp(checkout, status="creating")
    (checkout / ".venv" / "half").write_text("")
    process = start(checkout)
    while (checkout / ".venv" / "half").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert not (checkout / ".venv").exists()


def test_somebody_elses_environment_is_not_touched(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "mine").write_text("")
    process = start(checkout)
    assert "was not made by this set-up" in process.communicate()[1]
    assert process.returncode == 1
    assert (checkout / ".venv" / "mine").exists()
