"""Keeps the traceback of an error that was told already out of a flow's log.

Prefect logs the traceback of whatever a flow of a deployment failed with, and Python prints it
once more as the flow's process ends. Both say nothing that the message in the state does not.
"""

from __future__ import annotations

import logging
import sys
from types import TracebackType

from csr.errors import CSRError, RunFailed

TOLD = (CSRError, RunFailed)
"""A user's mistake, or a run that failed: what to do stands in the message."""

_LOGGERS = ("prefect.flow_runs", "prefect.engine")


def leave_out_tracebacks() -> None:
    """Of the told errors, in this process."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_is_news)
    sys.excepthook = _print_news


def _is_news(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], TOLD))


def _print_news(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if not isinstance(error, TOLD):
        sys.__excepthook__(kind, error, traceback)
