"""Weights & Biases, on its servers or in files (`WANDB_MODE=offline`, then `wandb sync`).

What was logged cannot be asked for offline, so it is noted beside wandb's own files. Credentials
and mode come from wandb's own environment variables, such as WANDB_API_KEY.
"""

from __future__ import annotations

import json
import netrc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from csr.config import ComponentConfig
from csr.errors import EnvironmentFault
from csr.files import disk_errors, fsync, temporary_beside
from csr.tracking import Point, Track, Tracker, new_points

if TYPE_CHECKING:
    import wandb

REQUIRES = "wandb"
UPLOAD_SECONDS = 45.0
"""For a track's last figures to arrive; what has not stays on disk, for `wandb sync`."""


_Noted = dict[str, dict[str, dict[str, list[int]]]]
"""Account and project -> track -> figure -> numbers at which it was told."""


class Config(ComponentConfig):
    """Where the figures go."""

    project: str = Field(default="csr", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")
    """Project on wandb."""
    entity: str | None = None
    """User or team that has the project; None is the account's default."""


def build(config: Config, *, home: Path, run_id: str) -> Tracker:
    """The tracker of one run; its files lie below the run's folder, unless WANDB_DIR says else."""
    return _Wandb(config, Path(os.environ.get("WANDB_DIR") or home / run_id))


def check(config: Config) -> None:
    """EnvironmentFault where wandb would ask a person for a key, and nobody sits there."""
    if os.environ.get("WANDB_MODE", "online") in ("online", "shared") and not _has_key():
        raise EnvironmentFault(
            "The tracker wandb has no key for its server. Set WANDB_API_KEY, log in once with "
            "`wandb login`, or set WANDB_MODE=offline and bring the files there with `wandb sync`."
        )


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        hosts = netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return any("wandb" in host or host in os.environ.get("WANDB_BASE_URL", "") for host in hosts)


class _Wandb:
    """One run of wandb's a track, open while this object is, so that it is one folder there."""

    def __init__(self, config: Config, folder: Path) -> None:
        self._config, self._folder = config, folder
        self._runs: dict[str, wandb.Run] = {}
        self._note = folder / "wandb" / "logged.json"
        self.shown_by = f"the project {config.project} on wandb; offline, {folder / 'wandb'}"

    def log(self, track: Track, points: Sequence[Point]) -> int:
        noted = self._noted()
        logged = noted.setdefault(self._place(), {}).setdefault(track.track_id, {})
        new = new_points(points, logged)
        if not new:
            return 0
        run = self._runs.get(track.track_id) or self._start(track)
        for point in new:
            run.log({track.axis: point.number, **point.figures})
            for name in point.figures:
                logged.setdefault(name, []).append(point.number)
        self._write_note(noted)
        return sum(len(point.figures) for point in new)

    def close(self) -> None:
        if not self._runs:
            return
        import wandb

        for run in self._runs.values():
            run.finish()
        wandb.teardown()  # waits for its process: a run's last lines are written after `finish`

    def _start(self, track: Track) -> wandb.Run:
        import wandb

        with disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=self._config.project,
            entity=self._config.entity,
            id=track.track_id,
            name=track.track_id,
            group=track.run_id,
            config=dict(track.settings),
            dir=self._folder,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_git=True,
                disable_code=True,
                x_disable_stats=True,
                x_save_requirements=False,
                init_timeout=UPLOAD_SECONDS,
                finish_timeout=UPLOAD_SECONDS,
            ),
        )
        # Points come by stage, several at one number: wandb's own steps only count up.
        run.define_metric(track.axis)
        run.define_metric("*", step_metric=track.axis)
        self._runs[track.track_id] = run
        return run

    def _noted(self) -> _Noted:
        if not self._note.exists():
            return {}
        note = json.loads(self._note.read_text(encoding="utf-8"))
        if "projects" not in note:  # an older form, of one project
            return {note["project"]: note["tracks"]}
        return dict(note["projects"])

    def _place(self) -> str:
        return f"{self._config.entity or ''}/{self._config.project}"

    def _write_note(self, noted: _Noted) -> None:
        note = json.dumps({"projects": noted})
        temporary = temporary_beside(self._note)
        with disk_errors(self._note):
            temporary.write_text(note, encoding="utf-8")
            fsync(temporary)
            os.replace(temporary, self._note)
