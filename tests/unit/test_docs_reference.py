"""The pages that are made from the code: every field, every column, every command."""

import re
from pathlib import Path

from docs.generate import commands, tables
from flows import recipe_fields
from flows.components import Component
from storage.schema import TABLES
from tests.documents import verbs
from tests.scripted_run import Csr

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_page_is_in_the_navigation() -> None:
    index = (DOCS / "index.md").read_text()
    listed = re.findall(r"^(?:[^<\n]+<)?([\w/]+\.(?:md|rst))>?$", index, re.MULTILINE)
    written = {page.name for page in (*DOCS.glob("*.md"), *DOCS.glob("*.rst"))} - {"index.md"}
    assert {name for name in listed if "/" not in name} == written
    assert len(listed) == len(set(listed))


def test_every_setting_says_what_it_is() -> None:
    silent = [
        f"{model.__module__}.{name}"
        for model in recipe_fields.models()
        for name, field in model.model_fields.items()
        if not field.description and not recipe_fields.models_of(field.annotation)
    ]
    assert silent == []


def test_the_recipe_page_has_every_setting() -> None:
    page = recipe_fields.page()
    models = list(recipe_fields.models())
    assert len(models) > 25
    assert not any(issubclass(model, Component) for model in models)
    for model in models:
        for name in model.model_fields:
            assert f"**`{name}`** (" in page, f"{model}.{name}"


def test_a_setting_is_told_with_type_bounds_and_default() -> None:
    page = recipe_fields.page()
    anchor = '<a id="recipe-num-iterations"></a>'
    assert f"- {anchor}**`num_iterations`** (whole number ≥ 0 and ≤ 99, default `3`)\\\n" in page
    assert "**`stage_timeout_seconds`** (number > 0 or null, default null)" in page
    assert "**`isolation`** (`inline` or `process`, default `inline`)" in page
    assert "**`prompts`** (path or hub id, **required**)" in page
    assert "**`gradient_checkpointing`** (true or false, default `false`)" in page
    assert "**`temperatures`** (list of number of length ≥ 1, default `[0.3, 0.8]`)" in page
    assert "| `num_candidates` | `5` | `5` | `5` |" in page
    assert "One of [dpo](#trainer-dpo), " in page


def test_presets_of_the_reward_stand_at_the_reward_alone() -> None:
    page = recipe_fields.page()
    assert page.count("| `statistics_scope` |") == 1
    assert "| `statistics_scope` |" in page.partition("\n## reward\n")[2].partition("\n## ")[0]


def test_a_section_is_printed_for_the_terminal(csr: Csr) -> None:
    one = csr("recipes", "--fields", "trainer.dpo").out
    assert one.startswith("## trainer: dpo\n")
    assert "- **`beta`** (number > 0, default `0.1`)\n" in one
    every = csr("recipes", "--fields", "trainer").out
    assert [line for line in every.splitlines() if line.startswith("## ")] == [
        "## trainer: dpo", "## trainer: scripted", "## trainer: sft",
    ]  # fmt: skip
    whole = csr("recipes", "--fields", "recipe").out
    assert "**`num_iterations`** (whole number ≥ 0 and ≤ 99, default `3`)\n" in whole
    assert "<a id=" not in whole
    assert "](#" not in whole


def test_a_section_that_is_not_there_is_refused(csr: Csr) -> None:
    answer = csr("recipes", "--fields", "trainr")
    assert (answer.status, answer.out) == (2, "")
    assert "no section 'trainr'. Did you mean 'trainer'? Known: critic, critic.human," in answer.err


def test_the_tables_page_has_every_column_with_its_unit() -> None:
    page = tables.page()
    for table in TABLES.values():
        assert f"## {table.name}\n" in page
        for column in table.columns:
            assert f"| `{column.name}` |" in page
    assert "| `sum_logprob` | double | nats | sum of token_logprobs |" in page
    assert "| `chair_s` | CHAIR_s: captions that name an absent object | lower is better |" in page


def test_the_commands_page_has_every_command_with_its_examples() -> None:
    page = commands.page()
    sections = {text.split()[0]: text for text in page.split("\n## csr ")[1:]}
    assert sections.keys() == set(verbs())
    for name, text in sections.items():
        assert f"csr {name}" in text.partition("**Examples**")[2]
