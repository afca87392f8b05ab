"""A run's tracker: noted beside the run, and told by a process of its own.

Which tracker it is decides nothing of what a run makes, so it is part of no fingerprint and can
change at any time; `tracker.json` in the run's folder has it. The process shares nothing with the
run: a tracker that crashes, hangs or finds no network costs the run neither time nor its result.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from csr.errors import ConfigError, CSRError, EnvironmentFault
from csr.files import disk_errors
from csr.protocols import Json
from csr.tracking import Tracker
from flows import environment
from flows.choices import TrackerChoice
from flows.home import open_store
from flows.recipe_file import apply_override
from flows.tracked import log_run
from flows.tracker_check import check_tracker
from flows.validation import validate
from storage.atomic import read_json, short_lock, write_json
from storage.attempt import parse_iteration_id
from storage.run_store import RunStore

logger = logging.getLogger("csr")

END_SECONDS = 60.0
"""For what was logged to reach its place after the run's end; then the process ends itself."""
_MARGIN_SECONDS = 5.0

WORKER = (sys.executable, "-P", "-m", "flows.tracking_worker")
_lock = threading.Lock()
_running: dict[tuple[str, str], _Worker | None] = {}
"""Home and run -> its process; None where the run has no tracker, or its process ended."""


def keep_tracker(store: RunStore, run_id: str, choice: TrackerChoice | None) -> None:
    """Note the run's tracker, or that it has none from now on."""
    path = _path(store, run_id)
    if choice is not None:
        write_json(path, choice.model_dump(mode="json"))
    else:
        with disk_errors(path):
            path.unlink(missing_ok=True)


def kept_tracker(store: RunStore, run_id: str) -> TrackerChoice | None:
    """The run's tracker, where it has one."""
    path = _path(store, run_id)
    return validate(TrackerChoice, read_json(path), path.name) if path.exists() else None


def track_run(
    home: Path, run_id: str, name: str | None = None, settings: tuple[str, ...] = ()
) -> Json:
    """Tell a tracker all that it does not have of a run, in this process.

    `settings` are the tracker's own, as `project=mine`. ConfigError where there is no such tracker
    or the run names none; EnvironmentFault where its package is missing, or it fails.
    """
    store = open_store(home)
    with store.lock(run_id), tracker_lock(store, run_id):
        choice = _chosen(store, run_id, name, settings)
        check_tracker(choice)
        tracker: Tracker = choice.build(home=store.home, run_id=run_id)
        with _failure_told(choice.name):
            num_new = log_run(store, run_id, tracker)
            tracker.close()
    return {
        "run_id": run_id,
        "tracker": choice.name,
        "num_new_figures": num_new,
        "shown_by": tracker.shown_by,
    }


def tracker_lock(store: RunStore, run_id: str) -> AbstractContextManager[None]:
    """Be the only process that tells a tracker of the run, else two might tell the same.

    Waits for one that still finishes, which it does within `END_SECONDS`, when its run was killed.
    """
    return short_lock(store.run_path(run_id) / ".tracker.lock")


def _chosen(
    store: RunStore, run_id: str, name: str | None, settings: tuple[str, ...]
) -> TrackerChoice:
    kept = kept_tracker(store, run_id)
    if name is None and kept is None:
        raise ConfigError(
            f"Run {run_id} has no tracker. Name one, as in csr track {run_id} tensorboard."
        )
    same = kept is not None and name in (None, kept.name)
    document = kept.model_dump(mode="json") if kept is not None and same else {"name": name}
    for setting in settings:
        apply_override(document, setting)
    return validate(TrackerChoice, document, "tracker")


@contextlib.contextmanager
def _failure_told(name: str) -> Iterator[None]:
    """A tracker may raise anything."""
    try:
        yield
    except CSRError:
        raise
    except Exception as error:
        raise EnvironmentFault(
            f"The tracker {name!r} failed ({type(error).__name__}: {error}). Mend that, then start "
            "the same command again: it goes on with what is missing."
        ) from error


def tell_tracker(home: str, attempt_id: str) -> None:
    """Have the run's tracker told what the attempt has by now. Returns at once, raises nothing."""
    key = home, parse_iteration_id(attempt_id).run_id
    with _lock:
        try:
            if key not in _running:
                _running[key] = _started(*key)
            worker = _running[key]
            if worker is not None and not worker.tell(attempt_id):
                _running[key] = None
                worker.close()
        except (CSRError, OSError) as error:
            _running[key] = None
            logger.warning("%s: its tracker is told nothing: %s", key[1], error)


def close_trackers() -> None:
    """Let the processes of this process finish; what cannot be told is a warning."""
    with _lock:
        while _running:
            worker = _running.popitem()[1]
            if worker is not None:
                worker.close()


def _path(store: RunStore, run_id: str) -> Path:
    return store.run_path(run_id) / "tracker.json"


def _started(home: str, run_id: str) -> _Worker | None:
    store = RunStore(Path(home))
    return _Worker(store, run_id) if _path(store, run_id).exists() else None


class _Worker:
    """The process that tells the tracker of one run."""

    def __init__(self, store: RunStore, run_id: str) -> None:
        self._run_id = run_id
        self._log = store.run_path(run_id) / "tracker.log"
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [*WORKER, str(store.home), run_id],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment.for_stage_process(),
                start_new_session=True,  # Ctrl-C reaches the run, which lets this one finish
            )

    def tell(self, attempt_id: str) -> bool:
        """Hand an attempt's ID over; False where the process has ended."""
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(f"{attempt_id}\n".encode())
            stdin.flush()
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Wait until it is done, but not for ever."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended, which its status tells
            self._process.stdin.close()
        try:
            status = self._process.wait(END_SECONDS + _MARGIN_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        if status != 0:
            logger.warning(
                "%s: its tracker was not told all (%s). The run is whole, and `csr track` tells "
                "the rest.",
                self._run_id,
                _last_line(self._log),
            )


def _last_line(log: Path) -> str:
    """Of what the process said; an error's message is there."""
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if lines:
            return lines[-1]
    return "it ended without a word"
