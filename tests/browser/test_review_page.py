"""People judge on the page of `csr review`: real server, real browser, nothing but loopback."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from csr.annotations import AnnotationVerdict
from csr.errors import VerdictsWanted
from flows.forms import RunRequest
from storage.run_store import RunStore
from storage.verdicts import read_verdicts
from tests.flow_ui import chromium, missing
from tests.ports import free_port
from tests.prefect_service import ROOT
from tests.reviewed_run import served_page, write_reviewed_recipe
from tests.scripted_run import run_plainly

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

MAX_WAIT_MS = 20_000
HOSTILE = "Q: <img src=x onerror=alert(1)> {{value}} ${alert(1)} **b** <script>alert(1)</script>"

NewPage = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A person's own; nothing of it is left behind outside the home."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "CSR_"))}
    temporary = tmp_path_factory.mktemp("tmp")
    return {**plain, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}


def waiting_run(folder: Path, **critic: Any) -> Path:
    """A home whose run `mine` waits; its prompts ask something hostile."""
    recipe = write_reviewed_recipe(folder / "data", **critic)
    prompts = folder / "data" / "train.jsonl"
    prompts.write_text(prompts.read_text().replace("Describe the image.", HOSTILE))
    home = folder / "home"
    with pytest.raises(VerdictsWanted):
        run_plainly(RunRequest(recipe=str(recipe), home=str(home), run_id="mine"))
    return home


@pytest.fixture
def new_page(browser: Any, request: pytest.FixtureRequest) -> Iterator[NewPage]:
    """New windows of people of their own. No page has an error, a dialog or another machine."""
    contexts, wrong, asked = list[Any](), list[str](), list[str]()

    def opened(url: str, width: int = 1200, height: int = 900) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height})
        context.set_default_timeout(MAX_WAIT_MS)
        context.on("request", lambda sent: asked.append(sent.url))
        context.on("dialog", lambda dialog: wrong.append(f"dialog {dialog.message}"))
        context.on("weberror", lambda error: wrong.append(str(error.error)))
        context.on(
            "console", lambda said: wrong.append(said.text) if said.type == "error" else None
        )
        contexts.append(context)
        page = context.new_page()
        page.goto(url)
        return page

    yield opened
    if folder := os.environ.get("CSR_TEST_SCREENSHOTS"):
        for number, context in enumerate(contexts):
            path = Path(folder) / f"{request.node.name}-{number}.png"
            context.pages[0].screenshot(path=path)
    for context in contexts:
        context.close()
    assert [text for text in wrong if "ERR_CONNECTION_REFUSED" not in text] == []
    assert asked
    assert [url for url in asked if not url.startswith(("http://127.0.0.1:", "data:"))] == []


def enter(page: Any, name: str) -> None:
    page.get_by_label("Your name").fill(name)
    page.get_by_role("button", name="Start").click()
    page.locator("#csr-question").wait_for()


def current(page: Any) -> str:
    """The response's text; two responses of one scripted policy differ."""
    text: str = page.locator("[aria-current] .csr-text").inner_text()
    return text


def see_progress(page: Any, mine: str, all_: str) -> None:
    page.get_by_text(f"{mine} by").wait_for()
    page.get_by_text(f"{all_} needed").wait_for()


def verdicts(home: Path) -> list[tuple[str, str, AnnotationVerdict]]:
    folder = RunStore(home).attempt("mine", 1).verdicts
    return [(each.annotator, each.response_id, each.verdict) for each in read_verdicts(folder)]


def refuse_whoever_has_no_token(page: Any, address: str, home: Path) -> None:
    """gradio's routes are asked without the token, with a wrong one and with the right one."""
    cookie = page.context.cookies()[0]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    scripts = page.evaluate("[...document.scripts].map(script => script.src).filter(Boolean)")
    routes = [
        "/", "/config", "/gradio_api/info", "/gradio_api/startup-events", "/theme.css",
        "/gradio_api/queue/data?session_hash=x", "/gradio_api/file=/etc/hostname", "/docs",
        "/openapi.json", "/monitoring", *[url.removeprefix(address) for url in scripts],
    ]  # fmt: skip
    assert len(routes) > 10
    right, wrong = ({"Cookie": f"{cookie['name']}={v}"} for v in (cookie["value"], "wrong"))
    with httpx.Client(base_url=address) as client:
        for route in routes:
            assert client.get(route).status_code == 401, route
            assert client.get(route, headers=wrong).status_code == 403, route
        assert client.get("/", params={"token": "wrong"}).status_code == 403
        call = {"data": ["{}"], "fn_index": 0, "session_hash": "x"}
        for route in ("/gradio_api/run/predict", "/gradio_api/queue/join", "/gradio_api/upload"):
            assert client.post(route, json=call).status_code == 401, route
        for path in (home / "mine" / "run.json", Path("/etc/hostname"), home.parent / "data/0.png"):
            answer = client.get(f"/gradio_api/file={path}", headers=right)
            assert answer.status_code in (403, 404), path
        settings = client.get("/config", headers=right).json()
    assert re.search(r"google|cdn|hugging|gradio\.app", str(settings["stylesheets"])) is None
    assert settings["analytics_enabled"] is False


def test_a_person_judges_everything_by_buttons_and_keys(
    tmp_path: Path, environment: dict[str, str], new_page: NewPage
) -> None:
    home = waiting_run(tmp_path)
    with served_page(home, environment) as served:
        page = new_page(served.url)
        enter(page, "Ada Lovelace")
        refuse_whoever_has_no_token(page, served.address, home)
        assert page.locator("#csr-question").inner_text() == HOSTILE
        assert page.locator(".csr-item img").count() == 1
        assert page.locator(".csr-item :is(script, b, a)").count() == 0
        width = page.locator(".csr-item img").evaluate("image => image.naturalWidth")
        assert width == 8
        assert "token" not in page.url
        first = current(page)
        page.get_by_role("button", name="Accept").click()
        see_progress(page, "1 of 12", "1 of 12")
        assert page.locator(".csr-accept .csr-text").inner_text() == first
        page.keyboard.press("ArrowLeft")
        page.locator(".csr-accept[aria-current]").wait_for()
        page.keyboard.press("r")  # thinks better of it; the next is as before
        page.locator(".csr-refuse").wait_for()
        see_progress(page, "1 of 12", "1 of 12")
        page.keyboard.press("u")
        page.locator(".csr-accept[aria-current]").wait_for()
        page.keyboard.press("ArrowRight")
        page.locator("[aria-current]:not(.csr-accept)").wait_for()
        for number, key in enumerate("rsarsarsars", start=2):
            page.keyboard.press(key)
            see_progress(page, f"{number} of 12", f"{number} of 12")
        page.get_by_text("Enough has been judged.").wait_for()
        page.get_by_text("goes on when the command that waits for it is given again").wait_for()
        assert page.get_by_role("button", name="Accept").is_disabled()
    said = verdicts(home)
    assert len(said) == len({response for _, response, _ in said}) == 12
    assert {who for who, _, _ in said} == {"Ada Lovelace"}
    assert [verdict for _, _, verdict in said].count(AnnotationVerdict.ACCEPT) == 4


def test_two_people_at_once_on_a_server_that_is_killed(
    tmp_path: Path, environment: dict[str, str], new_page: NewPage
) -> None:
    home, port = waiting_run(tmp_path, num_annotators=2, num_responses=2), free_port()
    with served_page(home, environment, port=port) as served:
        ada, ben = new_page(served.url), new_page(served.url, 390, 844)
        enter(ada, "ada")
        enter(ben, "ben")
        assert current(ada) != current(ben)
        ada.keyboard.press("a")
        see_progress(ada, "1 of 12", "0 of 2")
        ben.get_by_role("button", name="Refuse").click()
        see_progress(ben, "1 of 12", "0 of 2")
        fits = "document.documentElement.scrollWidth <= window.innerWidth"
        assert ada.evaluate(fits)
        assert ben.evaluate(fits)
        before = ada.url
        ada.keyboard.press("ArrowRight")
        ada.wait_for_function("before => window.location.href !== before", arg=before)
        place = current(ada)
        ada.reload()
        ada.locator("#csr-question").wait_for()
        assert current(ada) == place
        see_progress(ada, "1 of 12", "0 of 2")
        served.process.send_signal(signal.SIGKILL)
        served.process.wait()
        ben.keyboard.press("a")  # nobody hears it
        for page in (ada, ben):  # else they ask the next server, with this one's token
            page.goto("about:blank")
    assert len(verdicts(home)) == 2
    with served_page(home, environment, port=port) as served:
        assert httpx.get(served.address).status_code == 401
        ada.goto(f"{served.url}&annotator=ada")
        see_progress(ada, "1 of 12", "0 of 2")
        ada.keyboard.press("a")  # what ben began
        see_progress(ada, "2 of 12", "1 of 2")
        ben.goto(f"{served.url}&annotator=ben")
        see_progress(ben, "1 of 12", "1 of 2")
        ben.keyboard.press("a")
        see_progress(ben, "2 of 12", "2 of 2")
        ben.get_by_text("Enough has been judged.").wait_for()
        ben.get_by_text("agreement: 50%").wait_for()


def test_pages_leave_nothing_behind(environment: dict[str, str]) -> None:
    assert list(Path(environment["TMPDIR"]).iterdir()) == []
