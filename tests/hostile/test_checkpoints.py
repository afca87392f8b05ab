"""Hostile model directories, with components that need no more of a model than its weights."""

import pytest

from tests.hostile.cases import Case, Fine, Refused
from tests.hostile.checkpoint_cases import CHECKPOINTS
from tests.hostile.inputs import Inputs, names
from tests.scripted_run import Csr


@pytest.mark.parametrize("case", CHECKPOINTS.cases(Refused), ids=names)
def test_a_bad_model_is_one_error(csr: Csr, case: Case, inputs: Inputs) -> None:
    case.build(inputs.policy)
    answer = inputs.check_refused(csr, case.verdict.words)
    assert len(answer.err) < 1000
    assert not (inputs.policy / "owned").exists()


@pytest.mark.parametrize("case", CHECKPOINTS.cases(Fine), ids=names)
def test_an_unusual_model_serves(csr: Csr, case: Case, inputs: Inputs) -> None:
    case.build(inputs.policy)
    assert csr(*inputs.command).status == 0
    assert not (inputs.policy / "owned").exists()
