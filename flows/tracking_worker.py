"""The process that tells a run's tracker: `python -m flows.tracking_worker HOME RUN`.

It reads attempts' IDs, one a line, and ends with its input. First it tells all that the run has,
so that nothing is missing where an earlier process was killed, or the tracker is another one now.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from csr.errors import CSRError
from csr.tracking import Tracker
from flows.tracked import log_attempt, log_run
from flows.tracking import END_SECONDS, kept_tracker, tracker_lock
from storage.attempt import parse_iteration_id
from storage.run_store import RunStore


def work(home: str, run_id: str) -> None:
    """Tell until the input ends, then bring all to its place within `END_SECONDS`."""
    store = RunStore(Path(home))
    with tracker_lock(store, run_id):
        choice = kept_tracker(store, run_id)
        if choice is None:
            return
        tracker: Tracker = choice.build(home=store.home, run_id=run_id)
        log_run(store, run_id, tracker)
        for line in sys.stdin:
            asked = parse_iteration_id(line.strip())
            log_attempt(store.attempt(asked.run_id, asked.iteration, asked.attempt), tracker)
        signal.setitimer(
            signal.ITIMER_REAL, END_SECONDS
        )  # ends this process, whatever it waits for
        tracker.close()


if __name__ == "__main__":
    try:
        work(*sys.argv[1:])
    except CSRError as error:
        sys.exit(str(error))
