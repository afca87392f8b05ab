"""Messages between a run and its stage process, and failures that cross over."""

import socket
import threading
import time

import httpx
import pytest

from csr.errors import DataError, EngineLost, RunFailed
from flows.stage_wire import Wire, describe_error, revive_error


def pair() -> tuple[Wire, Wire]:
    one, other = socket.socketpair()
    return Wire(one), Wire(other)


def test_messages_arrive_whole_and_in_order() -> None:
    one, other = pair()
    long = "ä\n" * 200_000  # more than the socket holds at once
    sender = threading.Thread(target=lambda: [one.send(text=long), one.send(n=1), one.close()])
    sender.start()
    assert other.receive() == {"text": long}
    assert other.receive() == {"n": 1}
    assert other.receive() is None
    sender.join()


def test_waiting_ends_at_the_deadline_and_loses_nothing() -> None:
    one, other = pair()
    with pytest.raises(TimeoutError):
        other.receive(time.monotonic() - 1)
    with pytest.raises(TimeoutError):
        other.receive(time.monotonic() + 0.01)
    one.send(n=1)
    assert other.receive(time.monotonic() + 60) == {"n": 1}


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (DataError("not an image"), DataError, "not an image"),
        (EngineLost("it died"), EngineLost, "it died"),
        (ConnectionRefusedError("nobody there"), ConnectionError, "nobody there"),
        (httpx.ReadTimeout("no answer"), ConnectionError, "no answer"),
        (KeyError("x"), RunFailed, "KeyError: 'x' The whole traceback is in /logs/sample.log."),
    ],
)
def test_a_failure_is_the_same_on_the_other_side(
    error: Exception, kind: type[Exception], message: str
) -> None:
    revived = revive_error(describe_error(error), "/logs/sample.log")
    assert type(revived) is kind
    assert str(revived) == message
