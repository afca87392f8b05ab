"""A few of many, from all over them."""

from __future__ import annotations


def spread(total: int, count: int) -> list[int]:
    """`count` indices below `total`, evenly over all of it; all where they are fewer.

    Both ends are among them where it is two or more.
    """
    if total <= count:
        return list(range(total))
    if count < 2:
        return [0][:count]
    return [n * (total - 1) // (count - 1) for n in range(count)]
