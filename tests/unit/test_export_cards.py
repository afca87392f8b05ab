"""Pieces of the cards: tables, blocks, figures, and what of this machine they leave out."""

from pathlib import Path

import pytest

from csr.errors import ConfigError
from flows.exporting.markdown import indented, sections, shareable, table, warned
from flows.exporting.model_card import metric_rows
from flows.exporting.output import RECORD, checked_output, new_folder


def test_hallucination_stands_with_recall_and_length_and_their_errors() -> None:
    base = {"chair_s": 0.295, "chair_s_se": 0.0228, "recall": 0.9888, "my_own": 1.0,
            "mean_response_tokens": 27.19}  # fmt: skip
    now = {"chair_s": 0.0675, "chair_s_se": 0.0125, "recall": 0.9754, "pope_accuracy": 0.5}
    assert metric_rows(base, now) == [
        ("`chair_s` (lower is better)", "0.295 ± 0.023", "0.068 ± 0.013", "-0.227"),
        ("`recall` (higher is better)", "0.989", "0.975", "-0.013"),
        ("`mean_response_tokens`", "27.190", "–", "–"),
        ("`pope_accuracy` (higher is better)", "–", "0.500", "–"),
    ]


def test_markdown_stays_in_its_place() -> None:
    assert table(("a", "b"), [("x|y", "")]) == "| a | b |\n| --- | --- |\n| x\\|y |  |"
    assert indented({"a": "```\nb"}) == '    {\n      "a": "```\\nb"\n    }'
    assert warned(["one\n\n# two"]) == "> **one # two**"
    assert sections("a", "", "b") == "a\n\nb\n"


def test_folders_of_this_machine_are_left_out() -> None:
    settings = {"model": "/home/me/llava", "hub": "me/llava", "many": ["/a/b.json", 1, None]}
    assert shareable(settings) == {"model": "llava", "hub": "me/llava", "many": ["b.json", 1, None]}


def test_an_output_that_would_swallow_or_enter_an_input_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, images = tmp_path / "home/run", tmp_path / "data/images"
    run.mkdir(parents=True)
    images.mkdir(parents=True)

    def checked(output: Path, overwrite: bool = False) -> Path:
        return checked_output(output, overwrite=overwrite, closed=[run], read=[images])

    for bad in (run, run / "out", tmp_path / "home", tmp_path, images, tmp_path / "data"):
        with pytest.raises(ConfigError):
            checked(bad, overwrite=True)
    (tmp_path / "link").symlink_to(run)
    with pytest.raises(ConfigError, match="which holds what is exported"):
        checked(tmp_path / "link/out")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for bad in (Path(), here, Path("/proc")):
        with pytest.raises(ConfigError, match="Give a new folder inside it"):
            checked(bad)
    assert checked(Path("out")) == here / "out"
    assert checked(tmp_path / "data/out") == tmp_path / "data/out"
    assert checked(images / "out") == images / "out"


def test_behind_a_link_the_folder_it_leads_to_is_replaced(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    (real / RECORD).write_text("old")
    link.symlink_to(real)
    out = checked_output(link, overwrite=True, closed=[], read=[])
    with new_folder(out) as building:
        (building / "new").touch()
    assert [path.name for path in real.iterdir()] == ["new"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "later")
    assert checked_output(dangling, overwrite=False, closed=[], read=[]) == tmp_path / "later"


def test_what_fails_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / RECORD).write_text("old")

    def fail() -> None:
        with new_folder(out) as building:
            (building / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (out / RECORD).read_text() == "old"
    with new_folder(out) as building:
        (building / "new").touch()
    assert [path.name for path in out.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
