"""`csr verify`: every file of a run against the checksum that was taken when it was written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from csr.checkpoints import weights_sha256
from csr.errors import CSRError, DataError
from csr.files import file_sha256
from csr.protocols import Json
from flows import tables
from flows.home import open_store
from storage.attempt import AttemptDir
from storage.manifest import FileRecord, damaged
from storage.run_store import RunStore
from storage.tables import read_table
from storage.verdicts import read_verdict, verdict_files

RESUME = "`csr run` with the run's recipe"
MENDS = {
    "sample": f"{RESUME} samples this shard anew, and no other",
    "train": f"{RESUME} trains anew, from the last good checkpoint; the policy before is untouched",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as it was written."""

    where: str
    """An attempt's ID and stage, or what else the file belongs to."""
    problem: str
    mend: str


def verify(home: Path, run_id: str) -> Json:
    """`{"run_id", "num_files", "problems": [{"where", "problem", "mend"}]}`.

    Reads the run's tables, each attempt's files, the base model's weights and the images.
    DataError where there is no such run.
    """
    store = open_store(home)
    record = store.run(run_id)
    restore = "Restore it from a copy: iterations read it, and nothing makes it anew."
    num_files, problems = _check("prompts", record.files, store.run_path(run_id), restore)
    for part in (_attempts, _base_model, _images):
        number, found = part(store, run_id)
        num_files, problems = num_files + number, problems + found
    return {
        "run_id": run_id,
        "num_files": num_files,
        "problems": [asdict(problem) for problem in problems],
    }


def table(shape: Json) -> Any:
    """The shape of `verify` for people."""
    said = f"Run {shape['run_id']}: {shape['num_files']} files read, "
    if not shape["problems"]:
        return said + "all as they were written."
    rows = [(each["where"], each["problem"], each["mend"]) for each in shape["problems"]]
    title = f"{said}{len(shape['problems'])} wrong"
    return tables.table(("where", "problem", "what to do"), rows, title)


def _check(
    where: str, files: Iterable[FileRecord], directory: Path, mend: str
) -> tuple[int, list[Problem]]:
    listed = list(files)
    found = [Problem(where, text, mend) for text in damaged(listed, directory)]
    return len(listed), found


def _attempts(store: RunStore, run_id: str) -> tuple[int, list[Problem]]:
    """Every stage's files of every attempt, current or not."""
    num_files, problems = 0, list[Problem]()
    for iteration in store.iterations(run_id):
        for number in store.attempts(run_id, iteration):
            checked, found = _attempt(store.attempt(run_id, iteration, number))
            num_files, problems = num_files + checked, problems + found
    return num_files, problems


def _attempt(attempt: AttemptDir) -> tuple[int, list[Problem]]:
    try:
        stages = attempt.manifest.read().stages
    except DataError as error:
        return 1, [Problem(str(attempt.id), str(error), "Restore it, or rerun the iteration.")]
    num_files, problems = 1, list[Problem]()
    for record in stages:
        mend = MENDS.get(record.stage, f"{RESUME} does {record.stage} anew")
        where = f"{attempt.id} {record.stage} {record.shard}"
        checked, found = _check(where, record.files, attempt.path, mend)
        num_files, problems = num_files + checked, problems + found
    checked, found = _verdicts(attempt)
    return num_files + checked, problems + found


def _verdicts(attempt: AttemptDir) -> tuple[int, list[Problem]]:
    """What people said: no stage wrote it, so no checksum is known but each file's own."""
    files, problems = verdict_files(attempt.verdicts), list[Problem]()
    for file in files:
        try:
            read_verdict(file)
        except DataError as error:
            mend = f"Restore it, or remove it and judge anew with csr review {attempt.id}."
            problems.append(Problem(f"{attempt.id} verdicts", str(error), mend))
    return len(files), problems


def _base_model(store: RunStore, run_id: str) -> tuple[int, list[Problem]]:
    """The user's own model, which no run writes."""
    if 0 not in store.iterations(run_id):
        return 0, []
    try:
        policy = store.attempt(run_id, 0).manifest.read().policy_in or {}
    except DataError:
        return 0, []  # told of already, as an attempt's manifest
    if not policy:
        return 0, []
    problem = _weights_problem(Path(policy["model_path"]), policy["sha256"])
    mend = "Put the old files back, or start a new run."
    return 1, [Problem("base model", problem, mend)] if problem else []


def _weights_problem(model: Path, sha256: str) -> str:
    if not model.is_dir():
        return f"{model} is not there any more"
    try:
        found = weights_sha256(model)
    except (CSRError, OSError) as error:
        return f"cannot be read: {error}"
    return (
        "" if found == sha256 else f"the weights of {model} are not those that the run began with"
    )


def _images(store: RunStore, run_id: str) -> tuple[int, list[Problem]]:
    """The images of the run's prompts, which lie where the user keeps them."""
    try:
        tables = [read_table(path, "prompts") for path in store.prompts_paths(run_id)]
    except DataError:
        return 0, []  # told of already, as a file of the run
    columns = ["image_uri", "image_sha256"]
    rows = [row for table in tables for row in table.select(columns).to_pylist()]
    known = {row["image_uri"]: row["image_sha256"] for row in rows}
    mend = "Put the old image back: sampling and training read it."
    problems = [
        Problem("images", f"{path} {what}", mend)
        for path, sha256 in known.items()
        if (what := _image_problem(Path(path), sha256))
    ]
    return len(known), problems


def _image_problem(path: Path, sha256: str) -> str:
    try:
        return "" if file_sha256(path) == sha256 else "changed since the run began"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
