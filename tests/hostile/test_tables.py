"""Damaged tables: on reading, and by the commands that read them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from csr.errors import DataError
from storage.rows import prompts_from_table, prompts_to_table
from storage.run_store import RunStore
from storage.tables import read_table, write_table
from tests.hostile.cases import Case, Fine, Refused
from tests.hostile.inputs import Inputs, make_inputs, names
from tests.hostile.table_cases import TABLE_FILES
from tests.sample_data import prompt
from tests.scripted_run import Csr

PROMPTS = [prompt(name) for name in ("a", "b", "מה רואים?")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_table(tmp_path / "prompts.parquet", prompts_to_table(PROMPTS))
    return tmp_path / "prompts.parquet"


@pytest.mark.parametrize("case", TABLE_FILES.cases(Refused), ids=names)
def test_a_bad_table_is_one_error(case: Case, path: Path) -> None:
    case.build(path)
    with pytest.raises(DataError) as caught:
        read_table(path, "prompts")
    assert case.verdict.words in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("case", TABLE_FILES.cases(Fine), ids=names)
def test_an_unusual_table_is_read_right(case: Case, path: Path) -> None:
    case.build(path)
    assert prompts_from_table(read_table(path, "prompts")) == PROMPTS


def test_a_footer_that_takes_rows_away_is_noticed(path: Path) -> None:
    """Every byte that may be a number of rows, one after the other."""
    good, table = path.read_bytes(), read_table(path, "prompts")
    zigzag = 2 * len(PROMPTS)
    places = [at for at, byte in enumerate(good) if byte == zigzag]
    told = 0
    for at in places:
        path.write_bytes(good[:at] + bytes([zigzag - 2]) + good[at + 1 :])
        try:
            assert read_table(path, "prompts").equals(table)
        except DataError as error:
            told += "number of rows" in str(error)
    assert told >= 2, "the file's own number, and that of its row group"


# ---------------------------------------------------------------- what the commands say


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """A run that is done, for tests to copy."""
    folder = tmp_path_factory.mktemp("finished")
    inputs = make_inputs(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        assert Csr(patch, Quiet())(*inputs.command).status == 0  # type: ignore[arg-type]
    return inputs


class Quiet:
    """Stands for pytest's capture where a fixture outlives a test."""

    class Captured:
        out = err = ""

    def readouterr(self) -> Captured:
        return self.Captured()


@pytest.fixture
def home(finished: Inputs, tmp_path: Path) -> Path:
    shutil.copytree(finished.home, tmp_path / "home")
    return tmp_path / "home"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def not_json(path: Path) -> None:
    path.write_text("{")


def other_json(path: Path) -> None:
    path.write_text("[]")


def empty_object(path: Path) -> None:
    path.write_text("{}")


def nested(path: Path) -> None:
    path.write_text('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")


def binary(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")


def newer(path: Path) -> None:
    text = path.read_text()
    path.write_text(text.replace('_version": 1', '_version": 2', 1))


def wrong_type(path: Path) -> None:
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {"status": 7, "attempt": "one"}))


ATTEMPT = "run/iterations/01/attempts/1"
DAMAGES: list[tuple[str, Callable[[Path], None]]] = [
    ("run/prompts.parquet", cut),
    (f"{ATTEMPT}/pairs/00000.parquet", cut),
    (f"{ATTEMPT}/nodes/00000.parquet", cut),
    *(
        (file, damage)
        for file in (f"{ATTEMPT}/manifest.json", "run/run.json")
        for damage in (not_json, other_json, empty_object, nested, binary, newer, wrong_type)
    ),
    *(
        ("run/iterations/01/current.json", damage)
        for damage in (not_json, other_json, empty_object, wrong_type)
    ),
    ("run/iterations/00/attempts/1/manifest.json", not_json),
]


@pytest.mark.parametrize(
    ("file", "damage"), DAMAGES, ids=lambda part: getattr(part, "__name__", part)
)
def test_no_command_stumbles_over_a_damaged_run(
    csr: Csr, finished: Inputs, home: Path, file: str, damage: Callable[[Path], None]
) -> None:
    if file.endswith("current.json"):
        (home / file).write_text('{"attempt": 1}')
    damage(home / file)
    told = 0
    for command in (
        ("ls",),
        ("ls", "run"),
        ("show", "run/01"),
        ("trace", "run", "3"),
        ("report", "run"),
        ("verify", "run"),
        ("compare", "run"),
        finished.command[:2] + finished.command[4:],
    ):
        answer = csr(*command, "--home", home)
        assert answer.status in (0, 1, 2), answer.err
        assert "Traceback" not in answer.err
        told += answer.status != 0
    assert told, "nobody told of the damage"


def test_what_does_not_belong_to_a_run_is_passed_over(csr: Csr, home: Path) -> None:
    """Copies that a person or a file manager left in the run's folders."""
    iterations = home / "run/iterations"
    shutil.copytree(iterations / "01", iterations / "01 (copy)")
    shutil.copytree(iterations / "01/attempts/1", iterations / "01/attempts/1 (copy)")
    (iterations / ".DS_Store").write_bytes(b"\x00")
    store = RunStore(home)
    assert store.iterations("run") == [0, 1]
    assert store.attempts("run", 1) == [1]
    assert csr("show", "run/01", "--home", home).status == 0
