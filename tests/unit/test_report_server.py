"""Reports over HTTP: those of the home's runs, and nothing else on this machine."""

import http.client
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from csr.errors import ConfigError, EnvironmentFault
from flows import serving
from flows.forms import RunRequest
from flows.report import CONTENT_SECURITY_POLICY
from flows.report_server import find_report, serve_reports
from tests.ports import free_port
from tests.scripted_run import Csr, write_recipe

PAGE = "<!doctype html><p>ä</p>"
OTHER_PATHS = (
    "/",
    "/mine",
    "/mine/",
    "/mine/run.json",
    "/mine/notes.html",
    "/mine/report.html/",
    "/mine/./report.html",
    "/mine/../mine/report.html",
    "/mine/%2e%2e/report.html",
    "/mine%2freport.html",
    "/report.html",
    "/../report.html",
    "/..%2freport.html",
    "/../../../../../../etc/passwd",
    "//etc/passwd",
    "/folder/report.html",
    "/other/report.html",
    "/mine/report.html\\..\\notes.html",
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the run `mine`, and secrets in and beside it."""
    run = tmp_path / "home" / "mine"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    (run / "report.html").write_text(PAGE)
    (run / "notes.html").write_text("secret")
    (tmp_path / "home" / "report.html").write_text("secret")
    (tmp_path / "report.html").write_text("secret")
    no_run = tmp_path / "home" / "folder"
    no_run.mkdir()
    (no_run / "report.html").write_text("secret")
    return tmp_path / "home"


@pytest.fixture
def port(home: Path) -> Iterator[int]:
    with serve_reports(home, 0) as url:
        host, _, port = url.rpartition(":")
        assert host == "http://127.0.0.1"
        yield int(port)


def ask(
    port: int, path: str, method: str = "GET", **headers: str
) -> tuple[int, http.client.HTTPMessage, str]:
    """Status, headers and body; the path goes out as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, answer.headers, body


def test_a_report_is_served_under_the_policy_that_it_has_itself(port: int) -> None:
    status, headers, body = ask(port, "/mine/report.html")
    assert (status, body) == (200, PAGE)
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Python" not in headers["Server"]
    status, headers, body = ask(port, "/mine/report.html", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(len(PAGE.encode())), "")


def test_everything_else_is_refused(port: int) -> None:
    answers = {path: ask(port, path) for path in OTHER_PATHS}
    assert {path: status for path, (status, _, _) in answers.items() if status != 404} == {}
    assert not any("secret" in body for _, _, body in answers.values())


def test_nothing_behind_a_link_is_served(home: Path, tmp_path: Path, port: int) -> None:
    (home / "mine" / "report.html").unlink()
    assert ask(port, "/mine/report.html")[0] == 404  # not written yet
    (home / "mine" / "report.html").symlink_to(tmp_path / "report.html")
    assert ask(port, "/mine/report.html")[0] == 404
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("run.json", "report.html"):
        (outside / name).write_text("secret")
    (home / "linked").symlink_to(outside)
    assert ask(port, "/linked/report.html")[0] == 404


def test_a_home_may_be_named_by_a_link_itself(home: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").symlink_to(home)
    found = find_report(tmp_path / "disk", "/mine/report.html")
    assert found == home.resolve() / "mine" / "report.html"
    assert find_report(home, "/mine/report.html\n") is None


def test_other_names_of_this_machine_and_other_methods_are_refused(port: int) -> None:
    assert ask(port, "/mine/report.html", Host="evil.example")[0] == 403
    assert ask(port, "/mine/report.html", Host=f"evil.example:{port}")[0] == 403
    assert ask(port, "/mine/report.html", Host="localhost:9")[0] == 200
    assert ask(port, "/mine/report.html", "POST")[0] == 501
    assert ask(port, "/mine/report.html", "PUT")[0] == 501


def test_a_taken_port_is_the_users_mistake(home: Path, port: int) -> None:
    told = pytest.raises(EnvironmentFault, match=rf"Port {port} .* choose another with --port")
    with told, serve_reports(home, port):
        pass


@pytest.mark.parametrize("own", [None, "https://reports.example"])
def test_csr_serve_tells_its_flows_where_home_and_reports_are(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    monkeypatch.setattr(os, "environ", os.environ | {"PREFECT_API_URL": "http://127.0.0.1:1/api"})
    monkeypatch.delenv("CSR_REPORT_URL", raising=False)
    if own is not None:
        monkeypatch.setenv("CSR_REPORT_URL", own)
    reports_port, recipe = free_port(), str(write_recipe(tmp_path / "data"))
    seen = {}

    def look() -> None:
        seen.update({name: os.environ[name] for name in ("CSR_HOME", "CSR_REPORT_URL")})
        raise InterruptedError

    monkeypatch.setattr("flows.slots.ensure_engine_limit", look)
    with pytest.raises(InterruptedError):
        serving.serve(reports_port - 1, None, RunRequest(home=str(home), recipe=recipe))
    assert seen == {
        "CSR_HOME": str(home),
        "CSR_REPORT_URL": own or f"http://127.0.0.1:{reports_port}",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--recipe", "nowhere.yaml"), "There is no recipe at"),
        (("--set", "trainer.nothing=1"), "trainer.nothing: unknown setting"),
        (("--run-id", "a/{date}"), "cannot name a run"),
    ],
)
def test_csr_serve_refuses_what_the_first_night_would(
    csr: Csr, tmp_path: Path, options: tuple[str, str], message: str
) -> None:
    answer = csr("serve", *options, "--home", tmp_path / "home")
    assert answer.status == 2
    assert message in answer.err
    assert "Traceback" not in answer.err


def test_csr_serve_refuses_what_is_no_cron_expression(tmp_path: Path) -> None:
    request = RunRequest(home=str(tmp_path / "home"), recipe=str(write_recipe(tmp_path / "data")))
    with pytest.raises(ConfigError, match="'every night' is no cron expression"):
        serving.serve(free_port(), "every night", request)
