"""Repeats what is compared in turns, and tells CPU and wall time, the middle and the spread."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.timing import spread

__all__ = [
    "Arm",
    "Json",
    "Measured",
    "compared",
    "growth",
    "in_turns",
    "once",
    "peak_bytes",
    "spread",
]

Json = dict[str, Any]
Arm = Callable[[int], float]
"""Does its work with the inputs of a round, which no round before had, and says how much it was."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One repetition."""

    amount: float
    """Of work, in the comparison's own unit."""
    cpu_seconds: float
    """Of all threads of this process: load of others on the machine does not count."""
    wall_seconds: float

    @property
    def rate(self) -> float:
        """Of work, a CPU second."""
        return self.amount / self.cpu_seconds


def in_turns(arms: Mapping[str, Arm], rounds: int) -> dict[str, list[Measured]]:
    """Each arm once a round, the order turned about every round, after a round that warms up."""
    found: dict[str, list[Measured]] = {name: [] for name in arms}
    for number in range(rounds + 1):
        for name in list(arms)[:: 1 if number % 2 else -1]:
            measured = once(arms[name], number)
            if number:
                found[name].append(measured)
    return found


def once(arm: Arm, number: int) -> Measured:
    """One repetition of one arm."""
    cpu, wall = time.process_time(), time.perf_counter()
    amount = arm(number)
    return Measured(amount, time.process_time() - cpu, time.perf_counter() - wall)


def compared(found: Mapping[str, Sequence[Measured]], best: str) -> Json:
    """Rates a CPU and a wall second; how many times as fast `best` is, round by round."""
    figures: Json = {}
    for name, runs in found.items():
        figures[name] = {
            "per_cpu_second": spread([run.rate for run in runs]),
            "per_second": spread([run.amount / run.wall_seconds for run in runs]),
        }
    for name, runs in found.items():
        if name != best:
            pairs = zip(found[best], runs, strict=True)
            figures[name]["times_slower"] = spread([ours.rate / run.rate for ours, run in pairs])
    return figures


def growth(sizes: Sequence[float], costs: Sequence[float]) -> Json:
    """The line of least squares, cost = fixed + each x size, and what it leaves unexplained."""
    slope, intercept = statistics.linear_regression(sizes, costs)
    residuals = [cost - intercept - slope * size for size, cost in zip(sizes, costs, strict=True)]
    return {
        "fixed": intercept,
        "each": slope,
        "largest_residual": max(map(abs, residuals)),
    }


def peak_bytes() -> int:
    """The most that this process has held in RAM so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
