"""What `csr doctor --mend` does, and what it leaves alone."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from csr.errors import EnvironmentFault
from flows import mending
from flows.probes import Probe

FINE, LOST = Probe(ok=True, last_line=""), Probe(ok=False, last_line="OSError: libcudart")
NO_OPERATORS = Probe(ok=False, last_line="RuntimeError: operator torchvision::nms does not exist")


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The commands that were run; site-packages is `tmp_path`."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command[1:])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(mending.subprocess, "run", run)
    monkeypatch.setattr(mending.sysconfig, "get_path", lambda name: str(tmp_path))
    return commands


def found(monkeypatch: pytest.MonkeyPatch, probes: Mapping[str, Probe]) -> None:
    monkeypatch.setattr(mending, "run_probes", lambda commands: {n: probes[n] for n in commands})


def test_what_is_broken_is_mended(
    done: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found(monkeypatch, {"torchaudio": LOST, "torchcodec": FINE, "torchvision": NO_OPERATORS})
    assert mending.mend_environment(["torchaudio", "torchcodec"]) == [
        "uninstalled what does not import: torchaudio",
        "installed the mend of torchvision",
    ]
    assert done == [["-m", "pip", "uninstall", "--yes", "torchaudio"]]
    setup = Path(__file__).parents[2] / "deploy" / "setup"
    code = (tmp_path / "torchvision_on_cpu.py").read_text()
    assert code == (setup / "torchvision_on_cpu.py").read_text()
    assert (tmp_path / "torchvision_on_cpu.pth").read_text() == "import torchvision_on_cpu\n"


def test_what_is_well_or_broken_otherwise_stays(
    done: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found(monkeypatch, {"torchvision": FINE})
    assert mending.mend_environment([]) == ["nothing to mend"]
    found(monkeypatch, {"torchvision": Probe(ok=False, last_line="No module named 'torchvision'")})
    assert mending.mend_environment([]) == ["nothing to mend"]
    assert done == []
    assert list(tmp_path.iterdir()) == []


def test_an_environment_that_cannot_be_changed_is_told(
    done: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found(monkeypatch, {"torchaudio": LOST, "torchvision": FINE})
    refused = subprocess.CompletedProcess([], 1, "", "externally managed")
    monkeypatch.setattr(mending.subprocess, "run", lambda *_, **__: refused)
    with pytest.raises(EnvironmentFault, match="externally managed"):
        mending.mend_environment(["torchaudio"])
