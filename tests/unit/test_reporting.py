"""What a run's report finds in the store, of a run that scripted components made."""

import json
import platform
from dataclasses import replace
from pathlib import Path

import pytest

from csr.errors import DataError
from csr.protocols import Json
from flows.report import render_report
from flows.report_captions import OUTCOMES, comparisons, looks_like_prose
from flows.report_data import ReportData
from flows.reporting import report_data, spread_by_margin
from flows.tracing import trace
from flows.tree_view import walk
from storage.rows import pairs_from_table
from storage.run_store import RunStore
from storage.tables import read_rows, read_table
from tests.reported_run import HOSTILE, RUN, reported_home


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """Of a finished run."""
    return RunStore(reported_home(tmp_path_factory.mktemp("reporting")))


@pytest.fixture(scope="module")
def data(store: RunStore) -> ReportData:
    return report_data(store, RUN)


def test_trees_are_those_of_the_store(store: RunStore, data: ReportData) -> None:
    for iteration in data.iterations[1:]:
        attempt = store.attempt(RUN, iteration.iteration)
        assert iteration.num_trees == 6
        assert 1 <= len(iteration.trees) <= 4
        margins = [tree.rewards["chosen"] - tree.rewards["rejected"] for tree in iteration.trees]
        assert margins == sorted(margins, reverse=True)
        for tree in iteration.trees:
            rows = read_rows(attempt.nodes, "nodes", ["node_id", "kept"], [tree.prompt_id])
            nodes = list(walk(tree.roots))
            labels = {f"{tree.prompt_id}/{node.label}" for node in nodes}
            assert labels <= {row["node_id"] for row in rows}
            assert len(rows) == tree.num_nodes == len(nodes) + tree.num_left_out
            assert tree.num_kept == sum(row["kept"] for row in rows)
            [pair] = [
                row
                for row in read_rows(attempt.pairs, "pairs", ["prompt_id", "chosen_text"])
                if row["prompt_id"] == tree.prompt_id
            ]
            chosen = "".join(node.text for node in nodes if "chosen" in node.sides)
            assert chosen.strip() == pair["chosen_text"]
    assert data.iterations[0].trees == []


def test_trace_tells_the_same_tree(store: RunStore, data: ReportData) -> None:
    tree = data.iterations[2].trees[0]
    shape = trace(store.home, RUN, tree.prompt_id, 2)
    assert len(shape["nodes"]) == tree.num_nodes
    assert {node["false_mentions"] for node in shape["nodes"]} == {None}


def test_captions_are_held_against_each_other(store: RunStore, data: ReportData) -> None:
    [comparison] = data.comparisons
    assert comparison.num_responses == comparison.num_marked == 3
    assert list(comparison.outcomes) == list(OUTCOMES)
    assert sum(comparison.outcomes.values()) == 3
    for case in comparison.cases:
        assert [answer.iteration for answer in case.answers] == [0, 1, 2]
        absent = []
        for answer in case.answers:
            stored = read_rows(
                store.attempt(RUN, answer.iteration).evaluation / "captions.parquet",
                "generations", ["text"], [case.prompt_id],
            )  # fmt: skip
            assert [row["text"] for row in stored] == [answer.text]
            assert answer.marks is not None
            absent.append(sum(mark.kind == "object" for mark in answer.marks))
        change = absent[-1] - absent[0]
        expected = (0 if change < 0 else 1) if change else (2 if absent[0] else 3)
        assert case.outcome == OUTCOMES[expected]


def test_without_ground_truth_captions_that_differ_are_shown(store: RunStore) -> None:
    attempts = [store.attempt(RUN, number) for number in (0, 1, 2)]
    files = [attempt.false_mentions("captions") for attempt in attempts]
    for path in files:
        path.rename(path.with_suffix(".away"))
    [comparison] = comparisons(attempts, ["captions"])
    for path in files:
        path.with_suffix(".away").rename(path)
    assert comparison.outcomes == {}
    for case in comparison.cases:
        assert case.outcome == ""
        assert case.answers[0].text != case.answers[-1].text
        assert {answer.marks for answer in case.answers} == {None}
    assert comparisons(attempts[:1], ["captions"]) == []
    assert comparisons(attempts, ["other"]) == []


def test_responses_without_marks_are_counted_apart_and_drawn(
    store: RunStore, data: ReportData
) -> None:
    attempts = [store.attempt(RUN, number) for number in (0, 2)]
    [case, *_] = [
        case for case in data.comparisons[0].cases if case.answers[0].text != case.answers[-1].text
    ]
    path = attempts[1].false_mentions("captions")
    whole = path.read_text()
    marks = json.loads(whole)
    del marks[case.prompt_id]
    path.write_text(json.dumps(marks))
    try:
        [comparison] = comparisons(attempts, ["captions"])
    finally:
        path.write_text(whole)
    assert (comparison.num_responses, comparison.num_marked) == (3, 2)
    [unmarked] = [each for each in comparison.cases if each.outcome == ""]
    assert unmarked.prompt_id == case.prompt_id
    page = render_report(replace(data, comparisons=[comparison]))
    assert "</b> of 2 images" in page
    assert "nothing is marked in them: 1." in page
    assert page.count('<article class="case"') == len(comparison.cases)


@pytest.mark.parametrize(
    ("text", "is_prose"),
    [
        ("Yes.", False),
        ("A red circle.", True),
        ("是的。", False),
        ("一个红色的圆圈。", True),
        ("いいえ", False),
        ("赤い円があります。", True),
    ],
)
def test_what_is_a_text_to_read(text: str, is_prose: bool) -> None:
    assert looks_like_prose(text) is is_prose


def test_words_of_another_form_are_told(store: RunStore) -> None:
    attempts = [store.attempt(RUN, number) for number in (0, 1)]
    path = attempts[1].false_mentions("captions")
    whole = path.read_text()
    path.write_text('{"a": [{"start": 1}]}')
    try:
        with pytest.raises(DataError, match="holds no words of responses"):
            comparisons(attempts, ["captions"])
    finally:
        path.write_text(whole)


def test_the_machine_is_the_one_that_began_the_run(
    store: RunStore, data: ReportData, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert data.facts["begun on"] == store.run(RUN).platform == platform.platform()
    monkeypatch.setattr(platform, "platform", lambda: "another one")
    assert report_data(store, RUN).facts == data.facts


def test_tracing_reads_one_prompts_rows_alone(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path, name: str, columns: list[str], prompt_ids: list[str]) -> list[Json]:
        assert prompt_ids == ["3"]
        return read_rows(path, name, columns, prompt_ids)

    monkeypatch.setattr("flows.tracing.read_rows", read)
    shape = trace(store.home, RUN, "3", 1)
    assert shape["prompt"]["prompt_id"] == "3"
    assert shape["truth_problems"] == []
    [pair] = shape["pairs"]
    assert "images" not in pair
    assert {row["prompt_id"] for row in [*shape["nodes"], *shape["responses"], pair]} == {"3"}


def test_tracing_tells_the_prompts_of_a_run_without_the_one_asked_for(store: RunStore) -> None:
    with pytest.raises(DataError, match=r"has no prompt 'x'\. Its 12 prompts begin with"):
        trace(store.home, RUN, "x")


def test_the_page_of_a_run_holds_it_all(store: RunStore, data: ReportData) -> None:
    page = (store.run_path(RUN) / "report.html").read_text()
    assert page == render_report(data)
    assert HOSTILE not in page
    assert "evil.example" in page
    for tree in data.iterations[1].trees:
        assert f"Search tree of prompt {tree.prompt_id}" in page
    assert "<mark" in page
    assert len(page) < 500_000


def test_pairs_are_taken_from_every_margin(store: RunStore) -> None:
    pairs = pairs_from_table(read_table(store.attempt(RUN, 1).pairs, "pairs"))
    margins = sorted((pair.margin for pair in pairs), reverse=True)
    assert [pair.margin for pair in spread_by_margin(pairs, 2)] == [margins[0], margins[-1]]
    assert [pair.margin for pair in spread_by_margin(pairs, 100)] == margins
    assert spread_by_margin([], 2) == []
