"""What a person sees in the flow UI: real server, real run, real browser."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.gating import verdicts_of
from tests.flow_ui import (
    HOSTILE,
    KEY,
    PYTHON_WARNING,
    RUN,
    VLLM_WARNING,
    FlowUI,
    chromium,
    flow_ui,
    missing,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

MAX_WAIT_MS = 30_000


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlowUI]:
    with flow_ui(tmp_path_factory.mktemp("ui")) as ready:
        yield ready


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: Any, ui: FlowUI, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A new window. No page may have an error, open a dialog or ask another machine."""
    context = browser.new_context(viewport={"width": 1400, "height": 1800})
    context.set_default_timeout(MAX_WAIT_MS)
    page = context.new_page()
    wrong: list[str] = []
    asked: list[str] = []
    context.on("request", lambda sent: asked.append(sent.url))
    context.on("dialog", lambda dialog: wrong.append(f"dialog {dialog.message}"))
    context.on("weberror", lambda error: wrong.append(str(error.error)))
    context.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    yield page
    if folder := os.environ.get("CSR_TEST_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{request.node.name}.png")
    context.close()
    # SQLite is busy now and then, and the page asks again.
    assert [text for text in wrong if "503" not in text] == []
    ours = (ui.url, ui.reports_url, "data:", "blob:")
    assert [url for url in asked if not url.startswith(ours)] == []


def see(page: Any, *texts: str) -> None:
    """Wait until each text stands on the page by itself, to be seen."""
    for text in texts:
        page.get_by_text(text, exact=True).locator("visible=true").first.wait_for()


def pictures(page: Any, num_expected: int) -> list[dict[str, Any]]:
    """Width, height and name of the page's pictures, once that many have loaded."""
    page.wait_for_function(
        """n => { const all = [...document.querySelectorAll('article img')];
                  return all.length === n && all.every(img => img.complete) }""",
        arg=num_expected,
    )
    seen: list[dict[str, Any]] = page.evaluate(
        """() => [...document.querySelectorAll('article img')].map(img => (
             {own: [img.naturalWidth, img.naturalHeight], shown: img.clientWidth, alt: img.alt}))"""
    )
    return seen


def field(page: Any, title: str) -> Any:
    """The form's text box under that title."""
    label = page.get_by_text(title, exact=True)
    return page.locator(".schema-form-property", has=label).last.locator("textarea")


def table_rows(page: Any) -> list[list[str]]:
    page.locator("tbody tr").first.wait_for()
    return [row.locator("td").all_inner_texts() for row in page.locator("tbody tr").all()]


def test_the_runs_are_listed_by_name(page: Any, ui: FlowUI) -> None:
    page.goto(f"{ui.url}/runs")
    see(page, RUN, f"{RUN} 00", f"{RUN} 01", f"{RUN} 02", "csr-run", "csr-iteration")
    assert page.get_by_text("Failed", exact=True).locator("visible=true").count() == 0


def test_a_runs_page_has_its_iterations_and_its_own_pages(page: Any, ui: FlowUI) -> None:
    page.goto(f"{ui.url}/runs/flow-run/{ui.flow_run_id(RUN)}")
    see(page, "Completed", f"{RUN}: iteration 2 of 2 done")
    graph = page.locator("canvas").first.bounding_box()
    assert graph["width"] > 800
    assert graph["height"] > 200
    page.locator("#subflow-runs").click()
    see(page, f"{RUN} 00", f"{RUN} 01", f"{RUN} 02")
    page.locator("#artifacts").click()
    keys = [f"csr-{kind}-{KEY}" for kind in ("figures", "plots", "report")]
    see(page, *keys)
    for key in keys:  # brought up to date in place: three pages, however many iterations
        assert page.get_by_text(key, exact=True).count() == 1


def test_an_iterations_page_has_named_stages_and_what_they_logged(page: Any, ui: FlowUI) -> None:
    page.goto(f"{ui.url}/runs/flow-run/{ui.flow_run_id(f'{RUN} 01')}")
    see(page, f"{RUN}/01.1 measure: started", VLLM_WARNING)
    see(page, "vllm.v1.core", "py.warnings", "train 01")
    rows = page.locator(".log-row").filter(has_text=re.compile("KV cache|adapter is old"))
    assert PYTHON_WARNING in " ".join(rows.all_inner_texts())
    assert [row.split("\n")[0] for row in rows.all_inner_texts()] == ["WARNING", "WARNING"]
    page.locator("#task-runs").click()
    shards = [f"sample 01 shard {number}" for number in range(3)]
    see(page, "measure 01", *shards, "pair 01", "train 01", "evaluate 01", "gate 01")
    page.locator("#artifacts").click()
    see(page, f"csr-sampling-{KEY}-01", f"csr-pairs-{KEY}-01", f"csr-gates-{KEY}-01")


def test_the_figures_are_the_stored_ones(page: Any, ui: FlowUI) -> None:
    page.goto(ui.artifact_url(f"csr-figures-{KEY}"))
    see(page, f"{RUN} on held-out images")
    rows = table_rows(page)
    assert page.locator("thead th").all_inner_texts() == [
        "attempt", "status", "mean_response_sentences", "mean_response_tokens", "distinct_2",
        "repetition",
    ]  # fmt: skip
    assert [row[0] for row in rows] == [f"{RUN}/0{number}.1" for number in range(3)]
    for number, row in enumerate(rows):
        manifest = ui.store.attempt(RUN, number, 1).manifest.read()
        names = (
            "mean_response_sentences", "mean_response_tokens", "distinct_2", "repetition",
        )  # fmt: skip
        assert [float(cell) for cell in row[2:]] == pytest.approx(
            [manifest.metrics[name] for name in names], abs=5e-5
        )
    assert [row[1] for row in rows] == ["done", "done", "held"]


def test_the_plots_are_pictures(page: Any, ui: FlowUI) -> None:
    page.goto(ui.artifact_url(f"csr-plots-{KEY}"))
    see(page, f"{RUN} over its iterations")
    assert pictures(page, 2) == [
        {"own": [480, 324], "shown": 480, "alt": name}
        for name in ("mean_response_sentences", "mean_response_tokens")
    ]


def test_pairs_have_their_images_and_texts_that_do_nothing(page: Any, ui: FlowUI) -> None:
    page.goto(ui.artifact_url(f"csr-pairs-{KEY}-01"))
    num_pairs = int(ui.store.attempt(RUN, 1).manifest.read().stage("pair").metrics["num_pairs"])
    see(page, f"{RUN}/01.1: {num_pairs} of {num_pairs} pairs")
    see(page, HOSTILE.replace("`", "'"))  # every character of it, and no picture of its own
    assert pictures(page, num_pairs) == [{"own": [320, 240], "shown": 320, "alt": "image"}] * (
        num_pairs
    )
    assert page.locator("article a, article b, article script").count() == 0
    headings = ["", "reward", "likelihood", "image_similarity", "num_tokens", "num_steps"]
    tables = page.locator("article table")
    assert tables.count() == num_pairs
    assert tables.first.locator("th").all_inner_texts() == headings
    fit = "table => table.getBoundingClientRect().right <= document.body.clientWidth"
    assert tables.first.evaluate(fit)


def test_the_sampling_is_complete_and_the_gates_have_spoken(page: Any, ui: FlowUI) -> None:
    page.goto(ui.artifact_url(f"csr-sampling-{KEY}-02"))
    see(page, f"{RUN}/02.1: prompts sampled, in 3 shards", "Progress: 100%")
    page.goto(ui.artifact_url(f"csr-gates-{KEY}-02"))
    verdicts = verdicts_of(ui.store.attempt(RUN, 2))
    tripped = [verdict for verdict in verdicts if verdict.tripped]
    assert tripped  # the second iteration says less
    see(page, f"{RUN}/02.1: held: {len(tripped)} of {len(verdicts)} gates tripped")
    rows = table_rows(page)
    assert {row[0] for row in rows} == {verdict.gate for verdict in verdicts}
    assert [row[0] for row in rows if row[1] == "TRIPPED"] == [each.gate for each in tripped]
    reasons = page.locator("article li").all_inner_texts()
    assert reasons == [f"{each.gate}: {each.message}" for each in tripped]


def test_the_report_opens_from_its_page(page: Any, ui: FlowUI) -> None:
    page.goto(ui.artifact_url(f"csr-report-{KEY}"))
    see(page, str(ui.store.run_path(RUN) / "report.html"))
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Open the report").click()
    report = opened.value
    report.wait_for_load_state()
    assert report.url == f"{ui.reports_url}/{RUN}/report.html"
    assert report.title() == f"{RUN}: training report"
    see(report, "Held-out figures", "Preference pairs", "Gates")
    widths = report.evaluate("[...document.images].map(img => img.naturalWidth)")
    assert widths
    assert set(widths) == {320}
    charts = report.locator("figure.chart > svg")
    assert charts.count() > 5
    assert charts.first.bounding_box()["width"] > 200


def test_the_forms_show_each_field_with_its_meaning(page: Any, ui: FlowUI) -> None:
    page.goto(f"{ui.url}/deployments")
    see(page, "csr-run", "csr-iteration", "csr-evaluate")
    page.goto(f"{ui.deployment_url('csr-run')}/run")
    see(page, "Recipe", "Recipe file, as seen from where the flow runs.")
    see(page, "Run Id (Optional)", "Settings (Optional)", "Home (Optional)")
    see(page, "Folder that holds all runs; empty means CSR_HOME where the flow runs.")
    assert field(page, "Home (Optional)").input_value() == str(ui.service.home)
    recipe = ui.service.folder / "data" / "scripted.yaml"
    assert field(page, "Recipe").input_value() == str(recipe)
    page.goto(f"{ui.deployment_url('csr-iteration')}/run")
    see(page, "Iteration Id", "RUN/NN, or RUN/NN.A to do over one certain attempt.")
    see(page, "From Stage (Optional)", "Until Stage (Optional)", "Attempt (Optional)")


def test_a_rerun_is_asked_for_by_form(page: Any, ui: FlowUI) -> None:
    page.goto(f"{ui.deployment_url('csr-iteration')}/run")
    field(page, "Iteration Id").fill(f"{RUN}/01")
    page.get_by_role("button", name="Submit").click()
    ui.flow_run_id(f"{RUN} 01 rerun")
    page.reload()  # the page would ask again by itself, half a minute later
    see(page, f"{RUN} 01 rerun", "Completed")
    page.goto(ui.artifact_url(f"csr-figures-{KEY}"))
    rows = table_rows(page)
    assert [row[0] for row in rows] == [
        f"{RUN}/00.1", f"{RUN}/01.1", f"{RUN}/01.2", f"{RUN}/02.1",
    ]  # fmt: skip
    assert rows[2][1].endswith(", not current")
    assert rows[2][2:] == rows[1][2:]  # the same inputs give the same figures
    assert "Open the report" in ui.artifacts(f"csr-report-{KEY}")[0]["data"]
