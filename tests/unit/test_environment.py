import os
from pathlib import Path

import pytest

from flows import environment


@pytest.fixture(autouse=True)
def own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"PATH": "/bin"})


def test_apply_sets_what_is_unset_and_keeps_the_users_values() -> None:
    os.environ["PREFECT_HOME"] = "/elsewhere"
    environment.apply(Path("/data/runs"))
    assert os.environ["PREFECT_HOME"] == "/elsewhere"
    assert os.environ["PREFECT_RESULTS_LOCAL_STORAGE_PATH"] == "/data/runs/.prefect/results"
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_only_an_offline_run_is_cut_off_from_the_hub() -> None:
    environment.apply(Path("/data/runs"))
    assert "HF_HUB_OFFLINE" not in os.environ
    environment.apply(Path("/data/runs"), offline=True)
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_a_relative_home_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert environment.settings(Path("runs"))["PREFECT_HOME"] == f"{tmp_path}/runs/.prefect"


def test_prefect_knows_every_setting_of_its_own() -> None:
    from prefect.settings import Settings
    from prefect.settings.legacy import _get_settings_fields

    known = set(_get_settings_fields(Settings))
    names = {each.name for each in (*environment.TELEMETRY, *environment.PREFECT)}
    ours = {name for name in names if name.startswith("PREFECT_")}
    # This one overrides a value of Prefect's logging.yml and is no setting.
    assert ours - known == {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"}


def test_a_stage_process_imports_what_its_parent_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", ["/one", "", "/two"])
    assert environment.for_stage_process()["PYTHONPATH"] == f"/one:{Path.cwd()}:/two"
