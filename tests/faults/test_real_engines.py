"""The engines themselves killed; all chosen events are `make soak`'s."""

from pathlib import Path

import pytest

from tests.faults import real_engines
from tests.faults.cases import attempt


@pytest.mark.slow
def test_killed_in_training(tmp_path: Path) -> None:
    peace = real_engines.undisturbed(tmp_path)
    case = next(
        case
        for case in real_engines.inner_kills(peace)
        if peace.events[case[0].at - 1] == "call batch"
    )
    assert attempt(peace, case, real_engines.run).problems == []
