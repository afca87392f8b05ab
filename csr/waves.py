"""Work in several smaller batches, one after another: less memory, the same results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from csr.protocols import Progress

T = TypeVar("T")


def in_waves(
    items: Sequence[T], num_waves: int, progress: Progress
) -> Iterator[tuple[Sequence[T], Progress]]:
    """At most `num_waves` consecutive parts of nearly equal size, none of them empty.

    With each comes a callback for its own progress, which `progress` then sees as that of all.
    """
    size = wave_size(len(items), num_waves)
    for start in range(0, len(items), size):
        yield items[start : start + size], _shifted(progress, start, len(items))


def wave_size(num_items: int, num_waves: int) -> int:
    """How many items a wave takes; the last one may have fewer."""
    return max(-(-num_items // num_waves), 1)


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _: progress(before + done, total)
