"""A run's report in a real browser, as a file: nothing else is asked for, and nothing is broken."""

import os
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from flows.report import render_report
from flows.report_data import ReportData, ReportIteration
from tests.colours import contrast
from tests.flow_ui import chromium, missing
from tests.reported_run import HOSTILE, RUN, reported_home

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

NewPage = Callable[..., Any]
AXE = os.environ.get("CSR_AXE", "")
"""Where axe-core's `axe.min.js` lies; nobody checks by it where that is not said."""

RGB = """(() => {
  const pen = document.createElement("canvas").getContext("2d");
  const rgb = (colour) => {
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const of = (where) => [...document.querySelectorAll(where)].map(
    (each) => getComputedStyle(each).stroke);
  const chart = document.querySelector("#training .chart");
  return [getComputedStyle(chart).backgroundColor, ...of("#training .chart > svg .line"),
    ...of("#training .legend .line")].map(rgb);
})()"""
"""Ground, lines and legend of the first training plot, as bytes of red, green and blue."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a finished run, one of whose prompts is hostile."""
    return reported_home(tmp_path_factory.mktemp("report")) / RUN / "report.html"


@pytest.fixture
def new_page(browser: Any, report: Path) -> Iterator[NewPage]:
    """New windows on the report. None has an error, a dialog, or asks for anything else."""
    contexts, wrong, asked = list[Any](), list[str](), list[str]()

    def opened(width: int = 1280, height: int = 900, **settings: Any) -> Any:
        contexts.append(
            browser.new_context(viewport={"width": width, "height": height}, **settings)
        )
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []
    assert {url for url in asked if not url.startswith("data:")} == {report.as_uri()}


def shown_pairs(page: Any) -> list[str]:
    """Ids of the pairs that are on the screen."""
    found: list[str] = page.locator("article.pair:visible").evaluate_all(
        "cards => cards.map(card => card.getAttribute('aria-label').replace('Pair ', ''))"
    )
    return found


def all_pairs(page: Any) -> list[dict[str, str]]:
    found: list[dict[str, str]] = page.locator("article.pair").evaluate_all(
        "cards => cards.map(card => ({...card.dataset, text: card.textContent.toLowerCase(),"
        " id: card.getAttribute('aria-label').replace('Pair ', '')}))"
    )
    return found


def test_pairs_are_filtered_and_searched(new_page: NewPage) -> None:
    page = new_page()
    pairs = all_pairs(page)
    assert len(pairs) > 2
    assert len(shown_pairs(page)) == min(12, len(pairs))
    page.get_by_label("Iteration", exact=True).select_option("2")
    of_second = [pair["id"] for pair in pairs if pair["iteration"] == "2"]
    assert 0 < len(of_second) < len(pairs)
    assert shown_pairs(page) == of_second[:12]
    page.get_by_role("button", name="Show all again").click()
    assert len(shown_pairs(page)) == min(12, len(pairs))
    margins = sorted(float(pair["margin"]) for pair in pairs)
    page.get_by_label("Margin from").fill(str(margins[-2]))
    widest = {pair["id"] for pair in pairs if float(pair["margin"]) >= margins[-2]}
    assert set(shown_pairs(page)) == widest
    page.get_by_label("Margin from").fill("")
    page.get_by_label("Margin to").fill(str(margins[0]))
    assert margins[0] == min(float(page.locator(f'[aria-label="Pair {each}"]').first.get_attribute(
        "data-margin")) for each in shown_pairs(page))  # fmt: skip
    page.get_by_role("button", name="Show all again").click()
    word = "evil.example"
    page.get_by_label("Words in prompt").fill(f"{word.upper()} describe")
    with_word = [pair["id"] for pair in pairs if word in pair["text"]]
    assert shown_pairs(page) == with_word
    page.get_by_label("Words in prompt").fill("no pair says this")
    assert shown_pairs(page) == []
    assert page.locator("#pair-count").inner_text() == f"0 of {len(pairs)} pairs match."
    page.get_by_role("button", name="Show all again").click()
    page.get_by_label("Hallucination").select_option("unknown")
    assert len(shown_pairs(page)) == min(12, len(pairs))
    page.get_by_label("Hallucination").select_option("either")
    assert shown_pairs(page) == []


def test_the_search_reads_what_was_said_and_no_label(new_page: NewPage) -> None:
    page = new_page()
    pairs = all_pairs(page)
    for label in ("breakdown", "margin", "likelihood", "chosen", "num_tokens"):
        assert all(label in pair["text"] for pair in pairs), label
        page.get_by_label("Words in prompt").fill(label)
        assert shown_pairs(page) == [], label
    page.get_by_label("Words in prompt").fill(pairs[0]["id"])
    assert pairs[0]["id"] in shown_pairs(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_iterations_line_has_a_colour_of_its_own(
    browser: Any, tmp_path: Path, scheme: str
) -> None:
    iterations = [
        ReportIteration(
            iteration=n, attempt=f"mine/{n:02d}.1", status="done",
            history=[{"step": step, "loss": 1.0 / (n + step)} for step in (1, 2)],
        )
        for n in range(1, 9)
    ]  # fmt: skip
    data = ReportData(
        run_id="mine", recipe="r", status="done", seed=1, iterations=iterations, config={}
    )
    (tmp_path / "page.html").write_text(render_report(data))
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    ground, *colours = page.evaluate(RGB)
    drawn, named = colours[:8], colours[8:]
    context.close()
    assert drawn == named  # the legend's
    hexadecimal = ["#" + "".join(f"{part:02x}" for part in colour) for colour in (ground, *drawn)]
    assert min(contrast(colour, hexadecimal[0]) for colour in hexadecimal[1:]) >= 3
    apart = [sum(abs(a - b) for a, b in zip(*pair, strict=True)) for pair in combinations(drawn, 2)]
    assert min(apart) >= 24


@pytest.mark.parametrize("scripts", [True, False])
def test_paper_has_every_pair(browser: Any, report: Path, scripts: bool) -> None:
    html = report.read_text()
    start = html.index('<article class="pair"')
    end = html.index("</article>", start) + len("</article>")
    many = report.with_name("many.html")
    many.write_text(html[:start] + html[start:end] * 30 + html[end:])
    context = browser.new_context(java_script_enabled=scripts)
    page = context.new_page()
    page.goto(many.as_uri())
    pairs, seen = page.locator("article.pair"), page.locator("article.pair:visible")
    assert pairs.count() > 30
    assert seen.count() == (12 if scripts else 0)
    page.emulate_media(media="print")
    if scripts:  # as a browser does before it prints, and afterwards
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert seen.count() == pairs.count()
    page.emulate_media(media="screen")
    if scripts:
        page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert seen.count() == (12 if scripts else 0)
    context.close()


def test_hostile_text_is_text(new_page: NewPage) -> None:
    page = new_page()
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.get_by_text(HOSTILE, exact=True).count() > 0
    assert page.locator("script").count() == 1
    assert page.locator("img[src^=http]").count() == 0


def test_the_policy_stops_any_other_script(browser: Any, report: Path) -> None:
    """Should escaping ever fail, the page's own policy still holds."""
    context = browser.new_context()
    page, said = context.new_page(), list[str]()
    page.on("console", lambda message: said.append(message.text))
    broken = report.with_name("broken.html")
    html = report.read_text()
    bad = "<script>window.bad = 1</script><img src=x onerror='window.bad = 2'>"
    broken.write_text(html.replace("<main>", f"<main>{bad}"))
    page.goto(broken.as_uri())
    assert page.evaluate("window.bad") is None
    assert page.locator("html.scripted").count() == 1  # ours has run
    assert sum("Content Security Policy" in text for text in said) >= 2
    context.close()


def test_a_box_of_the_drawing_leads_to_its_sentence(new_page: NewPage) -> None:
    page = new_page(reduced_motion="reduce")
    box = page.locator("svg.map [data-node]").first
    row = page.locator(f"#{box.get_attribute('data-node')} > .row")
    assert not row.is_visible()
    box.click()
    row.wait_for(state="visible")
    assert page.locator(".pointed > .row").count() == 1
    assert row.evaluate("row => row.getBoundingClientRect().top >= 0")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window(new_page: NewPage, width: int, scheme: str) -> None:
    page = new_page(width, 740, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    fits = "document.documentElement.scrollWidth <= window.innerWidth"
    assert page.evaluate(fits)
    wide = page.evaluate(
        """[...document.querySelectorAll('body *')].filter(each =>
        !each.closest('.scroll, svg, .unseen, .skip')
        && each.getBoundingClientRect().right > window.innerWidth + 1)
        .map(each => each.outerHTML)"""
    )
    assert wide == []


def test_the_keyboard_reaches_everything(new_page: NewPage) -> None:
    page = new_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set[str]()
    for _ in range(400):
        page.keyboard.press("Tab")
        here = page.evaluate(
            """(() => { const a = document.activeElement; if (a === document.body) return null;
            const o = getComputedStyle(a);
            return [a.id || a.textContent.trim().slice(0, 40), o.outlineStyle]; })()"""
        )
        if here is None:
            break
        assert here[1] != "none", here
        reached.add(here[0])
    wanted = {"f-text", "f-iteration", "f-source", "f-absent", "f-low", "f-high", "reset-filter"}
    assert wanted <= reached
    assert {"Figures", "Configuration", "Resolved recipe"} <= reached


def test_without_scripts_all_pairs_are_there(new_page: NewPage) -> None:
    page = new_page(java_script_enabled=False)
    assert page.locator("#pair-filter").is_hidden()
    assert page.locator("#more-pairs").is_hidden()
    group = page.locator("details.pair-group").first
    group.locator("summary").first.click()
    assert (
        group.locator("article.pair:visible").count() == group.locator("article.pair").count() > 0
    )


@pytest.mark.skipif(not AXE, reason="CSR_AXE does not say where axe-core's axe.min.js is")
@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark")])
def test_axe_finds_nothing(browser: Any, report: Path, width: int, scheme: str) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True
    )
    page = context.new_page()
    page.goto(report.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    page.add_script_tag(content=Path(AXE).read_text())
    found = page.evaluate("axe.run()")
    context.close()
    assert len(found["passes"]) > 30
    assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
