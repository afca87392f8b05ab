"""One case: a run with a fault at one event, then the same command again, undisturbed."""

import random
import re
import shutil
import signal
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csr.errors import CSRError
from tests.faults.command import RUN, Ended, run, start_parent
from tests.faults.events import ALL_CHANGES, TAKES_SPACE, Fault
from tests.faults.results import damage, finished, leftovers, made, report_time
from tests.scripted_run import write_recipe

KILLED = -signal.SIGKILL
REFUSED = {
    "full": "the disk is full",
    "full_once": "the disk is full",
    "read_only": "the file system is read-only",
}
"""Kind of fault -> what the command must say."""

Case = tuple[Fault, ...]
"""The faults that a run meets one after another, each time it is started."""


@dataclass(frozen=True)
class Undisturbed:
    """A run in peace: what every other one must make, and the events to disturb."""

    recipe: Path
    folder: Path
    events: list[str]
    made: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What is wrong after a case; nothing, if all is well."""

    faults: Case
    name: str
    problems: list[str]
    num_faults: int
    """How many of the faults the run met before its end."""


def undisturbed(folder: Path) -> Undisturbed:
    """A recipe in `folder`, run once."""
    recipe = write_recipe(
        folder / "data",
        data={
            "prompts": str(folder / "data" / "train.jsonl"),
            "images": str(folder / "data" / "images"),
            "num_prompts_per_iteration": 4,
        },
    )
    start_parent()
    home = folder / "undisturbed"
    ended = run(recipe, home, folder / "undisturbed_log")
    assert ended.status == 0, ended.err
    return Undisturbed(recipe, folder, ended.events, made(home, RUN))


def attempt(peace: Undisturbed, faults: Case, start: Callable[..., Ended] = run) -> Result:
    """`start` the run into the faults one after another, then to the end; compare."""
    try:
        return _attempt(peace, faults, start)
    except CSRError as error:  # a file that cannot be read any more is a finding, not the end
        return Result(faults, str(faults), [str(error)], 0)


def _attempt(peace: Undisturbed, faults: Case, start: Callable[..., Ended]) -> Result:
    name = " then ".join(f"{f.kind}-{f.at}" for f in faults)
    folder = peace.folder / name
    home = folder / "home"
    folder.mkdir()
    problems, before, num_met = [], {}, 0
    for number, fault in enumerate(faults):
        ended = start(peace.recipe, home, folder / f"fault{number}", fault)
        num_met += ended.status != 0
        must = number == 0
        problems += _fault_problems(peace, fault, ended, must=must)
        problems += damage(home, RUN)
        problems += _changed(before, finished(home, RUN))
        before = finished(home, RUN)
    reported = report_time(home, RUN)
    ended = start(peace.recipe, home, folder / "recovery")
    problems += recovery_problems(peace, home, ended)
    problems += _changed(before, finished(home, RUN))
    if report_time(home, RUN) in (None, reported):
        problems.append("no report was written")
    if not problems:
        shutil.rmtree(folder)
    return Result(faults, name, problems, num_met)


def recovery_problems(peace: Undisturbed, home: Path, ended: Ended) -> list[str]:
    """What is wrong with a run that came to its end."""
    if ended.status != 0:
        return [f"the recovery ended with {ended.status}: {ended.last_line}"]
    problems = damage(home, RUN) + [f"left behind: {name}" for name in leftovers(home)]
    found = made(home, RUN)
    different = [k for k in peace.made.keys() | found.keys() if peace.made.get(k) != found.get(k)]
    return problems + [f"differs: {key}" for key in sorted(different)]


def _fault_problems(peace: Undisturbed, fault: Fault, ended: Ended, *, must: bool) -> list[str]:
    """What is wrong with the way in which the disturbed run ended."""
    if not must and ended.status == 0:
        return []
    if fault.kind in ("kill", "torn"):
        if ended.status != KILLED:
            return [f"was not killed: {ended.status} {ended.last_line}"]
        if must and ended.events != peace.events[: fault.at]:
            return [f"killed at another event: {ended.events[-1:]}"]
        return []
    if "Traceback" in ended.err:
        return [f"a traceback at {ended.events[fault.at - 1]}: {ended.last_line}"]
    told = REFUSED[fault.kind] in ended.last_line and "same command" in ended.last_line
    if ended.status not in (1, 2) or not told:
        return [f"ended with {ended.status}: {ended.last_line!r}"]
    return []


def _changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [f"done over: {key}" for key, time in before.items() if after.get(key) != time]


def run_all(
    peace: Undisturbed,
    cases: Iterable[Case],
    num_jobs: int = 2,
    show: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Every case, some at a time, in order."""

    def one(faults: Case) -> Result:
        result = attempt(peace, faults)
        show(result)
        return result

    with ThreadPoolExecutor(num_jobs) as pool:
        return list(pool.map(one, cases))


def kills(peace: Undisturbed) -> list[Case]:
    """SIGKILL just before each event, and after the last one would be too late."""
    return [(Fault("kill", at),) for at in range(1, len(peace.events) + 1)]


def tears(peace: Undisturbed) -> list[Case]:
    """SIGKILL with half of a file written, for each file that is written."""
    places = enumerate(peace.events, start=1)
    return [(Fault("torn", at),) for at, name in places if _syncs_a_file(name)]


def double_kills(peace: Undisturbed, num_cases: int, seed: int) -> list[Case]:
    """SIGKILL at a random event, and at a random event of the recovery."""
    rng, num_events = random.Random(seed), len(peace.events)
    cases = []
    for _ in range(num_cases):
        first = rng.randint(1, num_events)
        # A recovery has fewer events than a whole run, by those of the stages that are done.
        second = rng.randint(1, max(1, num_events - first))
        cases.append((Fault("kill", first), Fault("kill", second)))
    return cases


def refusals(peace: Undisturbed, kind: str) -> list[Case]:
    """A disk that refuses to write, for each event that it can refuse."""
    places = enumerate(peace.events, start=1)
    refused = ALL_CHANGES if kind == "read_only" else TAKES_SPACE
    return [(Fault(kind, at),) for at, name in places if name.split()[0] in refused]


def _syncs_a_file(name: str) -> bool:
    """Rather than a folder."""
    return bool(re.match(r"fsync .*\.(json|parquet|html|safetensors)(\.\*\.tmp)?$", name))
