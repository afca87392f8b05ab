"""People's verdicts on disk: what is kept survives, what is taken back stays away."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from csr.annotations import Annotation, AnnotationVerdict
from csr.errors import ConfigError, DataError, EnvironmentFault
from storage import verdicts
from storage.verdicts import Outdated, VerdictFolder, annotator_name, read_verdicts
from tests.scripted_run import files_below

ACCEPT, REFUSE, SKIP = AnnotationVerdict


def said(name: str, verdict: AnnotationVerdict = ACCEPT, annotator: str = "ada") -> Annotation:
    return Annotation(
        response_id=name,
        prompt_id=name.partition("/")[0],
        verdict=verdict,
        annotator=annotator,
        created_at="2026-11-28T12:00:00+00:00",
    )


@pytest.fixture
def folder(tmp_path: Path) -> VerdictFolder:
    return VerdictFolder(tmp_path / "verdicts", 1)


def test_verdicts_are_read_back_by_annotator_and_time(folder: VerdictFolder) -> None:
    given = [said("b/1"), said("a/0", REFUSE), said("a/0", SKIP, "zoë"), said("a/1", SKIP)]
    for each in given:
        folder.add(each)
    assert folder.read() == [given[0], given[1], given[3], given[2]]
    assert [file.name for file in files_below(folder.directory / "ada")] == [
        ".lock", "00000001.parquet", "00000002.parquet", "00000003.parquet",
    ]  # fmt: skip


def test_a_later_verdict_replaces_and_undo_brings_the_earlier_back(folder: VerdictFolder) -> None:
    folder.add(said("a/0", ACCEPT))
    folder.add(said("a/0", REFUSE))
    assert [each.verdict for each in folder.read()] == [REFUSE]
    assert folder.undo("ada") == said("a/0", REFUSE)
    assert [each.verdict for each in folder.read()] == [ACCEPT]
    assert folder.undo("ada") == said("a/0", ACCEPT)
    assert folder.undo("ada") is None
    assert folder.read() == []


def test_a_number_given_again_is_read_again(folder: VerdictFolder) -> None:
    """Another process takes back and judges anew: the file has its old name."""
    folder.add(said("a/0", ACCEPT))
    assert [each.verdict for each in folder.read()] == [ACCEPT]
    other = VerdictFolder(folder.directory, 1)
    other.undo("ada")
    other.add(said("a/0", REFUSE))
    assert [each.verdict for each in folder.read()] == [REFUSE]


def test_who_has_seen_something_else_changes_nothing(folder: VerdictFolder) -> None:
    seen = folder.mark("ada")
    folder.add(said("a/0"), seen)
    with pytest.raises(Outdated, match="another window"):
        folder.add(said("a/1"), seen)
    with pytest.raises(Outdated):
        folder.undo("ada", seen)
    assert folder.read() == [said("a/0")]
    before = folder.mark("ada")
    folder.undo("ada", before)
    folder.add(said("a/1"))
    assert folder.mark("ada") != before  # though the newest file has the same name


@pytest.mark.parametrize("name", ["ada", "Ada Lovelace", "zoë.k", "a+b@example.org", "李", "7"])
def test_names_of_people_are_taken(name: str) -> None:
    assert annotator_name(f" {name} ") == name


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "..", "../ada", "a/b", "a\\b", ".ada", "ada.", "a\nb", "a\0b", "a\u202eb",
     "-ada", "x" * 65, "字" * 64 + "字", "é" * 64 + "x", "a:b", "<b>", "~", "a\u200bb", "*"],
)  # fmt: skip
def test_names_that_could_be_paths_or_hide_something_are_refused(
    name: str, folder: VerdictFolder
) -> None:
    with pytest.raises(ConfigError, match="cannot name an annotator"):
        folder.add(said("a/0", annotator=name))
    assert not folder.directory.exists()


def test_the_same_name_in_two_encodings_is_one_person() -> None:
    assert annotator_name("zoe\u0308") == annotator_name("zo\u00eb")


KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from storage import atomic, verdicts
from tests.unit.test_verdicts import said
folder = verdicts.VerdictFolder(Path(sys.argv[1]), 1)
folder.add(said("a/0"))
when = sys.argv[2]
def die(*args): os.kill(os.getpid(), signal.SIGKILL)
if when == "writing":
    def half(path, table): path.with_name(".half.tmp").write_bytes(b"PAR1"); die()
    verdicts.write_table = half
elif when == "before the name":
    os.replace = die
elif when == "after the name":
    os.replace = lambda one, other, do=os.rename: (do(one, other), die())
elif when == "undo, before":
    Path.unlink = die
elif when == "undo, after":
    verdicts.fsync = die
if when.startswith("undo"):
    folder.undo("ada")
else:
    folder.add(said("a/1"))
"""


@pytest.mark.parametrize(
    ("when", "kept"),
    [
        ("writing", ["a/0"]),
        ("before the name", ["a/0"]),
        ("after the name", ["a/0", "a/1"]),
        ("undo, before", ["a/0"]),
        ("undo, after", []),
    ],
)
def test_a_kill_loses_nothing_and_brings_nothing_back(
    folder: VerdictFolder, when: str, kept: list[str]
) -> None:
    command = [sys.executable, "-c", KILLED_WRITER, str(folder.directory), when]
    imports = os.pathsep.join(path or os.getcwd() for path in sys.path)
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": imports}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [each.response_id for each in folder.read()] == kept
    folder.add(said("a/2"))  # and the next goes on
    assert [each.response_id for each in read_verdicts(folder.directory)] == [*kept, "a/2"]


def _add_many(directory: Path, who: str, first: int) -> None:
    for number in range(first, first + 15):
        VerdictFolder(directory, 1).add(said(f"a/{number}", annotator=who))


def test_processes_never_write_over_each_other(folder: VerdictFolder) -> None:
    spawn = multiprocessing.get_context("fork")
    work = [("ada", 0), ("ada", 100), ("ben", 0)]
    processes = [spawn.Process(target=_add_many, args=(folder.directory, *each)) for each in work]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    kept = [(each.annotator, each.response_id) for each in folder.read()]
    assert len(kept) == len(set(kept)) == 45


def test_a_full_disk_is_told_and_keeps_what_there_was(
    folder: VerdictFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.add(said("a/0"))

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("storage.atomic.os.replace", full)
    with pytest.raises(EnvironmentFault, match="the disk is full"):
        folder.add(said("a/1"))
    monkeypatch.undo()
    assert folder.read() == [said("a/0")]
    assert [file.name for file in files_below(folder.directory)] == [".lock", "00000001.parquet"]


def test_a_run_that_starts_takes_no_verdict_away(
    folder: VerdictFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It removes half-written files, one of which may be this one."""
    from storage.atomic import remove_temporaries

    replace, calls = os.replace, []

    def swept(one: Path, other: Path) -> None:
        if not calls:
            calls.append(remove_temporaries(folder.directory))
        replace(one, other)

    monkeypatch.setattr("storage.atomic.os.replace", swept)
    folder.add(said("a/0"))
    assert (calls, folder.read()) == ([1], [said("a/0")])


def test_damage_and_strangers_are_told(folder: VerdictFolder) -> None:
    folder.add(said("a/0"))
    (file,) = verdicts.verdict_files(folder.directory)
    good = file.read_bytes()
    file.write_bytes(good[:-9])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_verdicts(folder.directory)
    file.write_bytes(good)
    file.parent.rename(folder.directory / "ben")
    with pytest.raises(DataError, match="a verdict of 'ada', and lies in the folder of 'ben'"):
        read_verdicts(folder.directory)
