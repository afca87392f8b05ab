"""Repeats what is compared in turns, and tells the middle and the spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.budget import Clock


@dataclass(frozen=True, slots=True)
class Timed:
    """One repetition."""

    seconds: float
    result: Any


def in_turns(
    arms: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    clock: Clock,
    synchronise: Callable[[], None],
    what: str,
    warm_up: bool = True,
) -> dict[str, list[Timed]]:
    """Each arm once a round, the order turned about every round; at least one round is made.

    The warm-up is a round that does not count. `what` names the comparison among the things
    left out when time ends it before `rounds`.
    """
    found: dict[str, list[Timed]] = {name: [] for name in arms}
    round_seconds = 0.0
    if warm_up:
        for arm in arms.values():
            _timed(arm, synchronise)
    for index in range(rounds):
        if index and not clock.allows(
            round_seconds, f"{what}: {rounds - index} of {rounds} rounds"
        ):
            break
        names = list(arms)[:: 1 if index % 2 == 0 else -1]
        started = time.perf_counter()
        for name in names:
            found[name].append(_timed(arms[name], synchronise))
        round_seconds = time.perf_counter() - started
    return found


def _timed(arm: Callable[[], Any], synchronise: Callable[[], None]) -> Timed:
    synchronise()
    started = time.perf_counter()
    result = arm()
    synchronise()
    return Timed(time.perf_counter() - started, result)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, extremes and number of the repetitions."""
    return {
        "median": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "rounds": len(values),
    }


def seconds(runs: Sequence[Timed]) -> list[float]:
    """How long each repetition took."""
    return [run.seconds for run in runs]


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Spread of the quotient, round by round: what disturbs a round disturbs both."""
    return spread([a / b for a, b in zip(above, below, strict=True)])


def synchroniser(device: str) -> Callable[[], None]:
    """Waits until the device has done what it was given."""
    if device != "cuda":
        return lambda: None
    import torch

    return torch.cuda.synchronize  # type: ignore[no-any-return]  # torch is untyped here
