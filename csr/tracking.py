"""What a tracker is told of a run: tracks of numbered points, each with named figures.

A run's own files are the truth, and a tracker only repeats it: the same points may be handed over
any number of times, and stand in the tracker once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One curve sheet: what wandb and trackio call a run, and TensorBoard a folder of events.

    `Track(run_id="tiny-b0f2", part="02.1-training", axis="optimizer_step")`
    """

    run_id: str
    part: str = ""
    """Which of the run's tracks; "" is the run's own, with its figures by iteration."""
    axis: Literal["iteration", "optimizer_step"] = "iteration"
    """What a point's number counts."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The configuration that the figures come from, plain JSON."""

    @property
    def track_id(self) -> str:
        """Names it among all runs' tracks: letters, digits, ".", "_" and "-"."""
        return f"{self.run_id}-{self.part}" if self.part else self.run_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Figures at one place of a track's axis, e.g. `evaluate/chair_s` at iteration 2."""

    number: int
    figures: Mapping[str, float]


class Tracker(Protocol):
    """Shows figures somewhere; one backend of `csr/trackers`.

    A backend's module has `REQUIRES`, the package that it imports, and `build(config, home=,
    run_id=)`. What it raises is told as a warning: a run never fails by its tracker.
    """

    @property
    def shown_by(self) -> str:
        """How a person looks at it: a command, or an address."""

    def log(self, track: Track, points: Sequence[Point]) -> int:
        """Log every figure that the track does not have at that number yet; how many these were."""

    def close(self) -> None:
        """Bring what was logged to its place. Nothing is logged afterwards."""


def new_points(points: Sequence[Point], logged: Mapping[str, Collection[int]]) -> list[Point]:
    """The points without what was logged: name of a figure -> numbers at which it stands."""
    left = [
        Point(
            number=point.number,
            figures={
                name: value
                for name, value in point.figures.items()
                if point.number not in logged.get(name, ())
            },
        )
        for point in points
    ]
    return [point for point in left if point.figures]
