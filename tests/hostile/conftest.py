"""Fixtures of the hostile corpus, and how much its fuzzing tries."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.hostile.inputs import Inputs, make_inputs

settings.register_profile("soak", max_examples=20 * settings().max_examples)
if profile := os.environ.get("HYPOTHESIS_PROFILE"):
    settings.load_profile(profile)


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return make_inputs(tmp_path / "data")
