"""Memory that ran out, told as a lost engine: a smaller batch may do what a large one could not.

And memory that is free, given back to the machine.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from csr.errors import EngineLost

_MESSAGES = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""How torch's plain RuntimeErrors put it: its CPU allocator, the driver and cuBLAS."""


@contextmanager
def memory_errors(doing: str, advice: str) -> Iterator[None]:
    """EngineLost where memory runs out inside; other errors pass."""
    try:
        yield
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise EngineLost(f"Memory ran out while {doing} ({reason}). {advice}") from error


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether Python, or torch on a GPU or a CPU, could not have the memory it asked for."""
    # By name: torch need not be imported to tell that it did not raise this.
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"MemoryError", "OutOfMemoryError"}:
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _MESSAGES)


def give_back_freed_memory() -> None:
    """Let the machine have what this process has freed.

    glibc keeps it for later otherwise, in pieces that new batches fit into badly: a process that
    samples shard after shard would take more with each. Does nothing with another C library.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
