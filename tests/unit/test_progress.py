"""What a person sees: plain whole lines without a terminal, bars with one, a clean stdout."""

import logging
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from csr.world.build import world_path
from flows import progress, worlds
from flows.config import load_recipe
from flows.interrupts import Terminated, orderly_sigterm
from tests.scripted_run import write_recipe


@pytest.fixture(autouse=True)
def own_loggers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for logger in (logging.getLogger("csr"), logging.getLogger("py.warnings")):
        monkeypatch.setattr(logger, "handlers", [])
        monkeypatch.setattr(logger, "propagate", True)
    logging.captureWarnings(False)
    yield
    logging.captureWarnings(False)


def test_a_logged_line_is_never_wrapped_or_read_as_markup(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    progress.log_to_console()
    progress.log_to_console()
    line = "[bold]x[/] :smile: " + "y" * 300
    logging.getLogger("csr").info(line)
    logging.getLogger("csr").warning("short")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith(line)
    assert second.endswith(" warning: short")
    assert caplog.records == []  # what listens at the root, as Prefect does, prints none again


def test_a_python_warning_is_a_line_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    progress.log_to_console()
    warnings.warn("the adapter is old", UserWarning, stacklevel=1)
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(r"\d\d:\d\d:\d\d warning: .*test_progress.py:\d+: UserWarning: the ad", line)


def test_without_a_terminal_progress_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress.time, "monotonic", iter([0.0, 5.0, 20.0, 21.0]).__next__)
    with progress.live_bars(), progress.stage_progress("sample") as show:
        show(1, 8)
        show(2, 8)
        show(8, 8)
    assert capsys.readouterr().err == "sample: 2/8, 20 s elapsed, about 60 s to go\n"


def test_on_a_terminal_each_work_has_a_bar_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, "w") as sink:
        terminal = Console(file=sink, force_terminal=True)
        monkeypatch.setattr(progress, "console", terminal)
        with progress.live_bars():
            bars = progress._bars
            assert bars is not None
            with progress.stage_progress("one") as show:
                show(3, 4)
                assert [(t.description, t.completed, t.total) for t in bars.tasks] == [
                    ("one", 3, 4)
                ]
            assert bars.tasks == []
            with pytest.raises(ValueError, match="broken"), progress.stage_progress("two"):
                raise ValueError("broken")
            assert bars.tasks == []
        assert progress._bars is None


def test_standard_output_is_for_the_answer_alone() -> None:
    code = (
        "import os, subprocess\n"
        "from flows.progress import clean_stdout\n"
        "print('before')\n"
        "with clean_stdout():\n"
        "    print('python')\n"
        "    os.write(1, b'library\\n')\n"
        "    subprocess.run(['echo', 'child'])\n"
        "print('answer')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["before", "answer"]
    assert sorted(done.stderr.split()) == ["child", "library", "python"]


def test_sigterm_becomes_an_interrupt_and_is_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), orderly_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_each_part_of_a_world_has_its_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[str, list[tuple[int, int]]] = {}

    class Bar:
        def __init__(self, label: str) -> None:
            self.label = label

        def __enter__(self) -> Callable[[int, int], None]:
            return lambda done, total: shown.setdefault(self.label, []).append((done, total))

        def __exit__(self, *error: object) -> None:
            shown[self.label].append((-1, -1))

    def build(config: Any, cache: Path, show: Callable[[str, int, int], None]) -> Path:
        assert cache == tmp_path / "cache"
        show("data", 1, 1)
        show("clip", 1, 2)
        show("policy", 5, 9)
        show("clip", 2, 2)
        return world_path(config, cache)

    monkeypatch.setenv("CSR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(worlds, "stage_progress", Bar)
    monkeypatch.setattr("csr.world.build.build_world", build)
    recipe = load_recipe(write_recipe(tmp_path / "data", world={}))
    worlds.build_missing_world(recipe)
    located = worlds.locate_world(recipe)
    assert located.world == recipe.world
    end = (-1, -1)
    assert shown == {
        "world: data": [(1, 1), end],
        "world: clip": [(1, 2), (2, 2), end],
        "world: policy": [(5, 9), end],
    }
