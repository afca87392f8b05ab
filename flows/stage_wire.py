"""What a run's process and its stage process say to each other: JSON objects, one a line."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

import csr.errors
from csr.errors import CSRError, RunFailed
from flows.retry import is_transient

_RECEIVED_BYTES = 1 << 16


class Wire:
    """One end of a socket pair. Any thread may send, one receives."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._lock = threading.Lock()
        self._received = b""

    def send(self, **message: Any) -> None:
        """ConnectionError where the other end is gone."""
        line = json.dumps(message).encode() + b"\n"
        with self._lock:
            self._socket.settimeout(None)
            self._socket.sendall(line)

    def receive(self, deadline: float | None = None) -> dict[str, Any] | None:
        """The next message; None where the other end is gone. TimeoutError after `deadline`.

        `deadline` is in seconds of `time.monotonic`.
        """
        while b"\n" not in self._received:
            if not (part := self._next_bytes(deadline)):
                return None
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def _next_bytes(self, deadline: float | None) -> bytes:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        try:
            return self._socket.recv(_RECEIVED_BYTES)
        except ConnectionError:
            return b""


def describe_error(error: Exception) -> dict[str, str]:
    """A failure as a message. What is neither the user's nor an engine's keeps its type's name."""
    known = isinstance(error, CSRError | RunFailed)
    names = [kind.__name__ for kind in type(error).__mro__]
    if known:  # the nearest that the other end can find
        names = [name for name in names if hasattr(csr.errors, name)]
    kind = "ConnectionError" if not known and is_transient(error) else names[0]
    return {"type": kind, "message": str(error)}


def revive_error(described: dict[str, str], log: str) -> Exception:
    """The failure again: a CSRError or a lost engine as itself, any other as RunFailed."""
    kind, message = described["type"], described["message"]
    if kind == "ConnectionError":
        return ConnectionError(message)
    own = getattr(csr.errors, kind, None)
    if own is not None:
        found: Exception = own(message)
        return found
    return RunFailed(f"{kind}: {message} The whole traceback is in {log}.")
