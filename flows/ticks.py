"""Round numbers along an axis, and how they are written so that no two read the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

DIGITS = 4
"""Significant digits where more tell nothing apart."""


def nice_ticks(
    low: float, high: float, *, whole: bool = False, cover: bool = False, count: int = 5
) -> list[float]:
    """About `count` multiples of 1, 2 or 5 times a power of ten within [low, high].

    `whole` allows whole numbers only; `cover` lets the ends enclose [low, high], and a single
    value lies in the middle of three.
    """
    if high <= low:
        return [low - around(low), low, low + around(low)] if cover else [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    if whole:
        step = max(1.0, round(step))
    first, last = low / step, high / step
    if cover:
        multiples = range(math.floor(first + 1e-9), math.ceil(last - 1e-9) + 1)
    else:
        multiples = range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1)
    return [multiple * step for multiple in multiples] or [low]


def around(value: float) -> float:
    """How far an axis reaches on each side of a single value: its own size, so that it shows."""
    return abs(value) or 0.5


def tick_texts(ticks: Sequence[float]) -> list[str]:
    """Each with as many digits as the step between them asks for."""
    step = min((after - before for before, after in pairwise(ticks)), default=0)
    return [tick_text(value, _digits(value, step)) for value in ticks]


def _digits(value: float, step: float) -> int:
    if value == 0 or step <= 0:
        return DIGITS
    return max(DIGITS, 1 + math.floor(math.log10(abs(value))) - math.floor(math.log10(step)))


def tick_text(value: float, digits: int = DIGITS) -> str:
    """So many significant digits at most, whole numbers whole, without trailing zeros.

    Examples: 0.05, 12.5, 150000, 1.5e-04.
    """
    if abs(value) < 1e-12:
        return "0"
    if abs(value) < 0.001:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{exponent}"
    return f"{value:.{max(digits, len(str(round(abs(value)))))}g}"
