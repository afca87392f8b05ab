"""A disk that is full or read-only: one clear message, finished work intact, and the run goes on.

Where mounting is permitted, with a real small file system; everywhere, with refused writes.
"""

import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import cases
from tests.faults.cases import KILLED, Undisturbed, recovery_problems, run_all
from tests.faults.command import RUN, Ended, run
from tests.faults.events import Fault
from tests.faults.hooks import allow_any_disk
from tests.faults.results import damage, finished
from tests.scripted_run import files_below

LARGE = "64M"
SEED = 3


@pytest.mark.parametrize("kind", ["full", "full_once", "read_only"])
def test_a_refused_write_is_told_and_mended(peace: Undisturbed, kind: str) -> None:
    chosen = random.Random(SEED).sample(cases.refusals(peace, kind), 4)
    results = run_all(peace, chosen)
    assert {result.name: result.problems for result in results if result.problems} == {}


def mount(*arguments: object) -> None:
    if shutil.which("mount") is None:
        pytest.skip("no file system can be mounted here: there is no command `mount`")
    done = subprocess.run(
        ["mount", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", f"size={LARGE}", "csr-test", folder)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def assert_told(ended: Ended, *, what: str) -> None:
    assert ended.status in (1, 2), (ended.status, ended.err)
    assert what in ended.last_line
    assert "Traceback" not in ended.err


# Of what the whole run needs.
@pytest.mark.parametrize("share", [0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95])
def test_a_disk_that_fills_up(peace: Undisturbed, tmp_path: Path, disk: Path, share: float) -> None:
    home = disk / "home"
    size = share * num_bytes(peace.folder / "undisturbed")
    mount("-o", f"remount,size={int(size)}", disk)
    ended = run(peace.recipe, home, tmp_path / "filled", before=allow_any_disk)
    assert_told(ended, what="the disk is full")
    assert damage(home, RUN) == []
    before = finished(home, RUN)

    mount("-o", f"remount,size={LARGE}", disk)
    ended = run(peace.recipe, home, tmp_path / "freed", before=allow_any_disk)
    assert recovery_problems(peace, home, ended) == []
    after = finished(home, RUN)
    assert {key: after[key] for key in before} == before


def test_a_disk_too_small_is_refused_before_the_start(
    peace: Undisturbed, tmp_path: Path, disk: Path
) -> None:
    ended = run(peace.recipe, disk / "home", tmp_path / "log")
    assert_told(ended, what="has 0.06 GiB free, and the run needs 0.50 GiB. Free space")
    assert files_below(disk) == []


def test_read_only_from_the_start(peace: Undisturbed, tmp_path: Path, disk: Path) -> None:
    mount("-o", "remount,ro", disk)
    ended = run(peace.recipe, disk / "home", tmp_path / "log", before=allow_any_disk)
    assert_told(ended, what=f"cannot be written: {disk} is closed to this user")


def test_read_only_between_two_stages(peace: Undisturbed, tmp_path: Path, disk: Path) -> None:
    home = disk / "home"
    middle = Fault("kill", peace.events.index("call run_stage pair 01"))
    assert run(peace.recipe, home, tmp_path / "a", middle, allow_any_disk).status == KILLED
    before = finished(home, RUN)
    mount("-o", "remount,ro", disk)
    refused = run(peace.recipe, home, tmp_path / "b", before=allow_any_disk)
    assert_told(refused, what="the file system is read-only")
    assert finished(home, RUN) == before
    assert damage(home, RUN) == []
    mount("-o", "remount,rw", disk)
    ended = run(peace.recipe, home, tmp_path / "c", before=allow_any_disk)
    assert recovery_problems(peace, home, ended) == []
    after = finished(home, RUN)
    assert {key: after[key] for key in before} == before


def num_bytes(folder: Path) -> int:
    """As a file system of 4 KiB pages counts them."""
    page = 4096
    return sum(-(-file.stat().st_size // page) * page for file in files_below(folder))
