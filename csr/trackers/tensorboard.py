"""TensorBoard: event files below the run's folder. What they hold already is read from them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from csr.config import ComponentConfig
from csr.tracking import Point, Track, Tracker, new_points

REQUIRES = "tensorboard"


class Config(ComponentConfig):
    """Nothing to choose: the events lie in `RUN/tensorboard` below the home."""


def build(config: Config, *, home: Path, run_id: str) -> Tracker:
    """The tracker of one run. Needs neither torch nor TensorFlow."""
    return _TensorBoard(home, home / run_id / "tensorboard")


class _TensorBoard:
    """One folder of events a track."""

    def __init__(self, home: Path, folder: Path) -> None:
        self._folder = folder
        self.shown_by = f"tensorboard --logdir {shlex.quote(str(home))}"

    def log(self, track: Track, points: Sequence[Point]) -> int:
        folder = self._folder / track.part
        new = new_points(points, logged_numbers(folder))
        if new:
            _write(folder, new)
        return sum(len(point.figures) for point in new)

    def close(self) -> None:
        pass


def logged_numbers(folder: Path) -> dict[str, set[int]]:
    """Name of a figure -> steps at which the folder's event files have it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not folder.is_dir():
        return {}
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})  # 0: keep all
    events.Reload()
    return {tag: {each.step for each in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def _write(folder: Path, points: Sequence[Point]) -> None:
    """A new file of events, complete before it counts: TensorBoard reads all of a folder."""
    import time

    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))
    for point in points:
        values = [
            Summary.Value(tag=name, simple_value=value) for name, value in point.figures.items()
        ]
        event = Event(wall_time=time.time(), step=point.number, summary=Summary(value=values))
        writer.add_event(event)
    writer.close()
