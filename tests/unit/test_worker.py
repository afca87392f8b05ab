"""`csr worker` goes on when Prefect's worker ends by itself."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from flows import worker
from tests.processes import wait_until

KEEPER = """
import sys
from flows import worker
worker.settle_dead_runs = lambda min_seconds: []
sys.exit(worker.keep_running(sys.argv[2:], first_pause_seconds=float(sys.argv[1])))
"""


def keeper(script: str, first_pause_seconds: float = 0.01) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", KEEPER, str(first_pause_seconds), "sh", "-c", script]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def starts(journal: Path) -> int:
    return journal.read_text().count("start") if journal.exists() else 0


def test_a_worker_that_ends_by_itself_is_started_again_until_told_to_stop(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    third_stays = (
        f"echo start >> {journal}; [ $(wc -l < {journal}) -lt 3 ] && exit 1; exec sleep 600"
    )
    process = keeper(third_stays)
    wait_until(lambda: starts(journal) == 3)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert starts(journal) == 3
    assert err.count("Prefect's worker ended (status 1); the next in") == 2


def test_one_that_ends_at_once_each_time_is_given_up(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    process = keeper(f"echo start >> {journal}; exit 7")
    process.communicate(timeout=60)
    assert process.returncode == 7
    assert starts(journal) == worker.MAX_EARLY_ENDS


def test_a_stop_during_the_pause_ends_it() -> None:
    process = keeper("exit 1", first_pause_seconds=600)
    assert process.stderr is not None
    assert "the next in 1200 s" in process.stderr.readline()
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_server_that_does_not_answer_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(min_seconds: float) -> list[str]:
        raise httpx.ConnectError("All connection attempts failed")

    monkeypatch.setattr(worker, "settle_dead_runs", refused)
    worker._settle()
    assert "The server did not answer (All connection attempts failed)" in caplog.text


def test_runs_are_settled_while_the_worker_works(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(worker, "SETTLE_SECONDS", 0.05)
    monkeypatch.setattr(
        worker, "settle_dead_runs", lambda min_seconds: asked.append(min_seconds) or []
    )
    with subprocess.Popen(["sleep", "1"]) as process:
        assert worker._wait_and_settle(process) == 0
    assert len(asked) > 2
    assert set(asked) == {0.05}
