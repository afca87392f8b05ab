"""What a report shows of pairs, demonstrations and trees."""

from dataclasses import replace
from pathlib import Path

import pytest

from csr.truthfulness import FalseMention
from csr.types import Demonstration
from flows.report import render_report
from flows.report_data import (
    ReportData,
    ReportDemonstration,
    ReportTree,
)
from flows.reporting import some_of_each_kind
from flows.tree_view import TreeNode
from tests.report_pages import Page, example, report_data
from tests.trees import make_prompt

HOSTILE = "<script>alert(1)</script><img src=https://evil.example/x onerror=alert(2)>\"'&{{ 7*7 }}"


@pytest.fixture
def data(tmp_path: Path) -> ReportData:
    return report_data(tmp_path)


def test_false_words_are_marked_for_who_sees_and_who_hears(data: ReportData) -> None:
    base, first = data.iterations
    marked = replace(
        first.examples[0],
        chosen_marks=(),
        rejected_marks=(FalseMention(kind="object", name="square", start=7, end=13),
                        FalseMention(kind="colour", name="blue", start=2, end=6))[::-1],
    )  # fmt: skip
    html = render_report(replace(data, iterations=[base, replace(first, examples=[marked])]))
    page = Page(html)
    text = " ".join(page.text.split())
    assert "A blue (wrong colour) square (not in the image) ." in text
    assert "What training images show is known for this page alone" in text
    [card] = [each for each in page.all("article") if "data-absent" in each]
    assert card["data-absent"] == "rejected"
    unmarked = Page(render_report(data))
    assert "Nothing says what these images show, so no word is marked." in unmarked.text
    assert [each["data-absent"] for each in unmarked.all("article")] == ["unknown"]
    assert unmarked.all("mark") == []


def test_a_tree_is_drawn_and_told(data: ReportData) -> None:
    base, first = data.iterations
    leaf = TreeNode(
        label="0.0", text="", depth=2, reward=0.0, total=1.25, kept=True, finish="eos",
        parts={}, marks=None, sides=("chosen",), children=(),
    )  # fmt: skip
    best = replace(
        leaf, label="0", text=" A red circle.", depth=1, reward=1.25, children=(leaf,),
        parts={"likelihood": -0.5, "likelihood_calibrated": 0.75, "redundancy": 0.125},
        num_left_out=3,
    )  # fmt: skip
    worst = replace(best, label="1", text=" A dog.", reward=-2.0, kept=False, children=(), sides=())
    tree = ReportTree(
        prompt_id="p1", prompt="Describe.", image_path=first.examples[0].image_path,
        roots=[best, worst], num_nodes=6, num_kept=2, num_left_out=3,
        rewards={"chosen": 1.25, "rejected": -2.0},
    )  # fmt: skip
    searched = replace(
        data,
        iterations=[base, replace(first, trees=[tree], num_trees=128)],
        truth_problems=["facts.json does not exist."],
    )
    page = Page(render_report(searched))
    assert page.text.count("Ground truth is not used: facts.json does not exist.") == 2
    text = " ".join(page.text.split()).replace("\N{MINUS SIGN}", "-")
    for shown in (
        "1 of 128 trees",
        "csr trace tiny-4f2a PROMPT_ID --iteration 1",
        "Prompt p1 : 6 candidates, 2 kept; chosen +1.25 against rejected -2.00",
        "+1.25 A red circle. ✓ chosen likelihood -0.50 → +0.75 redundancy 0.12 path so far +1.25",
        "3 more pruned below it, not shown",
        "end the response ends; its path has +1.25 ✓ chosen",
        "-2.00 A dog. pruned likelihood",
        "3 pruned candidates are left out of this large tree",
    ):
        assert shown in text, shown
    [drawing] = [svg for svg in page.all("svg") if svg.get("class") == "map"]
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert set(drawing["aria-labelledby"].split()) <= ids
    assert {box["data-node"] for box in page.all("g")} <= ids
    assert {path["class"] for path in page.all("path") if "link" in path.get("class", "")} == {
        "link chosen", "link pruned",
    }  # fmt: skip


def test_a_broken_image_is_said_in_its_place(data: ReportData, tmp_path: Path) -> None:
    base, first = data.iterations
    missing = replace(first, examples=[example(tmp_path / "gone.png")])
    page = Page(render_report(replace(data, iterations=[base, missing])))
    assert "The image cannot be shown: image" in page.text
    assert "does not exist" in page.text
    assert page.all("img") == []


def test_responses_to_imitate_are_shown_with_their_kind_and_weight(data: ReportData) -> None:
    base, first = data.iterations
    shown = ReportDemonstration(
        demonstration_id="p1/0",
        kind="rationale",
        prompt="Why is it red?",
        image_path=first.examples[0].image_path,
        text=HOSTILE,
        weight=2.5,
    )
    taught = replace(
        first, examples=[], num_demonstrations={"rationale": 3, "replay": 12},
        demonstrations=[shown, replace(shown, demonstration_id="p2/0", text="")],
    )  # fmt: skip
    page = Page(render_report(replace(data, iterations=[base, taught])))
    text = " ".join(page.text.split())
    assert "Iteration 1: 3 of kind rationale, 12 of kind replay" in text
    assert f"Why is it red? Demonstration p1/0 Rationale {HOSTILE} weight 2.500" in text
    assert "p2/0 Rationale (nothing) weight 2.500" in text
    assert {"href": "#demonstrations"} in page.all("a")
    assert page.unbalanced == []
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in Page(render_report(data)).tags}
    assert {"href": "#demonstrations"} not in Page(render_report(data)).all("a")


def test_examples_are_taken_from_every_kind() -> None:
    kinds = ["rationale"] * 6 + ["replay"] * 2
    made = [
        Demonstration(
            demonstration_id=str(n), prompt=make_prompt("p"), text="t", token_ids=None,
            weight=1.0, kind=kind, source="illume",
        )
        for n, kind in enumerate(kinds)
    ]  # fmt: skip
    assert [each.demonstration_id for each in some_of_each_kind(made, 5)] == list("06172")
    assert some_of_each_kind([], 5) == []
