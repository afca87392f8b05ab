"""What a report says of a run: figures, stages, changes against the base."""

import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from csr.gates import Verdict
from flows.report import render_report
from flows.report_data import (
    ReportData,
)
from tests.report_pages import Page, report_data


@pytest.fixture
def data(tmp_path: Path) -> ReportData:
    return report_data(tmp_path)


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
