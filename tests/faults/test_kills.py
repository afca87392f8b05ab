"""A run that is killed anywhere goes on, and makes what it would have made."""

import random

from tests.faults import cases
from tests.faults.cases import Undisturbed, run_all

BORDERS = ("call run_stage", "call record", "end record")
NUM_BORDERS = 18
NUM_FILE_OPERATIONS = 10
SEED = 1
"""Of the draws; `make soak` leaves out nothing."""


def failed(results: list[cases.Result]) -> dict[str, list[str]]:
    return {result.name: result.problems for result in results if result.problems}


def test_killed_at_some_borders_of_stages(peace: Undisturbed) -> None:
    at_borders = [
        faults
        for faults in cases.kills(peace)
        if peace.events[faults[0].at - 1].startswith(BORDERS)
    ]
    # Two iterations of measure, two shards, pair, train, evaluate, gate; the last two of the base.
    assert len(at_borders) == 3 * (2 * 7 + 2)
    chosen = random.Random(SEED).sample(at_borders, NUM_BORDERS)
    assert failed(run_all(peace, chosen)) == {}


def test_killed_at_some_changes_of_the_disk(peace: Undisturbed) -> None:
    changes = [f for f in cases.kills(peace) if "/" in peace.events[f[0].at - 1]]
    chosen = random.Random(SEED).sample(changes, NUM_FILE_OPERATIONS)
    assert failed(run_all(peace, chosen)) == {}


def test_killed_with_files_half_written_and_killed_again(peace: Undisturbed) -> None:
    torn = random.Random(SEED).sample(cases.tears(peace), 3)
    assert failed(run_all(peace, torn)) == {}
    twice = cases.double_kills(peace, 2, SEED)
    results = run_all(peace, twice)
    assert failed(results) == {}
    assert max(result.num_faults for result in results) == 2
