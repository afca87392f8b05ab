"""Fixtures of the hostile corpus, and how much its fuzzing tries."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.hostile.inputs import Inputs, make_inputs
from tests.scripted_run import Csr

settings.register_profile("soak", max_examples=20 * settings().max_examples)
if profile := os.environ.get("HYPOTHESIS_PROFILE"):
    settings.load_profile(profile)


@pytest.fixture
def csr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Csr:
    return Csr(monkeypatch, capsys)


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return make_inputs(tmp_path / "data")
