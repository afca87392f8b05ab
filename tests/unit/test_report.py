import base64
import hashlib
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from csr.gates import Verdict
from csr.truthfulness import FalseMention
from csr.types import Demonstration
from flows.report import CONTENT_SECURITY_POLICY, SCRIPT, render_report
from flows.report_data import (
    ReportAnswer,
    ReportCase,
    ReportComparison,
    ReportData,
    ReportDemonstration,
    ReportExample,
    ReportIteration,
    ReportStage,
    ReportTree,
)
from flows.reporting import some_of_each_kind
from flows.tree_view import TreeNode
from tests.trees import make_prompt

HOSTILE = "<script>alert(1)</script><img src=https://evil.example/x onerror=alert(2)>\"'&{{ 7*7 }}"
VOID = {"meta", "img", "br", "line", "path", "circle", "rect", "input"}
ARROW = '"></title></svg></script><script>alert(3)</script>'


class Page(HTMLParser):
    """The tags, attributes and visible text of a page; notes tags that do not close."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += data + " "

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def example(path: Path, **changes: str) -> ReportExample:
    fields = {
        "pair_id": "p1#0",
        "prompt": "Describe the image.",
        "image_path": str(path),
        "chosen": "A red circle.",
        "rejected": "A blue square.",
    }
    return ReportExample(
        **(fields | changes),
        margin=1.4375,
        chosen_parts={"reward": 2.125, "likelihood": -0.5},
        rejected_parts={"reward": 0.6875},
    )


@pytest.fixture
def data(tmp_path: Path) -> ReportData:
    picture = tmp_path / "a.png"
    Image.new("RGB", (48, 48), "red").save(picture)
    base = ReportIteration(
        iteration=0,
        attempt="tiny-4f2a/00.1",
        status="done",
        metrics={
            "chair_s": 0.2925,
            "chair_s_se": 0.0228,
            "recall": 0.972,
            "mean_response_sentences": 3.2,
            "num_captions": 400.0,
            "my_own_figure": 0.123,
        },
        stages=[ReportStage(name="evaluate", status="done", seconds=3.25)],
    )
    first = ReportIteration(
        iteration=1,
        attempt="tiny-4f2a/01.2",
        status="done",
        metrics={
            "chair_s": 0.182,
            "chair_s_se": 0.0193,
            "recall": 0.968,
            "mean_response_sentences": 3.075,
            "num_captions": 400.0,
        },
        num_prompts=128,
        num_pairs=119,
        stages=[
            ReportStage(
                name="sample",
                status="done",
                seconds=10.25,
                peak_memory_bytes=600 * 1024**2,
                skipped={"duplicate_sibling": 40},
                metrics={"num_nodes": 1200.0, "mean_depth": 2.0},
            ),
            ReportStage(
                name="sample",
                status="done",
                seconds=5.5,
                peak_memory_bytes=512 * 1024**2,
                skipped={"duplicate_sibling": 2},
                metrics={"num_nodes": 34.0, "mean_depth": 3.0},
            ),
            ReportStage(
                name="pair",
                status="done",
                seconds=0.125,
                skipped={"small_margin": 9},
                metrics={"mean_margin": 1.512},
            ),
            ReportStage(name="train", status="failed", seconds=7.0, message="the disk is full"),
        ],
        chosen={"reward": [1.0, 2.0, 3.0], "likelihood": [-0.5, -0.25, -0.1]},
        rejected={"reward": [0.0, 0.5, 1.0], "likelihood": [-0.9, -0.75, -0.5]},
        history=[{"step": 1, "loss": 0.693}, {"step": 2, "loss": 0.512}],
        examples=[example(picture)],
    )
    return ReportData(
        run_id="tiny-4f2a",
        recipe="tiny",
        status="done",
        seed=11,
        iterations=[base, first],
        config={"trainer": {"name": "dpo", "beta": 0.1}},
        versions={"trl": "1.16.0"},
        facts={"Started": "2026-01-02"},
        benchmarks={"captions": "“Describe the image.”, at most 64 tokens"},
    )


def test_every_number_is_on_the_page(data: ReportData) -> None:
    text = " ".join(Page(render_report(data)).text.split())
    for shown in (
        "tiny-4f2a", "Seed 11", "trl 1.16.0", "Started 2026-01-02", "at most 64 tokens",
        "0.292 [0.248, 0.337]", "0.182 [0.144, 0.220]", "-0.110",  # chair_s and its change
        "0.292 → 0.182 [0.144, 0.220]",  # above all, beside recall and length
        "0.972", "0.968", "3.200", "3.075", "400", "my_own_figure 0.123",
        "119 pairs from 128 prompts",
        "duplicate_sibling 42", "small_margin 9",  # shards added up
        "15.8 600", "num_nodes 1,234 mean_depth 2.500", "mean_margin 1.512", "the disk is full",
        "Pair p1#0 : margin 1.438", "2.125", "-0.500", "0.688", "A red circle.", "A blue square.",
        "beta: 0.1", "tiny-4f2a/01.2 done",
        "chair_s -37.8%, recall -0.4 points, length -3.9%",
    ):  # fmt: skip
        assert shown in text, shown


def test_the_page_is_well_formed_and_accessible(data: ReportData) -> None:
    page = Page(render_report(data))
    assert (page.unbalanced, page.open) == ([], [])
    assert page.all("html") == [{"lang": "en"}]
    assert all(attributes.get("alt") for attributes in page.all("img"))
    assert all(attributes.get("scope") for attributes in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table")) >= 4
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    regions = [each["aria-label"] for each in page.all("div") if each.get("role") == "region"]
    assert len(regions) == len(set(regions))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    labelled = {label["for"] for label in page.all("label")}
    assert labelled == {field["id"] for field in (*page.all("input"), *page.all("select"))}
    plots = [svg for svg in page.all("svg") if "aria-hidden" not in svg]
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in plots)
    targets = {a["href"] for a in page.all("a")}
    assert targets == {"#" + section["id"] for section in page.all("section")}
    sections = [a["href"] for a in page.all("a") if "class" not in a]
    assert sections == ["#" + section["id"] for section in page.all("section")]
    assert [len(page.all(tag)) for tag in ("header", "nav", "main", "footer")] == [1, 1, 1, 1]
    assert "width=device-width" in str(page.all("meta"))


def test_plots_are_drawn(data: ReportData) -> None:
    labels = [svg.get("aria-label", "") for svg in Page(render_report(data)).all("svg")]
    assert any("CHAIR_s" in label and "from 0.2925 to 0.182" in label for label in labels)
    assert (
        "Reward of the response. chosen: mean 2, 3 values. rejected: mean 0.5, 3 values." in labels
    )
    assert "loss. iteration 1: from 0.693 to 0.512." in labels


def test_nothing_is_loaded_and_nothing_runs_but_our_script(data: ReportData) -> None:
    html = render_report(data)
    page = Page(html)
    names = {tag for tag, _ in page.tags}
    assert not names & {"link", "iframe", "object", "embed", "form", "base"}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "srcset", "data"):
            assert re.match(r"data:image/(png|jpeg);base64,|#|$", attributes.get(name, ""))
    assert "url(" not in html
    assert "@import" not in html
    assert html.count("<script") == html.count("</script") == 1
    script = html[html.index("<script>") + 8 : html.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    [policy] = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert policy == CONTENT_SECURITY_POLICY
    assert policy.split("; ") == [
        "default-src 'none'", "img-src data:", "style-src 'unsafe-inline'",
        f"script-src 'sha256-{digest}'", "base-uri 'none'", "form-action 'none'",
    ]  # fmt: skip
    assert re.search("innerHTML|insertAdjacent|document.write|eval|fetch|import", SCRIPT) is None


def hostile(text: str, image: str) -> ReportIteration:
    """An iteration all of whose names and texts are that."""
    mark = FalseMention(kind="object", name="x", start=1, end=7)
    node = TreeNode(
        label=text, text=text, depth=1, reward=1.5, total=1.5, kept=False, finish=text,
        parts={text: 0.5, f"{text}_calibrated": 0.25}, marks=(mark,), sides=("chosen",),
        children=(),
    )  # fmt: skip
    pair = example(Path(image), pair_id=text, prompt=text, chosen=text, rejected=text)
    return ReportIteration(
        iteration=1,
        attempt=text,
        status=text,
        num_pairs=1,
        num_trees=1,
        num_demonstrations={text: 1},
        examples=[
            replace(
                pair, prompt_id=text, source=text, rejected_image=text, chosen_marks=(mark,),
                chosen_parts={text: 1.0},
            )
        ],
        trees=[
            ReportTree(
                prompt_id=text, prompt=text, image_path=image, roots=[node], num_nodes=1,
                num_kept=0, rewards={"chosen": 1.5, "rejected": 0.5},
            )
        ],
        demonstrations=[
            ReportDemonstration(
                demonstration_id=text, kind=text, prompt=text, image_path=image, text=text,
                weight=1.0,
            )
        ],
        stages=[ReportStage(name=text, status=text, seconds=1.0, skipped={text: 1}, message=text)],
        history=[{"step": 1, text: 0.5}, {"step": 2, text: 0.4}],
        held=text,
        gates=[Verdict(gate=text, tripped=True, value=1.0, limit=2.0, message=text)],
    )  # fmt: skip


@pytest.mark.parametrize("text", [HOSTILE, ARROW])
def test_hostile_text_is_shown_and_not_obeyed(data: ReportData, text: str) -> None:
    base, first = data.iterations
    picture = first.examples[0].image_path
    case = ReportCase(
        outcome=text, prompt_id=text, prompt=text, image_path=picture,
        answers=[ReportAnswer(iteration=0, text=text), ReportAnswer(iteration=1, text=text)],
    )  # fmt: skip
    comparison = ReportComparison(benchmark=text, num_responses=1, outcomes={text: 1}, cases=[case])
    pages = [
        Page(
            render_report(
                replace(
                    data,
                    run_id=said,
                    recipe=said,
                    status=said,
                    config={"trainer": {said: said}},
                    versions={said: said},
                    facts={said: said},
                    benchmarks={said: said},
                    truth_problems=[said],
                    comparisons=[
                        replace(
                            comparison, benchmark=said, outcomes={said: 1},
                            cases=[
                                replace(
                                    case, outcome=said, prompt_id=said, prompt=said,
                                    answers=[ReportAnswer(iteration=n, text=said) for n in (0, 1)],
                                )
                            ],
                        )
                    ],
                    iterations=[replace(base, attempt=said), hostile(said, picture)],
                )
            )
        )
        for said in (text, "plain text")
    ]  # fmt: skip
    assert [tag for tag, _ in pages[0].tags] == [tag for tag, _ in pages[1].tags]
    assert pages[0].unbalanced == []
    assert pages[0].text.count(text) >= 30
    assert len(pages[0].all("script")) == 1
    assert not [a for _, attributes in pages[0].tags for a in attributes if a.startswith("on")]


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


def test_why_a_run_failed_stands_in_the_head(data: ReportData) -> None:
    reason = "tiny-4f2a/01.2 failed in the stage train: the disk is full"

    def head(status: str) -> str:
        text = " ".join(Page(render_report(replace(data, status=status))).text.split())
        return text.partition("Held-out figures")[0]

    assert reason in head("failed")
    assert reason not in head("running")


def test_unusable_ground_truth_is_told_where_it_is_missed(data: ReportData) -> None:
    html = render_report(replace(data, truth_problems=["facts.json does not exist."]))
    told = html.split("Ground truth is not used: facts.json does not exist.")
    assert len(told) == 2  # no search is there
    assert told[0].rpartition('<section id="')[2].startswith("pairs")


def test_ids_are_named_and_kept_apart_from_the_text_around(data: ReportData) -> None:
    html = render_report(data)
    assert "Pair <bdi><code>p1#0</code></bdi>: margin" in html
    assert "<caption><code>reward</code>, <code>num_tokens</code>" in html


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


def test_a_run_that_has_just_begun_has_a_page(data: ReportData) -> None:
    page = Page(render_report(replace(data, iterations=[], status="running")))
    assert page.unbalanced == []
    for sentence in (
        "Nothing has been evaluated yet.",
        "There are no pairs.",
        "Nothing has been trained yet.",
        "Nothing was skipped.",
        "No stage has run yet.",
    ):
        assert sentence in page.text


def test_a_failed_iteration_shows_dashes_not_zeros(data: ReportData) -> None:
    base, first = data.iterations
    text = " ".join(
        Page(
            render_report(replace(data, iterations=[base, replace(first, metrics={})]))
        ).text.split()
    )
    assert "0.292 [0.248, 0.337] – –" in text
    assert "against base" not in text


def test_without_an_evaluated_base_nothing_is_held_against_it(data: ReportData) -> None:
    base, first = data.iterations
    iterations = [replace(base, metrics={}), first, replace(first, iteration=2)]
    assert "against base" not in render_report(replace(data, iterations=iterations))


def test_iterations_without_figures_keep_their_numbers(data: ReportData) -> None:
    base, first = data.iterations
    late = replace(first, iteration=3, attempt="tiny-4f2a/03.1")
    skipped = [replace(first, iteration=number, metrics={}) for number in (1, 2)]
    page = render_report(replace(data, iterations=[base, *skipped, late]))
    assert "tiny-4f2a, iteration 3, against base: chair_s -37.8%" in Page(page).text


@pytest.mark.parametrize(
    ("changes", "caution"),
    [
        ({"held": "It fell silent."}, "tiny-4f2a/01.2 is held by a gate, so the run does not"),
        ({"status": "stale"}, "tiny-4f2a/01.2 is stale: what it builds on was replaced"),
    ],
)
def test_figures_that_are_not_the_current_policys_are_told_as_such(
    data: ReportData, changes: dict[str, str], caution: str
) -> None:
    base, first = data.iterations
    assert "Caution: tiny-4f2a/01.2" not in render_report(data)
    page = render_report(replace(data, iterations=[base, replace(first, **changes)]))
    assert f"Caution: {caution}" in Page(page).text


def test_a_limit_says_which_side_is_fine(data: ReportData) -> None:
    gate = Verdict(
        gate="margin_share", value=0.5, limit=0.1, tripped=False, message="", bound="at least"
    )
    base, first = data.iterations
    page = render_report(replace(data, iterations=[base, replace(first, gates=[gate])]))
    assert "<td>0.500</td><td>at least 0.100</td>" in page


def test_importing_the_report_is_instant() -> None:
    code = (
        "import sys, flows.report; "
        "print({'torch', 'prefect', 'matplotlib', 'jinja2', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
