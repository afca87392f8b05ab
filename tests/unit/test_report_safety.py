"""What a report says is shown and not obeyed, and its page asks nobody for anything."""

import base64
import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

from csr.gates import Verdict
from csr.truthfulness import FalseMention
from flows.report import CONTENT_SECURITY_POLICY, SCRIPT, render_report
from flows.report_data import (
    ReportAnswer,
    ReportCase,
    ReportComparison,
    ReportData,
    ReportDemonstration,
    ReportIteration,
    ReportStage,
    ReportTree,
)
from flows.tree_view import TreeNode
from tests.report_pages import Page, example, report_data

HOSTILE = "<script>alert(1)</script><img src=https://evil.example/x onerror=alert(2)>\"'&{{ 7*7 }}"
ARROW = '"></title></svg></script><script>alert(3)</script>'


@pytest.fixture
def data(tmp_path: Path) -> ReportData:
    return report_data(tmp_path)


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
