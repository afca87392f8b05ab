"""What the pages show beside commands: settings that recipes take, JSON, SQL and Python."""

import ast
import importlib.util
import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from docs.generate import tables
from flows.config import Recipe
from flows.validation import faults_of
from tests.documents import FENCE, PAGES, ROOT, Block, blocks
from tests.scripted_run import Csr, Silent, write_recipe

LANGUAGES = {"", "sh", "yaml", "json", "sql", "python", "toml", "text", "console", "{toctree}"}
RUNS = ("tiny-b0f2", "RUN")
SHOWN = [block for page in PAGES for block in blocks(page)] + [
    Block("tables.md", language, text) for _, language, text in FENCE.findall(tables.page())
]


def written_in(language: str) -> list[Block]:
    return [block for block in SHOWN if block.language == language]


def name(block: Block) -> str:
    return f"{block.page}: {block.text.splitlines()[0][:40]}"


def misfits(settings: dict[str, Any]) -> list[str]:
    """What a recipe would refuse in these sections; that a part is left out is no fault here."""
    found = []
    for key, value in settings.items():
        if key not in Recipe.model_fields:
            found.append(f"{key}: unknown")
            continue
        try:
            TypeAdapter(Recipe.model_fields[key].annotation).validate_python(value)
        except ValidationError as error:
            faults = [text for _, text in faults_of(error, Recipe)]
            found += [f"{key}: {text}" for text in faults if "is missing" not in text]
    return found


def test_every_block_says_its_language() -> None:
    assert {block.language for block in SHOWN} <= LANGUAGES


@pytest.mark.parametrize("block", written_in("yaml"), ids=name)
def test_a_recipe_takes_the_settings(block: Block) -> None:
    settings = yaml.safe_load(block.text)
    assert misfits(settings) == []
    for path in [v for v in _texts(settings) if v.startswith(("deploy/", "recipes/"))]:
        assert (ROOT / path).exists()


def test_the_check_sees_a_setting_that_is_not_there() -> None:
    assert misfits({"trainer": {"name": "dpo", "betta": 1}})
    assert misfits({"trainor": {}}) == ["trainor: unknown"]
    assert misfits({"evaluation": [{"name": "pope"}]}) == []


@pytest.mark.parametrize("block", written_in("json"), ids=name)
def test_json_can_be_read(block: Block) -> None:
    try:
        json.loads(block.text)
    except json.JSONDecodeError:  # one object a line
        assert [json.loads(line) for line in block.text.splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that stands for each run of the pages."""
    folder = tmp_path_factory.mktemp("snippets")
    with pytest.MonkeyPatch.context() as monkeypatch:
        csr = Csr(monkeypatch, Silent())  # type: ignore[arg-type]
        recipe = write_recipe(folder / "data")
        for run_id in RUNS[:1]:
            ran = csr("run", recipe, "--home", folder / "runs", "--run-id", run_id)
            assert ran.status == 0
    for run_id in RUNS[1:]:
        (folder / "runs" / run_id).symlink_to(folder / "runs" / RUNS[0])
    return folder


@pytest.mark.parametrize("block", written_in("sql"), ids=name)
def test_sql_finds_rows(block: Block, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert duckdb.connect().execute(block.text).fetchall()


@pytest.mark.parametrize("block", written_in("python"), ids=name)
def test_python_is_python_of_packages_that_are_there(block: Block) -> None:
    tree = ast.parse(block.text)
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    own = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    own |= {alias.asname or alias.name for each in imports for alias in each.names}
    own |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    owners = [node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    used = {owner.id for owner in owners if isinstance(owner, ast.Name)} - own
    used |= {each.module or "" for each in imports if isinstance(each, ast.ImportFrom)}
    assert [module for module in used if importlib.util.find_spec(module) is None] == []


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in _texts(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in _texts(inner)]
    return [value] if isinstance(value, str) else []
