"""What people are shown of an attempt that waits, what each press does, and files for others."""

import json
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from csr.annotations import AnnotationVerdict
from csr.errors import ConfigError, DataError, VerdictsWanted
from flows import label_studio
from flows.forms import RunRequest
from flows.review import Closed, Desk, open_desk
from flows.review_html import as_text, image_uri, item_html
from flows.review_page import Page, Place, View
from flows.review_server import TokenGate
from storage.run_store import RunStore
from tests.reviewed_run import ATTEMPT, write_reviewed_recipe
from tests.scripted_run import Csr, finished_home, run_plainly

ACCEPT, REFUSE, SKIP = AnnotationVerdict


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run waits for two people's verdicts on three of its twelve responses."""
    folder = tmp_path_factory.mktemp("waiting")
    recipe = write_reviewed_recipe(folder / "data", num_annotators=2, num_responses=3)
    with pytest.raises(VerdictsWanted):
        run_plainly(RunRequest(recipe=str(recipe), home=str(folder / "home"), run_id="mine"))
    return folder


@pytest.fixture
def home(waiting: Path, tmp_path: Path) -> Path:
    return shutil.copytree(waiting / "home", tmp_path / "home")


@pytest.fixture
def desk(home: Path) -> Desk:
    return open_desk(home, "mine/01")


@pytest.fixture
def page(desk: Desk) -> Page:
    return Page(desk, lambda: "The same command goes on.")


def judge_all(page: Page, name: str, verdict: AnnotationVerdict, number: int) -> View:
    view = page.enter(name)
    for _ in range(number):
        view = page.judge(view.place, verdict)
    return view


def judge_by_number(page: Page, name: str, number: int) -> View:
    """Accept the first response of each prompt, refuse the second."""
    view = page.enter(name)
    for _ in range(number):
        view = page.judge(view.place, ACCEPT if view.place.response.endswith("/0") else REFUSE)
    return view


# ---------------------------------------------------------------- the run waits, and goes on


def test_the_run_waits_until_enough_is_judged_and_then_goes_on(
    csr: Csr, home: Path, page: Page, waiting: Path
) -> None:
    again = ("run", waiting / "data" / "scripted.yaml", "--home", home, "--run-id", "mine")
    answer = csr(*again)
    assert answer.status == 1
    assert "waiting: mine/01.1: 0 of 3 responses have been judged by 2 people" in answer.err
    assert "Judge with: csr review mine/01.1" in answer.err
    assert RunStore(home).run("mine").status == "waiting"
    assert RunStore(home).attempt("mine", 1).manifest.read().status == "waiting"
    judge_by_number(page, "ada", 4)
    judge_by_number(page, "ben", 2)
    answer = csr(*again)
    assert (answer.status, "2 of 3" in answer.err) == (1, True)
    view = judge_all(page, "ben", SKIP, 1)
    assert "Enough has been judged. The same command goes on." in view.note
    assert csr(*again).status == 0
    manifest = RunStore(home).attempt("mine", 1).manifest.read()
    figures = manifest.stage("review").metrics
    assert figures["num_annotations"] == 6  # of the three that two people judged
    assert (figures["agreement"], figures["num_skip"]) == (1.0, 1)
    assert manifest.stage("pair").metrics["num_pairs"] == 1
    assert manifest.stage("pair").skipped == {"too_few_responses": 5}
    view = page.judge(view.place, ACCEPT)
    assert "mine/01.1 has gone on with the verdicts that it had" in view.note
    with pytest.raises(Closed):
        page._desk.take_back("ada")
    assert csr("verify", "mine", "--home", home, "--json").json()["problems"] == []


def test_verify_tells_a_damaged_verdict(csr: Csr, home: Path, page: Page) -> None:
    judge_all(page, "ada", ACCEPT, 2)
    healthy = csr("verify", "mine", "--home", home, "--json").json()
    file = home / "mine/iterations/01/attempts/1/verdicts/ada/00000002.parquet"
    os.truncate(file, 100)
    damaged = csr("verify", "mine", "--home", home, "--json").json()
    assert healthy["problems"] == []
    assert damaged["num_files"] == healthy["num_files"]
    (problem,) = damaged["problems"]
    assert problem["where"] == "mine/01.1 verdicts"
    assert "00000002.parquet cannot be read" in problem["problem"]
    assert "csr review mine/01.1" in problem["mend"]


def test_what_nobody_can_judge_is_refused(csr: Csr, home: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="evaluates the base model"):
        open_desk(home, "mine/00")
    others = finished_home(csr, tmp_path / "others", "plain")
    answer = csr("review", "plain/01", "--home", others)
    assert (answer.status, "has no critic, so there is nothing to judge" in answer.err) == (2, True)
    shutil.rmtree(home / "mine/iterations/01/attempts/1/nodes")
    manifest = home / "mine/iterations/01/attempts/1/manifest.json"
    value = json.loads(manifest.read_text())
    value["stages"] = value["stages"][:-1]
    manifest.write_text(json.dumps(value))
    with pytest.raises(DataError, match="2 of 3 shards are sampled"):
        open_desk(home, "mine/01")


# ---------------------------------------------------------------- who sees what


def test_two_people_begin_at_different_prompts_and_finish_what_the_other_began(desk: Desk) -> None:
    page = Page(desk, str)
    first = {name: page.enter(name).place.response for name in ("ada", "ben", "cid", "dan")}
    assert first["ada"] != first["ben"]
    ada = page.enter("ada")
    page.judge(ada.place, ACCEPT)
    assert page.enter("ben").place.response == ada.place.response  # it lacks one verdict more
    assert page.enter("ada").place.response != ada.place.response


def test_people_see_what_the_policy_was_asked(tmp_path: Path) -> None:
    recipe = write_reviewed_recipe(tmp_path / "data")
    answers = tmp_path / "answers.jsonl"
    answers.write_text("\n".join(json.dumps({"id": f"{n}", "reference": "red"}) for n in range(12)))
    request = RunRequest(
        recipe=str(recipe), home=str(tmp_path / "home"), run_id="mine",
        settings=(f"source.answers={answers}",),
    )  # fmt: skip
    with pytest.raises(VerdictsWanted):
        run_plainly(request)
    asked = {each.prompt.text for each in open_desk(tmp_path / "home", "mine/01").responses}
    assert asked == {"Describe the image. The answer: red Why?"}


def test_a_prompts_responses_come_together_and_each_once(desk: Desk) -> None:
    page = Page(desk, str)
    view, seen = page.enter("ada"), list[str]()
    while view.place.response:
        seen.append(view.place.response)
        view = page.judge(view.place, SKIP)
    assert Counter(seen) == Counter(list(desk.by_id))
    prompts = [name.partition("/")[0] for name in seen]
    assert prompts[::2] == prompts[1::2]
    assert len(set(prompts)) == 6
    assert "You have judged everything" in view.note
    back = page.move(view.place, -1)
    assert back.place.response == desk.order("ada")[-1].response_id
    assert page.move(back.place, 1).place.response == ""


def test_a_press_from_an_older_view_changes_nothing(desk: Desk) -> None:
    page = Page(desk, str)
    window = page.enter("ada")
    other = page.judge(window.place, ACCEPT)
    stale = page.judge(window.place, REFUSE)
    assert "another window" in stale.note
    assert desk.mine("ada", desk.verdicts.read()) == {window.place.response: ACCEPT}
    assert stale.place.mark == other.place.mark  # and now it is up to date
    assert page.judge(stale.place, REFUSE).place.mark != other.place.mark


def test_undo_shows_what_was_judged_last(desk: Desk) -> None:
    page = Page(desk, str)
    first = page.enter("ada")
    second = page.judge(first.place, ACCEPT)
    undone = page.undo(second.place)
    assert undone.place.response == first.place.response
    assert desk.verdicts.read() == []
    assert "You have judged nothing yet" in page.undo(undone.place).note


def test_a_full_disk_keeps_the_item(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(desk, str)
    view = page.enter("ada")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("storage.atomic.os.replace", full)
    after = page.judge(view.place, ACCEPT)
    assert "the disk is full" in after.note
    assert after.place == view.place


def test_a_damaged_verdict_is_told_on_the_page(desk: Desk) -> None:
    page = Page(desk, str)
    view = page.judge(page.enter("ada").place, ACCEPT)
    os.truncate(desk.attempt.verdicts / "ada" / "00000001.parquet", 50)
    assert "00000001.parquet cannot be read" in page.enter("ben").note
    after = page.judge(view.place, ACCEPT)
    assert "cannot be read" in after.note
    assert after.place == Place("ada")  # nobody judges what they do not see


def test_a_bad_name_is_told_and_nothing_is_made(desk: Desk) -> None:
    page = Page(desk, str)
    view = page.enter("../../ada")
    assert "cannot name an annotator" in view.note
    assert view.place == Place()
    assert not desk.attempt.verdicts.exists()


# ---------------------------------------------------------------- what models wrote is text

HOSTILE = "<img src=x onerror=alert(1)> {{value}} ${alert(1)} `x` \\ &lt; <script>alert(1)</script>"


def test_hostile_text_is_shown_and_does_nothing(desk: Desk) -> None:
    import dataclasses
    from html.parser import HTMLParser

    found: list[tuple[str, str]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            found.append(("tag", tag))

        def handle_data(self, data: str) -> None:
            found.append(("text", data))

    response = dataclasses.replace(desk.responses[0], text=HOSTILE)
    text = item_html(response, [response], {})
    Reader().feed(text)
    assert ("text", HOSTILE) in found
    tags = Counter(name for kind, name in found if kind == "tag")
    assert tags == {"div": 3, "img": 1, "h2": 1, "ol": 1, "li": 1, "span": 2}
    assert not re.search(r"[{}$`\\]", as_text(HOSTILE))


def test_only_the_attempts_own_image_is_shown(desk: Desk) -> None:
    response = desk.responses[0]
    assert image_uri(response.prompt.image).startswith("data:image/png;base64,")
    file = Path(response.prompt.image.uri)
    before = file.read_bytes()
    file.write_bytes(b"another file")
    text = item_html(response, [response], {})
    file.write_bytes(before)
    assert "changed since the run began" in text
    assert "<img" not in text


# ---------------------------------------------------------------- Label Studio


def test_label_studio_takes_verdicts_out_and_brings_them_back(
    csr: Csr, home: Path, desk: Desk, tmp_path: Path
) -> None:
    page, file = Page(desk, str), tmp_path / "tasks.json"
    judge_all(page, "ada", ACCEPT, 2)
    judge_all(page, "zoë k.l", REFUSE, 3)
    before = desk.verdicts.read()
    done = csr("review", "mine/01", "--home", home, "--export", file, "--json").json()
    assert (done["num_tasks"], done["num_annotations"]) == (12, 5)
    tasks = json.loads(file.read_text())
    assert tasks[0]["data"]["image"].startswith("data:image/png;base64,")
    assert tasks[0]["data"]["question"] == "Describe the image."
    names = re.findall(r'value="\$(\w+)"', Path(done["interface"]).read_text())
    assert set(names) <= set(tasks[0]["data"])
    again = csr("review", "mine/01", "--home", home, "--import", file, "--json").json()
    assert (again["num_verdicts"], again["num_known"]) == (0, 5)
    shutil.rmtree(desk.attempt.verdicts)
    anew = csr("review", "mine/01", "--home", home, "--import", file, "--json").json()
    assert (anew["num_verdicts"], anew["num_known"]) == (5, 0)
    found = open_desk(home, "mine/01").verdicts.read()
    assert sorted(map(repr, found)) == sorted(map(repr, before))


def exported(desk: Desk, path: Path) -> list[dict]:
    label_studio.export_tasks(desk, path)
    return json.loads(path.read_text())


def chosen(choice: str, **annotation: object) -> dict:
    value = {"choices": [choice]}
    result = [{"from_name": "verdict", "to_name": "response", "type": "choices", "value": value}]
    return {"id": 7, "result": result, "was_cancelled": False, "lead_time": 1.5, **annotation}


def test_its_users_are_annotators(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "tasks.json"
    tasks = exported(desk, file)
    email = {"id": 3, "email": "ada@example.org", "first_name": ""}
    tasks[0]["annotations"] = [
        chosen("accept", completed_by=email, created_at="2026-11-28T12:00:00Z"),
        chosen("refuse", completed_by=10),
        {"result": [], "was_cancelled": True, "completed_by": {"id": 4}},
    ]
    file.write_text(json.dumps(tasks))
    done = label_studio.import_verdicts(desk, file)
    assert (done["num_verdicts"], done["num_tasks_without"]) == (3, 11)
    found = {each.annotator: (each.verdict, each.created_at) for each in desk.verdicts.read()}
    assert found == {
        "ada@example.org": (ACCEPT, "2026-11-28T12:00:00Z"),
        "label-studio-10": (REFUSE, None),
        "label-studio-4": (SKIP, None),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tasks: tasks[2]["data"].update(response_id="9/9"), "has no response '9/9'"),
        (lambda tasks: tasks[2]["data"].update(attempt="mine/01.2"), "its attempt is 'mine/01.2'"),
        (lambda tasks: tasks[2]["data"].update(response="another"), "its response is 'another'"),
        (lambda tasks: tasks[2].pop("data"), "no task with `data`"),
        (
            lambda tasks: tasks[2].update(annotations=[chosen("maybe", completed_by=1)]),
            r"the choice is \['maybe'\]",
        ),
        (
            lambda tasks: tasks[2].update(annotations=[{"result": [], "completed_by": 1}]),
            "no choice 'verdict'",
        ),
        (lambda tasks: tasks[2].update(annotations=[chosen("skip")]), "names nobody"),
        (
            lambda tasks: tasks[2].update(annotations=[chosen("skip", completed_by="../x")]),
            "cannot name an annotator",
        ),
        (lambda tasks: tasks[2].update(annotations=3), "`annotations` is no list"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_whole(
    desk: Desk, tmp_path: Path, change: object, message: str
) -> None:
    file = tmp_path / "tasks.json"
    tasks = exported(desk, file)
    tasks[0]["annotations"] = [chosen("accept", completed_by=1)]
    change(tasks)
    file.write_text(json.dumps(tasks))
    with pytest.raises(DataError, match=rf"task 3: .*{message}"):
        label_studio.import_verdicts(desk, file)
    assert desk.verdicts.read() == []


@pytest.mark.parametrize("text", ["{}", "[", "[[[" * 9999, '"x"'])
def test_no_label_studio_export_at_all(desk: Desk, tmp_path: Path, text: str) -> None:
    file = tmp_path / "tasks.json"
    file.write_text(text)
    with pytest.raises(DataError, match=r"tasks\.json (cannot be read|holds no list)"):
        label_studio.import_verdicts(desk, file)


# ---------------------------------------------------------------- the token


async def _asked(gate: TokenGate, query: str = "", cookie: str = "", kind: str = "http") -> list:
    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    headers = [(b"cookie", cookie.encode())] if cookie else []
    scope = {"type": kind, "path": "/x", "query_string": query.encode(), "headers": headers}
    await gate(scope, None, send)
    return sent


@pytest.mark.parametrize(
    ("query", "cookie", "status"),
    [
        ("", "", 401),
        ("token=", "", 403),
        ("token=wrong", "mine=right", 403),
        ("token=right", "", 303),
        ("", "mine=wrong", 403),
        ("", "other=right", 401),
        ("", "mine=right", 200),
        ("", "a=b; mine=right", 200),
        ("", "mine=r\u00efght", 401),
    ],
)
def test_nothing_is_answered_without_the_token(query: str, cookie: str, status: int) -> None:
    import asyncio

    async def app(scope: dict, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    gate = TokenGate(app, "right", "mine")
    sent = asyncio.run(_asked(gate, query, cookie))
    assert sent[0]["status"] == status
    headers = dict(sent[0]["headers"])
    assert b"default-src 'none'" in headers[b"content-security-policy"]
    if status == 303:
        assert headers[b"location"] == b"/"
        assert headers[b"set-cookie"] == b"mine=right; HttpOnly; SameSite=Strict; Path=/"
    closed = asyncio.run(_asked(gate, "token=right", "mine=right", "websocket"))
    assert closed == [{"type": "websocket.close", "code": 1008}]


def test_the_address_keeps_what_else_was_asked() -> None:
    import asyncio

    gate = TokenGate(None, "right", "mine")
    sent = asyncio.run(_asked(gate, "annotator=ada&token=right&response=1%2F0"))
    assert dict(sent[0]["headers"])[b"location"] == b"/?annotator=ada&response=1%2F0"


def test_the_attempt_is_the_one_that_the_tests_ask_for(desk: Desk) -> None:
    assert desk.attempt_id == ATTEMPT
