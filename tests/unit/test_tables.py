"""Tables in terminals of any width: whole figures, whole ids, and nothing that is obeyed."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows.cli_options import print_table
from flows.tables import Sheet, table
from tests.scripted_run import Csr, finished_home

METRICS = [f"a_figure_with_a_long_name_{number}" for number in range(9)]
SHEET = Sheet(
    ["iteration", "status", *METRICS],
    [
        [f"tiny-4f2a/{number:02d}", "done", *(f"{number}.12{place}" for place in range(9))]
        for number in range(6)
    ],
    title="Run tiny-4f2a",
)
FIGURES = {f"{number}.12{place}" for number in range(6) for place in range(9)}


def drawn(renderable: Any, width: int) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_every_figure_is_whole_where_the_columns_do_not_fit(width: int) -> None:
    shown = drawn(SHEET, width)
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    words = set(shown.split())
    assert words >= {*FIGURES, *METRICS, *(f"tiny-4f2a/{number:02d}" for number in range(6))}
    [row, *_] = [line for line in shown.splitlines() if METRICS[8] in line]
    assert row.split("│")[2].strip() == "0.128"  # the first iteration's, beside its name


def test_one_table_where_the_columns_fit() -> None:
    shown = drawn(SHEET, 400)
    assert shown.count("iteration") == 1
    [row] = [line for line in shown.splitlines() if "tiny-4f2a/05" in line]
    assert [word for word in row.split() if word in FIGURES] == [f"5.12{n}" for n in range(9)]


def test_as_many_columns_stand_beside_each_other_as_fit() -> None:
    """29 + 3 for the names, 12 + 3 for an iteration, 1 for the last line: two need 63."""
    name = "figure of twenty-nine letters"
    sheet = Sheet(["iteration", name, name], [["tiny-4f2a/00", "1", "2"]] * 4)
    assert drawn(sheet, 62).count("iteration") == 4
    assert drawn(sheet, 63).count("iteration") == 2


def test_a_long_id_goes_on_in_the_next_line() -> None:
    run_id = "r" * 64
    shown = drawn(table(["run", "status"], [[run_id, "done"]]), 40)
    assert "…" not in shown
    assert shown.count("r") - 1 == 64  # one in the heading


@pytest.mark.parametrize("text", ["[/red]", "[old]", "[bold]x[/bold]", "a[link=x]b"])
def test_brackets_are_no_markup(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    for renderable in (table([text], [[text]], text), Sheet([text], [[text]], text), text):
        print_table(renderable)
        assert text in capsys.readouterr().out


def test_control_characters_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("a\x1b[2Jb", "a\x1b]0;title\x07b", "a\rb", "a\x9bb", "a\u202eb"):
        print_table(table([text], [[text]], text), text)
        out = capsys.readouterr().out
        assert not {"\x1b", "\x07", "\r", "\x9b", "\u202e"} & set(out)
        assert "b" in out


def test_a_plain_text_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("one\ntwo")
    assert capsys.readouterr().out == "one\ntwo\n"


def test_the_command_to_look_with_can_be_copied(csr: Csr, tmp_path: Path) -> None:
    folder = tmp_path / "runs [old] of $USER"
    told = csr("track", "mine", "tensorboard", "--home", finished_home(csr, folder, "mine")).out
    [command] = re.findall("tensorboard --logdir .*", told)
    assert shlex.split(command) == ["tensorboard", "--logdir", str(folder / "home")]
