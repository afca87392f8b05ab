"""Pushing: what the hub is asked, what is refused before, and what a fault of it is told as."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from csr.errors import ConfigError, CSRError, EnvironmentFault
from flows.exporting import hub
from flows.exporting.output import RECORD
from tests.fake_hub import FakeHub


@pytest.fixture
def export(tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / RECORD).write_text("{}")
    (folder / "README.md").write_text("---\nlicense: unknown\n---\n")
    return folder


def to(repo_id: str = "me/pairs", **changes: Any) -> hub.Push:
    facts = {"repo_type": "dataset", "private": False, "overwrite": False, **changes}
    return hub.Push(repo_id=repo_id, **facts)


def refused(status: int) -> HfHubHTTPError:
    request = httpx.Request("POST", "https://hub.example/api")
    return HfHubHTTPError("no", response=httpx.Response(status, request=request))


def test_an_export_is_put_there_as_one_commit(tmp_path: Path, export: Path) -> None:
    api = FakeHub(tmp_path / "hub")
    hub.refuse_taken(api, to(private=True))
    url = hub.upload(api, to(private=True), export, "trl of tiny/01.1")
    assert url == "https://hub.example/datasets/me/pairs"
    assert [call for call, _ in api.calls] == ["create_repo", "upload_folder"]
    assert api.calls[0][1]["private"] is True
    assert api.calls[1][1]["commit_message"] == "trl of tiny/01.1"
    assert api.calls[1][1]["delete_patterns"] is None
    there = tmp_path / "hub/dataset/me/pairs"
    assert sorted(p.name for p in there.iterdir()) == [".gitattributes", "README.md", RECORD]
    assert "token" not in str(api.calls)


def test_a_public_repository_follows_the_owners_default(tmp_path: Path, export: Path) -> None:
    api = FakeHub(tmp_path / "hub")
    hub.upload(api, to(), export, "m")
    assert api.calls[0][1]["private"] is None


def test_the_name_of_something_else_is_refused(tmp_path: Path) -> None:
    there = tmp_path / "hub/dataset/me/pairs"
    there.mkdir(parents=True)
    api = FakeHub(tmp_path / "hub")
    hub.refuse_taken(api, to())  # an empty repository is nobody's yet
    (there / "weights.bin").touch()
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="holds something else than an export of csr"):
            hub.refuse_taken(api, to(overwrite=overwrite))
    hub.refuse_taken(api, to(repo_type="model"))
    assert api.calls == []


def test_an_older_export_is_replaced_where_asked(tmp_path: Path, export: Path) -> None:
    api = FakeHub(tmp_path / "hub")
    hub.upload(api, to(), export, "first")
    (tmp_path / "hub/dataset/me/pairs/images").mkdir()
    (tmp_path / "hub/dataset/me/pairs/images/old.png").touch()
    with pytest.raises(ConfigError, match="holds an export already"):
        hub.refuse_taken(api, to())
    hub.refuse_taken(api, to(overwrite=True))
    hub.upload(api, to(overwrite=True), export, "second")
    assert not (tmp_path / "hub/dataset/me/pairs/images").exists()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (refused(401), "does not let this login write the dataset me/pairs"),
        (refused(403), "status 403"),
        (refused(503), "did not take the dataset me/pairs on the hub (status 503"),
        (httpx.ConnectError("no route"), "cannot be reached for the dataset me/pairs"),
        (ValueError("Invalid metadata in README.md."), "as it is ('Invalid metadata"),
        (RuntimeError("uploader"), "cannot be reached for the dataset me/pairs"),
        (TimeoutError(), "Check the network and HF_ENDPOINT"),
        (OfflineModeIsEnabled("x"), "HF_HUB_OFFLINE is set"),
    ],
)  # fmt: skip
def test_a_hub_that_refuses_is_told_of_and_the_export_stays(
    tmp_path: Path, export: Path, fault: Exception, message: str
) -> None:
    api = FakeHub(tmp_path / "hub", fails=fault)
    with pytest.raises(EnvironmentFault) as told:
        hub.upload(api, to(), export, "m")
    assert message in str(told.value)
    assert f"The export itself is complete, in {export}" in str(told.value)
    assert (export / RECORD).exists()


@pytest.mark.parametrize("name", ["pairs", "a/b/c", "../x", "a b/c", "a/b--c", "a/" + "x" * 97, ""])
def test_a_name_that_no_hub_takes_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="--push"):
        hub.check_name(name, "--push")
    hub.check_name("me/pairs-2.1_x", "--push")


def test_without_a_login_or_offline_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(EnvironmentFault, match="HF_HUB_OFFLINE is set"):
        hub.connect()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nonexistent/token")
    with pytest.raises(CSRError, match="hf auth login"):
        hub.connect()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert isinstance(hub.connect(), HfApi)


class _Refusing(http.server.BaseHTTPRequestHandler):
    """Knows one login, has no repository, and lets nobody make one."""

    def do_GET(self) -> None:
        if self.headers["Authorization"] != "Bearer hf_known":
            self._answer(401)
        elif self.path == "/api/whoami-v2":
            self._answer(200, b'{"name": "me"}')
        else:
            self._answer(404, code="RepoNotFound")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(403)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"{}", code: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_the_real_client_says_whose_login_is_refused(endpoint: str, export: Path) -> None:
    unknown = HfApi(endpoint=endpoint, token="hf_secret")
    with pytest.raises(EnvironmentFault, match=r"does not let this login write.*401") as told:
        hub.refuse_taken(unknown, to())
    assert "hf_secret" not in str(told.value)
    known = HfApi(endpoint=endpoint, token="hf_known")
    hub.refuse_taken(known, to())
    with pytest.raises(EnvironmentFault, match=r"does not let this login write.*403"):
        hub.upload(known, to(), export, "m")


def test_the_stand_in_is_called_as_the_real_client_can_be() -> None:
    """Names of arguments that the real client lacks would fail only on a real hub."""
    import inspect

    wanted = {
        "whoami": set(),
        "repo_exists": {"repo_id", "repo_type"},
        "list_repo_files": {"repo_id", "repo_type"},
        "create_repo": {"repo_id", "repo_type", "private", "exist_ok"},
        "upload_folder": {
            "repo_id", "repo_type", "folder_path", "commit_message", "delete_patterns",
        },
    }  # fmt: skip
    for name, arguments in wanted.items():
        assert arguments <= set(inspect.signature(getattr(HfApi, name)).parameters), name
        protocol = set(inspect.signature(getattr(hub.HubApi, name)).parameters) - {"self"}
        assert protocol == arguments, name
