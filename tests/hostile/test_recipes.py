"""Hostile recipes: one error each, before anything is written."""

from pathlib import Path

import pytest

from flows.config import load_recipe
from tests.hostile.cases import Case, Fine, Refused
from tests.hostile.inputs import Inputs, names
from tests.hostile.recipe_cases import OVERRIDES, PLACES, RECIPES
from tests.scripted_run import Csr

MOST_TOLD = 10_000
"""Characters of an error, a dozen screens."""


@pytest.mark.parametrize("case", RECIPES.cases(Refused), ids=names)
def test_a_bad_recipe_is_one_error(
    csr: Csr, case: Case, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inputs.recipe.write_bytes(case.build(inputs.recipe.read_text()))
    answer = inputs.check_refused(csr, case.verdict.words)
    assert len(answer.err) < MOST_TOLD
    assert not Path("owned").exists()


@pytest.mark.parametrize("case", RECIPES.cases(Fine), ids=names)
def test_an_unusual_recipe_is_read_right(case: Case, inputs: Inputs) -> None:
    expected = load_recipe(inputs.recipe)
    inputs.recipe.write_bytes(case.build(inputs.recipe.read_text()))
    assert load_recipe(inputs.recipe) == expected


@pytest.mark.parametrize("case", OVERRIDES.cases(), ids=names)
def test_a_bad_override_is_one_error(
    csr: Csr, case: Case, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = inputs.check_refused(csr, case.verdict.words, "--set", case.build())
    assert len(answer.err) < MOST_TOLD
    assert not Path("owned").exists()


@pytest.mark.parametrize("case", PLACES.cases(), ids=names)
def test_what_is_no_file_is_no_recipe(csr: Csr, case: Case, inputs: Inputs) -> None:
    inputs.recipe.unlink()
    case.build(inputs.recipe)
    inputs.check_refused(csr, case.verdict.words)
