"""trackio: a database below the home, which all runs there share. It is asked what it has."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from csr.config import ComponentConfig
from csr.errors import EnvironmentFault
from csr.tracking import Point, Track, Tracker, new_points

REQUIRES = "trackio"

REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
"""Variables with which trackio would write elsewhere, where what it has cannot be asked for."""


class Config(ComponentConfig):
    """Where the figures go."""

    project: str = Field(default="csr", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
    """Project of trackio's: runs of one project are drawn together."""


def build(config: Config, *, home: Path, run_id: str) -> Tracker:
    """The tracker. EnvironmentFault where the environment sends figures to another machine."""
    if given := [name for name in REMOTE if os.environ.get(name)]:
        raise EnvironmentFault(
            f"{given[0]} is set, and figures are logged to this machine's database alone. Unset "
            "it, and bring the finished project there with `trackio sync`."
        )
    folder = os.environ.setdefault("TRACKIO_DIR", str(home / ".trackio"))
    return _Trackio(config.project, folder)


class _Trackio:
    """One run of trackio's a track, found again by its name."""

    def __init__(self, project: str, folder: str) -> None:
        self._project = project
        self.shown_by = f"TRACKIO_DIR={shlex.quote(folder)} trackio show --project {project}"

    def log(self, track: Track, points: Sequence[Point]) -> int:
        with contextlib.redirect_stdout(sys.stderr):  # it prints how to look at them
            return self._log(track, points)

    def _log(self, track: Track, points: Sequence[Point]) -> int:
        import trackio

        new = new_points(points, self._logged_numbers(track.track_id))
        if not new:
            return 0
        run = trackio.init(
            project=self._project,
            name=track.track_id,
            group=track.run_id,
            config=dict(track.settings),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        for point in new:
            run.log(dict(point.figures), step=point.number)
        trackio.finish()
        return sum(len(point.figures) for point in new)

    def _logged_numbers(self, name: str) -> dict[str, set[int]]:
        from trackio.sqlite_storage import SQLiteStorage

        logged: dict[str, set[int]] = {}
        for row in SQLiteStorage.get_logs(self._project, name):
            for figure in row.keys() - {"step", "timestamp"}:
                logged.setdefault(figure, set()).add(row["step"])
        return logged

    def close(self) -> None:
        pass
