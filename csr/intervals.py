"""Confidence intervals of figures, and paired tests of two policies on the same prompts.

They say what another draw of images could do to a figure, not what another training seed could:
compare runs of several seeds for that. Images are resampled whole, since what is asked of one
image is not independent (POPE asks eighteen questions about each).

- Interval: Wilson's for a share of images; else the BCa bootstrap (Efron 1987).
- Test: McNemar's, exact, where each prompt has a yes or no and an image of its own; else a
  permutation test that swaps the two policies image by image.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from csr.outcomes import Outcome, by_metric

CONFIDENCE = 0.95
NUM_RESAMPLES = 2000
_ROUNDING = 1e-12
_CHUNK_CELLS = 2_000_000
"""Cells of a batch of resamples: bounds memory where there are many images."""

IntervalMethod = Literal["wilson", "bca"]
TestMethod = Literal["mcnemar", "permutation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Where a figure lies with a confidence of 95 %."""

    low: float
    high: float
    standard_error: float
    method: IntervalMethod


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedTest:
    """One figure of two policies that answered the same prompts."""

    metric: str
    before: float
    after: float
    difference: float
    """`after` - `before`."""
    ci_low: float | None
    """Of the difference; None where all images agree, so that resampling shows nothing."""
    ci_high: float | None
    p_value: float
    """Two-sided, of no difference."""
    method: TestMethod
    mcnemar_p_value: float | None
    """McNemar's, prompt by prompt, where each is right or wrong, as papers report it. It takes what
    is asked of one image for independent; None where responses have more than a yes or a no.
    """
    num_prompts: int
    num_images: int


class _Figure:
    """The sums of one figure: arrays of shape (images, strata)."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        import numpy as np

        images = {image: place for place, image in enumerate(sorted({o.image for o in outcomes}))}
        strata = {name: place for place, name in enumerate(sorted({o.stratum for o in outcomes}))}
        self.top, self.bottom = np.zeros((2, len(images), len(strata)))
        for each in outcomes:
            cell = images[each.image], strata[each.stratum]
            self.top[cell] += each.numerator
            self.bottom[cell] += each.denominator
        self.num_images = len(images)
        self.is_share = len(strata) == 1 and len(outcomes) == len(images) and _yes_or_no(outcomes)

    def value(self, rows: Any) -> Any:
        """The figure over images at `rows`, (..., images); 0.0 where nothing is counted."""
        import numpy as np

        top, bottom = self.top[rows].sum(axis=-2), self.bottom[rows].sum(axis=-2)
        return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0).mean(axis=-1)

    def whole(self) -> float:
        import numpy as np

        return float(self.value(np.arange(self.num_images)))


def confidence_intervals(outcomes: Sequence[Outcome]) -> dict[str, Interval]:
    """Figure -> its interval; none where fewer than two images, or all alike, say nothing."""
    found = {name: _interval(_Figure(group)) for name, group in by_metric(outcomes).items()}
    return {name: interval for name, interval in found.items() if interval is not None}


def paired_tests(before: Sequence[Outcome], after: Sequence[Outcome]) -> list[PairedTest]:
    """A test of every figure that both have. The two must be of the same prompts and images."""
    old, new = by_metric(before), by_metric(after)
    return [_paired(name, old[name], new[name]) for name in old if name in new]


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979): that any is below alpha by chance alone
    is at most alpha.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = largest
    return adjusted


def _yes_or_no(outcomes: Sequence[Outcome]) -> bool:
    return all(o.denominator == 1 and o.numerator in (0, 1) for o in outcomes)


def _interval(figure: _Figure) -> Interval | None:
    if figure.num_images < 2:
        return None
    if figure.is_share:
        from scipy.stats import binomtest

        share = binomtest(int(figure.top.sum()), figure.num_images)
        low, high = share.proportion_ci(CONFIDENCE, method="wilson")
        error = math.sqrt(share.statistic * (1 - share.statistic) / figure.num_images)
        return Interval(low=float(low), high=float(high), standard_error=error, method="wilson")
    return _bca(figure.num_images, figure.value)


def _bca(num_images: int, value: Any) -> Interval | None:
    """The bootstrap interval of `value(rows)`; None where no resample differs."""
    import numpy as np
    from scipy.stats import DegenerateDataWarning, bootstrap

    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        done = bootstrap(
            (np.arange(num_images),),
            lambda rows, axis: value(rows),
            vectorized=True,
            axis=-1,
            confidence_level=CONFIDENCE,
            n_resamples=NUM_RESAMPLES,
            batch=_batch(num_images),
            method="BCa",
            rng=np.random.default_rng(0),
        )
    low, high = (float(bound) for bound in done.confidence_interval)
    error = float(done.standard_error)
    # Sums in another order differ in their last digits, where nothing else does.
    if not np.isfinite([low, high]).all() or error <= _ROUNDING:
        return None
    return Interval(low=low, high=high, standard_error=error, method="bca")


def _paired(name: str, before: Sequence[Outcome], after: Sequence[Outcome]) -> PairedTest:
    asked = [sorted((o.prompt_id, o.image, o.stratum) for o in side) for side in (before, after)]
    assert asked[0] == asked[1], f"{name}: not the same prompts"
    old, new = _Figure(before), _Figure(after)
    bounds = None
    if old.num_images > 1:
        bounds = _bca(old.num_images, lambda rows: new.value(rows) - old.value(rows))
    exact = old.is_share and new.is_share
    mcnemar = _mcnemar(before, after) if _yes_or_no([*before, *after]) else None
    p_value = mcnemar if exact and mcnemar is not None else _permutation(old, new)
    return PairedTest(
        metric=name,
        before=old.whole(),
        after=new.whole(),
        difference=new.whole() - old.whole(),
        ci_low=bounds.low if bounds else None,
        ci_high=bounds.high if bounds else None,
        p_value=p_value,
        method="mcnemar" if exact else "permutation",
        mcnemar_p_value=mcnemar,
        num_prompts=len(before),
        num_images=old.num_images,
    )


def _mcnemar(before: Sequence[Outcome], after: Sequence[Outcome]) -> float:
    """Exact: of the prompts on which the two differ, each side is likelier by chance alone."""
    from scipy.stats import binomtest

    was = {(outcome.prompt_id, outcome.stratum): outcome.numerator for outcome in before}
    changes = [outcome.numerator - was[outcome.prompt_id, outcome.stratum] for outcome in after]
    gained, lost = sum(change > 0 for change in changes), sum(change < 0 for change in changes)
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def _permutation(old: _Figure, new: _Figure) -> float:
    """Share of swaps, image by image, whose difference is at least as large, with the given one."""
    import numpy as np
    from scipy.stats import permutation_test

    both = _stacked(old, new)
    count = old.num_images
    if count < 2:
        return 1.0
    done = permutation_test(
        (np.arange(count) + count, np.arange(count)),
        lambda one, other, axis: both.value(one) - both.value(other),
        permutation_type="samples",
        vectorized=True,
        n_resamples=NUM_RESAMPLES,
        batch=_batch(count),
        axis=-1,
        rng=np.random.default_rng(0),
    )
    return float(done.pvalue)


def _stacked(old: _Figure, new: _Figure) -> _Figure:
    """Both figures' images behind each other, the old ones first."""
    import numpy as np

    both = _Figure.__new__(_Figure)
    both.top = np.concatenate([old.top, new.top])
    both.bottom = np.concatenate([old.bottom, new.bottom])
    both.num_images = len(both.top)
    both.is_share = False
    return both


def _batch(num_images: int) -> int:
    return max(1, _CHUNK_CELLS // num_images)
