"""Homes that no run can be kept in, and terminals that lack the letters of a prompt."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli_batch import ROOT, environment
from tests.hostile.inputs import Inputs
from tests.scripted_run import Csr

HOMES = {
    "of nobody": "~no-such-user-here/runs",
    "a file": "/etc/passwd",
    "below a file": "/etc/passwd/runs",
    "a device": "/dev/null",
    "below /proc": "/proc/runs",
    "5000 letters": "x" * 5000,
    "not UTF-8": "caf\udce9",
    "empty": "",
    "blank": "  ",
}


@pytest.mark.parametrize("home", HOMES.values(), ids=HOMES)
@pytest.mark.parametrize("verb", ["run", "ls"])
def test_a_home_that_cannot_be_is_one_error(
    csr: Csr, inputs: Inputs, home: str, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(inputs.folder)
    before = sorted(inputs.folder.rglob("*"))
    arguments = (inputs.recipe,) if verb == "run" else ()
    answer = csr(verb, *arguments, "--home", home)
    if verb == "ls" and home == "/proc/runs":
        assert answer.status == 0  # no run is there, and none is asked for
        return
    assert answer.status == 2
    assert "Traceback" not in answer.err
    assert len(answer.err) < 1000
    if home.strip():
        assert answer.err.startswith("error: ")
        assert answer.err.count("\n") == 1
    else:  # told in the frame in which mistyped options are
        assert "--home is empty" in answer.err
    assert sorted(inputs.folder.rglob("*")) == before


def test_a_working_directory_that_is_not_utf_8(
    csr: Csr, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "caf\udce9"
    odd.mkdir()
    (odd / "images").symlink_to(inputs.images)
    monkeypatch.chdir(odd)
    assert (
        "not a usable path"
        in csr("run", inputs.recipe, "--home", inputs.home, "--set", "data.images=images").err
    )
    assert "cannot be a folder" in csr("run", inputs.recipe, "--home", "runs").err
    assert os.listdir(odd) == ["images"]
    assert csr(*inputs.command).status == 0  # by absolute paths


SCRIPT = """
import sys
from tests.scripted_run import without_prefect
sys.modules.update(without_prefect())
from flows.cli import main
main()
"""


def test_a_terminal_without_the_letters_of_a_prompt(csr: Csr, inputs: Inputs) -> None:
    inputs.prompts({"id": "odd", "image": "1.png", "input": "מה רואים 🙂?"})
    assert csr(*inputs.command).status == 0
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "trace", "run", "odd", "--home", str(inputs.home)],
        env=environment(PYTHONPATH=str(ROOT), PYTHONIOENCODING="ascii"),
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert rb"\u05de\u05d4" in done.stdout
    assert rb"\U0001f642" in done.stdout
