"""How far a measured share may lie from the true one, for the held-out set's size.

These say what another draw of images could do to a figure. They do not say what
another training seed could do: compare runs of several seeds for that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

NUM_RESAMPLES = 1000


def binomial_se(share: float, count: int) -> float:
    """Standard error of a share of `count` independent cases; 0.0 where there are none."""
    return math.sqrt(share * (1.0 - share) / count) if count else 0.0


def bootstrap_ratio_se(
    numerators: Sequence[float], denominators: Sequence[float], *, seed: int = 0
) -> float:
    """Standard error of sum(numerators) / sum(denominators) over resampled responses.

    Both sequences hold one value a response. Mentions within one response are not
    independent, which is why whole responses are resampled. Resamples in which the
    denominator is zero are left out; 0.0 where none remains.
    """
    import numpy as np

    count = len(numerators)
    assert count == len(denominators), "one numerator and one denominator a response"
    if not sum(denominators):
        return 0.0
    generator = np.random.default_rng(seed)
    times_drawn = generator.multinomial(count, np.full(count, 1.0 / count), size=NUM_RESAMPLES)
    top = times_drawn @ np.asarray(numerators, dtype=float)
    bottom = times_drawn @ np.asarray(denominators, dtype=float)
    usable = bottom > 0
    return float(np.std(top[usable] / bottom[usable])) if usable.any() else 0.0
