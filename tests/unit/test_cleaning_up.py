"""What docs/operations.md says may be removed can be removed."""

import shutil
from pathlib import Path

from tests.scripted_run import Csr, write_recipe


def test_an_attempt_that_is_no_longer_current_can_be_removed(csr: Csr, tmp_path: Path) -> None:
    recipe, home = write_recipe(tmp_path / "data"), tmp_path / "home"
    run = ("run", recipe, "--run-id", "r", "--home", home)
    assert csr(*run).status == 0
    assert csr("rerun", "r/01", "--from", "pair", "--home", home).status == 0
    assert csr("promote", "r/01.2", "--home", home).status == 0
    shutil.rmtree(home / "r" / "iterations" / "01" / "attempts" / "1")
    assert csr("verify", "r", "--home", home, "--json").json()["problems"] == []
    assert "finished already" in csr(*run).err
    assert csr("rerun", "r/01", "--home", home, "--json").json()["attempt"] == 3


def test_a_copy_of_a_home_can_be_read(csr: Csr, tmp_path: Path) -> None:
    home, copied = tmp_path / "home", tmp_path / "copied"
    assert csr("run", write_recipe(tmp_path / "data"), "--run-id", "r", "--home", home).status == 0
    home.rename(copied)
    for command in (("ls", "r"), ("show", "r/02"), ("trace", "r", "1"), ("report", "r")):
        assert csr(*command, "--home", copied).status == 0
    assert csr("verify", "r", "--home", copied).status == 0
