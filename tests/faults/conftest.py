"""One undisturbed run serves all tests here."""

import pytest

from tests.faults.cases import Undisturbed, undisturbed


@pytest.fixture(scope="session")
def peace(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return undisturbed(tmp_path_factory.mktemp("faults"))
