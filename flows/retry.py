"""Which failures are worth a second try, and how it differs. The one place that says so."""

from __future__ import annotations

import logging
from collections.abc import Callable

from csr.errors import EngineLost

logger = logging.getLogger("csr")

MAX_TRIES = 2


def is_transient(error: BaseException) -> bool:
    """Whether the same work may succeed when it is done again.

    So may that of a lost engine or a lost connection. A user's mistake, numbers that overflow
    and a failed assertion come again.
    """
    return isinstance(error, EngineLost | ConnectionError | TimeoutError) or _lost_server(error)


def try_again(error: BaseException) -> bool:
    """`is_transient`, told in the run's log."""
    if not is_transient(error):
        return False
    logger.warning("Trying once more, in smaller batches. %s: %s", type(error).__name__, error)
    return True


def num_waves(try_number: int) -> int:
    """Batches that a stage's prompts are split into, by the number of the try, from 1."""
    return min(try_number, MAX_TRIES)


def with_retry(work: Callable[[int], None]) -> None:
    """Call `work` with the number of waves, and once more where that is worth it."""
    for number in range(1, MAX_TRIES):
        try:
            return work(num_waves(number))
        except Exception as error:
            if not try_again(error):
                raise
    return work(num_waves(MAX_TRIES))


def _lost_server(error: BaseException) -> bool:
    """Prefect's client is httpx, whose errors of connection and time are none of Python's."""
    import httpx

    return isinstance(error, httpx.TransportError)
