"""No clock decides anything: a run whose clock jumps makes what it would have made."""

from functools import partial
from pathlib import Path

from storage.run_store import RunStore
from tests.faults.cases import KILLED, Undisturbed, recovery_problems
from tests.faults.command import RUN, run
from tests.faults.events import Fault
from tests.faults.hooks import jumping_clock
from tests.faults.results import finished


def test_a_clock_that_jumps_changes_nothing(peace: Undisturbed, tmp_path: Path) -> None:
    home = tmp_path / "home"
    middle = Fault("kill", peace.events.index("call run_stage train 01"))
    killed = run(
        peace.recipe,
        home,
        tmp_path / "killed",
        middle,
        partial(jumping_clock, seed=1, start_days=0),
    )
    assert killed.status == KILLED
    before = finished(home, RUN)
    assert len(before) == 6  # the base: evaluate, gate; measure, two shards, pair

    # Resumed a year earlier, says the clock.
    ended = run(
        peace.recipe,
        home,
        tmp_path / "resumed",
        before=partial(jumping_clock, seed=2, start_days=-365),
    )
    assert recovery_problems(peace, home, ended) == []
    after = finished(home, RUN)
    assert {key: after[key] for key in before} == before
    stages = RunStore(home).attempt(RUN, 1).manifest.read().stages
    assert stages[-1].started_at < stages[0].started_at, "the clock did not jump"
    assert any(stage.finished_at < stage.started_at for stage in stages)
