"""What is tried again, and how."""

import logging

import httpx
import pytest

from csr.errors import (
    ConfigError,
    DataError,
    EngineLost,
    EnvironmentFault,
    ModelError,
    NumericalError,
    RunFailed,
)
from flows import retry

TABLE = [
    (EngineLost("the engine died"), True),
    (ConnectionError("no route"), True),
    (ConnectionRefusedError("nobody listens"), True),
    (TimeoutError("no answer"), True),
    (httpx.ConnectError("no route"), True),
    (httpx.ReadTimeout("no answer"), True),
    (httpx.InvalidURL("no address"), False),
    (ConfigError("wrong"), False),
    (DataError("wrong"), False),
    (ModelError("wrong"), False),
    (EnvironmentFault("wrong"), False),
    (NumericalError("NaN"), False),
    (RunFailed("ended"), False),
    (AssertionError("ours"), False),
    (MemoryError("not told by an engine"), False),
    (OSError("disk"), False),
    (KeyboardInterrupt(), False),
]


@pytest.mark.parametrize(("error", "expected"), TABLE, ids=lambda value: type(value).__name__)
def test_only_what_may_go_well_the_second_time_is_transient(
    error: BaseException, expected: bool
) -> None:
    assert retry.is_transient(error) is expected


def tries(*errors: Exception | None) -> tuple[list[int], Exception | None]:
    """The waves asked for, and the error that is left, where each try ends so."""
    asked: list[int] = []

    def work(num_waves: int) -> None:
        asked.append(num_waves)
        error = errors[len(asked) - 1]
        if error is not None:
            raise error

    try:
        retry.with_retry(work)
    except Exception as error:
        return asked, error
    return asked, None


def test_work_is_tried_once_more_in_two_waves(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "csr")
    lost = EngineLost("The engine died.")
    again = EngineLost("It died again.")
    assert tries(None) == ([1], None)
    assert caplog.messages == []
    assert tries(lost, None) == ([1, 2], None)
    assert caplog.messages == ["Trying once more, in smaller batches. EngineLost: The engine died."]
    assert tries(lost, again, None) == ([1, 2], again)
    wrong = ModelError("wrong")
    assert tries(wrong, None) == ([1], wrong)
