"""Messages that the docs quote are messages that the code can say."""

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

from csr.skip_reasons import SkipReason
from docs.generate.messages import PACKAGES, ROOT, messages, texts
from flows import recipe_fields
from storage.manifest import Status

DOCS = Path(__file__).resolve().parents[2] / "docs"
HEADER = "| the message says |"
INTERNAL = {"CSR_OWN_SERVER", "CSR_VLLM_KEY"}
"""Set by a run for its own children; an example of a name that users choose."""
FILLED_IN = re.compile(r"\s*(?:…|\.\.\.|\([^)]*\)|\b[NMX]\b|\b\d+\b)\s*")
"""What a quotation leaves open: an ellipsis, a parenthesis, a letter that stands for a number."""


@pytest.fixture(scope="module")
def said() -> list[str]:
    """Every text in the packages."""
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    return [" ".join(t.split()) for f in files for t in texts(ast.parse(f.read_text()))]


def quotations(page: str) -> list[str]:
    """First cells of the tables of messages."""
    quoted, inside = [], False
    for line in page.splitlines():
        inside = line.startswith(HEADER) or (inside and line.startswith("|"))
        if inside and not line.startswith((HEADER, "|---")):
            quoted.append(line.split("|")[1].strip())
    return quoted


def is_said(quotation: str, said: list[str]) -> bool:
    """Whether one text holds the quotation's parts in their order."""
    parts = [re.escape(part) for part in FILLED_IN.split(quotation) if part.strip(" .")]
    pattern = re.compile(".*".join(parts))
    return any(pattern.search(text) for text in said)


@pytest.mark.parametrize("page", ["troubleshooting.md", "own_data.md"])
def test_quoted_messages_can_be_said(page: str, said: list[str]) -> None:
    quoted = quotations((DOCS / page).read_text())
    assert len(quoted) > 10
    assert [each for each in quoted if not is_said(each, said)] == []


def test_every_reason_to_leave_something_out_is_explained() -> None:
    page = (DOCS / "troubleshooting.md").read_text()
    table = page.partition("| reason | what was left out |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(SkipReason)
    settings = set(re.findall(r"`(?:source|sampler)\.([\w.]+)", table))
    known = {name for model in recipe_fields.models() for name in model.model_fields}
    assert {part for setting in settings for part in setting.split(".")} <= known


def test_every_status_is_in_the_glossary() -> None:
    glossary = (DOCS / "glossary.md").read_text()
    assert [each for each in get_args(Status) if f"| {each} | a status: " not in glossary] == []


def test_every_variable_of_ours_is_explained() -> None:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    used = {name for f in files for name in re.findall(r"\bCSR_[A-Z_]+", f.read_text())}
    table = (DOCS / "operations.md").read_text()
    assert {name for name in used - INTERNAL if f"| `{name}` |" not in table} == set()


def test_the_check_sees_a_message_that_nobody_says(said: list[str]) -> None:
    assert is_said("there is no run … in …", said)
    assert not is_said("there is no walk … in …", said)
    assert not is_said("in … there is no run", said)
    assert quotations(f"{HEADER} why |\n|---|---|\n| a … b | c |\n\n| d | e |\n") == ["a … b"]


def test_the_page_of_messages_has_each_kind_with_its_text() -> None:
    found = messages()
    assert len(found) > 200
    [home] = [m for m in found if m.text.startswith("--home is empty")]
    assert (home.kind, home.file) == ("ConfigError", "flows/cli_options.py")
    assert any(m.text.startswith("there is no run … in ….") for m in found)
    [preset] = [m for m in found if m.text.startswith("second_similarity and a reward.")]
    assert preset.kind == "ConfigError"
    [held] = [m for m in found if "the policy before it stays current" in m.text]
    assert (held.kind, held.file) == ("RunFailed", "flows/launch.py")
