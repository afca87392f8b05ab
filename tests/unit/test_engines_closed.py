"""Engines are closed once, by the block that is outermost."""

import pytest

from csr.errors import RunFailed
from flows import work
from flows.work import engines_closed_at_end


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    closed: list[str] = []
    monkeypatch.setattr(work, "close_engines", lambda: closed.append("engines"))
    monkeypatch.setattr(work, "close_stage_processes", lambda: closed.append("processes"))
    return closed


def test_the_outermost_block_closes(closed: list[str]) -> None:
    with engines_closed_at_end():
        with engines_closed_at_end():
            pass
        assert closed == []
    assert closed == ["processes", "engines"]


def test_a_failing_block_closes_too(closed: list[str]) -> None:
    with pytest.raises(RunFailed), engines_closed_at_end():
        raise RunFailed("no")
    assert closed == ["processes", "engines"]
