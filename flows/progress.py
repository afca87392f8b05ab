"""What a person sees on standard error: live bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from csr.protocols import Progress as ProgressCallback

console = Console(stderr=True)

_SECONDS_BETWEEN_LINES = 15.0
_bars: Progress | None = None
_relay: Callable[[str], ProgressCallback] | None = None


@contextmanager
def live_bars() -> Iterator[None]:
    """Show the work begun inside as bars with counts and remaining time."""
    global _bars
    if not console.is_terminal or _bars is not None:
        yield
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as bars:
        _bars = bars
        try:
            yield
        finally:
            _bars = None


@contextmanager
def stage_progress(label: str) -> Iterator[ProgressCallback]:
    """A callback taking (done, total) for one piece of work; its bar goes when that ends."""
    if _relay is not None:
        yield _relay(label)
        return
    if _bars is None:
        yield _LinePrinter(label)
        return
    bars = _bars
    bar = bars.add_task(label, total=None)
    try:
        yield lambda done, total: bars.update(bar, completed=done, total=total)
    finally:
        bars.remove_task(bar)


def relay_progress(report: Callable[[str], ProgressCallback]) -> None:
    """Show nothing in this process; `report` gives a label's callback. For child processes."""
    global _relay
    _relay = report


def log_to_console() -> None:
    """Print the lines of the `csr` logger, and Python's warnings as such lines, each once.

    PEFT and torch warn in no other way; as lines, warnings get into a flow's log too.
    """
    logging.captureWarnings(True)
    logging.getLogger("csr").setLevel(logging.INFO)
    for logger in (logging.getLogger("csr"), logging.getLogger("py.warnings")):
        # Prefect's handler on the root logger would print warnings a second time.
        logger.propagate = False
        if not any(isinstance(handler, _ConsoleHandler) for handler in logger.handlers):
            logger.addHandler(_ConsoleHandler())


@contextmanager
def clean_stdout() -> Iterator[None]:
    """Send what engines and their child processes print on standard output to standard error.

    Standard output is for the answer of the command alone.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _print_line(text: str) -> None:
    """Never wrapped: a line in a log file stays one line."""
    console.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)


class _ConsoleHandler(logging.Handler):
    """Writes above the bars, with the time of day."""

    def emit(self, record: logging.LogRecord) -> None:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        text = record.getMessage()
        if record.name == "py.warnings":
            text = text.partition("\n")[0]  # the second line is the source code
        _print_line(f"{clock} {level}{text}")


class _LinePrinter:
    """Prints a line now and then."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._started = self._printed = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._printed < _SECONDS_BETWEEN_LINES:
            return
        self._printed = now
        elapsed = now - self._started
        left = f", about {elapsed / done * (total - done):.0f} s to go" if done else ""
        _print_line(f"{self._label}: {done}/{total}, {elapsed:.0f} s elapsed{left}")
