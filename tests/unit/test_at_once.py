"""Several shards at once, in threads."""

from __future__ import annotations

import threading
from contextvars import ContextVar

import pytest

from flows.at_once import each_at_once


def test_one_at_a_time_goes_in_order_in_this_thread() -> None:
    seen: list[tuple[int, int]] = []
    each_at_once(lambda n: seen.append((n, threading.get_ident())), range(3), 1)
    assert seen == [(n, threading.get_ident()) for n in range(3)]


def test_as_many_run_at_once_as_asked_for_and_each_sees_the_callers_context() -> None:
    flow: ContextVar[str] = ContextVar("flow")
    flow.set("mine")
    together, seen = threading.Barrier(2, timeout=10), []

    def do(number: int) -> None:
        together.wait()  # fails where fewer than two run at once
        seen.append((number, flow.get()))

    each_at_once(do, range(4), 2)
    assert sorted(seen) == [(n, "mine") for n in range(4)]


def test_when_one_fails_those_that_run_end_and_none_begins() -> None:
    begun, ended = [], []
    failing = threading.Event()

    def do(number: int) -> None:
        begun.append(number)
        if number == 0:
            failing.set()
            raise ValueError("shard 0")
        failing.wait(10)
        ended.append(number)

    with pytest.raises(ValueError, match="shard 0"):
        each_at_once(do, range(50), 2)
    assert 1 in ended
    assert len(begun) == len(ended) + 1 < 50


def test_an_interruption_makes_those_that_run_end() -> None:
    stopped = threading.Event()

    def do(number: int) -> None:
        if number == 0:
            raise KeyboardInterrupt
        assert stopped.wait(10)

    with pytest.raises(KeyboardInterrupt):
        each_at_once(do, range(2), 2, stopped.set)
    assert stopped.is_set()
