"""A file that exists under its name is complete, whatever happens while it is written."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from csr.errors import DataError, EnvironmentFault, NumericalError
from csr.files import publish_directory, replaced_directory, temporary_beside
from storage import atomic
from storage.atomic import (
    read_json,
    remove_temporaries,
    require_free_space,
    short_lock,
    write_atomic,
    write_json,
)


def test_json_comes_back_and_other_files_do_not_appear(tmp_path):
    path = tmp_path / "new" / "x.json"
    write_json(path, {"name": "é", "value": 0.1})
    assert read_json(path) == {"name": "é", "value": 0.1}
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [("", "cannot be read as JSON"), ("[1]", "no JSON object"), (None, "does not exist")],
)
def test_unreadable_json_is_named(tmp_path, text, problem):
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=rf"x\.json.*{problem}"):
        read_json(path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError])
def test_an_interrupted_write_leaves_the_old_content(tmp_path, error):
    path = tmp_path / "x"
    path.write_text("old")

    def interrupted(temporary: Path) -> None:
        temporary.write_text("ne")
        raise error

    with pytest.raises(error):
        write_atomic(path, interrupted)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "problem"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission"),
    ],
)
def test_a_disk_that_cannot_take_it_is_named(tmp_path, monkeypatch, number, problem):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(EnvironmentFault, match=rf"x\.json: .*{problem}"):
        write_json(tmp_path / "x.json", {})
    assert list(tmp_path.iterdir()) == []


def test_data_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    events = []
    fsync, replace = atomic.fsync, os.replace
    monkeypatch.setattr(atomic, "fsync", lambda p: (events.append(("fsync", p.is_dir())), fsync(p)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("rename"), replace(a, b)))
    write_json(tmp_path / "x.json", {})
    assert events == [("fsync", False), "rename", ("fsync", True)]


def test_a_killed_writer_leaves_no_torn_file(tmp_path):
    """The writer dies by SIGKILL in the middle; what it left is swept away."""
    path = tmp_path / "x.json"
    write_json(path, {"value": "old"})
    program = (
        "import os, signal, pathlib, sys\n"
        "from storage.atomic import write_atomic\n"
        "def write(temporary):\n"
        "    temporary.write_text('{\"va')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomic(pathlib.Path(sys.argv[1]), write)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert read_json(path) == {"value": "old"}
    assert len(list(tmp_path.iterdir())) == 2
    assert remove_temporaries(tmp_path) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_appears_whole_and_is_never_overwritten(tmp_path):
    final = tmp_path / "policy"
    temporary = temporary_beside(final)
    (temporary / "adapter").mkdir(parents=True)
    (temporary / "adapter" / "a").write_text("1")
    assert not final.exists()
    publish_directory(temporary, final)
    assert (final / "adapter" / "a").read_text() == "1"
    assert not temporary.exists()
    again = temporary_beside(final)
    again.mkdir()
    with pytest.raises(DataError, match="exists already"):
        publish_directory(again, final)
    assert remove_temporaries(tmp_path) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["policy"]


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (OSError(errno.ENOSPC, "No space left"), EnvironmentFault, "policy: the disk is full"),
        (OSError(errno.EROFS, "Read-only"), EnvironmentFault, "policy: the file system is read-"),
        # What safetensors raises; it is no OSError.
        (ValueError("I/O error: No space left (os error 28)"), EnvironmentFault, "disk is full"),
        # A missing image is no fault of this disk.
        (FileNotFoundError(errno.ENOENT, "gone"), FileNotFoundError, "gone"),
        (NumericalError("loss is NaN"), NumericalError, "NaN"),
    ],
)
def test_a_directory_that_cannot_be_filled_does_not_appear(tmp_path, error, raised, message):
    path = tmp_path / "policy"

    def fail() -> None:
        with replaced_directory(path) as building:
            building.mkdir()
            (building / "model").write_text("half")
            raise error

    with pytest.raises(raised, match=message):
        fail()
    assert list(tmp_path.iterdir()) == []

    with replaced_directory(path) as building:
        building.mkdir()
        (building / "model").write_text("whole")
    assert (path / "model").read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(raised, match=message):
        fail()
    assert (path / "model").read_text() == "whole"  # until another is complete
    assert list(tmp_path.iterdir()) == [path]


def test_short_lock_keeps_counts_right_between_threads(tmp_path):
    path = tmp_path / "count.json"
    write_json(path, {"count": 0})

    def work() -> None:
        for _ in range(20):
            with short_lock(tmp_path / ".lock"):
                write_json(path, {"count": read_json(path)["count"] + 1})

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_json(path) == {"count": 80}


def test_too_little_space_is_said_before_the_start(tmp_path):
    require_free_space(tmp_path / "not" / "yet", 1)
    with pytest.raises(EnvironmentFault, match=r"has .* GiB free, .* needs 1073741824\.00 GiB"):
        require_free_space(tmp_path, 2**60)
