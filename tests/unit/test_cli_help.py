"""`csr --help` teaches the command: order of use, one line each, examples, every word explained."""

import pytest

from flows.cli import app
from tests.documents import verbs
from tests.scripted_run import Csr

MAX_SUMMARY = 66
"""Characters beside the longest name, in 80 columns."""


def test_commands_stand_in_the_order_of_use(csr: Csr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    page = csr("--help").out
    groups = ["First steps", "Run", "Look", "Unattended", "The command itself"]
    starts = [page.index(f"─ {group} ─") for group in groups]
    assert starts == sorted(starts)
    assert "─ Commands ─" not in page
    some = ("doctor", "demo", "run", "rerun", "ls", "serve")
    places = [page.index(f"│ {name} ") for name in some]
    assert places == sorted(places)
    assert page.rstrip().rpartition("First steps")[2].split()[:2] == ["csr", "doctor"]


@pytest.mark.parametrize("name", verbs())
def test_a_command_is_told_in_one_line_and_with_examples(name: str) -> None:
    """`@app.command(group=..., sort_key=..., help_epilogue=examples(...))`, a short first line."""
    [summary, *_] = app[name].help.splitlines()
    assert len(summary) <= MAX_SUMMARY
    assert summary.endswith(".")
    assert f"csr {name}" in (app[name].help_epilogue or "").partition("**Examples**")[2]


@pytest.mark.parametrize("name", verbs())
def test_help_fits_a_terminal_and_explains_every_parameter(
    name: str, csr: Csr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    answer = csr(name, "--help")
    assert answer.status == 0
    assert max(map(len, answer.out.splitlines())) <= 80
    arguments = app[name].assemble_argument_collection(parse_docstring=True)
    shown = [each for each in arguments if each.show]
    assert [a.name for a in shown if not (a.parameter.help or "").strip()] == []
    for line in (app[name].help_epilogue or "").splitlines():
        assert len(line) <= 78
