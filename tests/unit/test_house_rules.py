"""The house rules that no linter knows: sizes, and components that stand alone."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("csr", "rewards", "storage", "flows", "deploy")
MAX_FILE_LINES = 320
MAX_FUNCTION_LINES = 55
COMPONENT_FOLDERS = (
    "csr/samplers",
    "csr/sources",
    "csr/critics",
    "csr/trainers",
    "csr/trackers",
    "csr/evaluation",
    "csr/readers",
    "rewards/similarity",
)


def long_functions(source: str) -> list[str]:
    """Names of functions longer than MAX_FUNCTION_LINES, signature and docstring included."""
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > MAX_FUNCTION_LINES
    ]


def imported_components(source: str, package: str) -> set[str]:
    """Components of `package` (modules without a leading underscore) that `source` imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    below = {name.removeprefix(f"{package}.") for name in names if name.startswith(f"{package}.")}
    parts = {name.split(".")[0] for name in below}
    return {name for name in parts if not name.startswith("_") and name.islower()}


@pytest.mark.parametrize("package", PACKAGES)
def test_files_and_functions_stay_short(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    long_files = [str(f) for f in files if len(f.read_text().splitlines()) > MAX_FILE_LINES]
    assert long_files == []
    assert {
        str(f): long_functions(f.read_text()) for f in files if long_functions(f.read_text())
    } == {}


@pytest.mark.parametrize("folder", COMPONENT_FOLDERS)
def test_no_component_imports_another(folder: str) -> None:
    package = folder.replace("/", ".")
    components = {f for f in (ROOT / folder).glob("*.py") if not f.name.startswith("_")}
    assert components
    names = {f.stem for f in components}
    for component in components:
        others = imported_components(component.read_text(), package) & names
        assert others <= {component.stem}, f"{component} imports {others}"


def test_the_size_check_sees_a_long_function() -> None:
    body = "\n".join("    x = 1" for _ in range(MAX_FUNCTION_LINES))
    assert long_functions(f"def long():\n{body}\n") == ["long"]
    assert long_functions("def short():\n    x = 1\n") == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import csr.samplers.vllm", {"vllm"}),
        ("from csr.samplers import vllm", {"vllm"}),
        ("from csr.samplers.vllm import build", {"vllm"}),
        ("from csr.samplers._shared import ImageCache", set()),
        ("import csr.steps", set()),
    ],
)
def test_the_component_check_sees_each_way_to_import(source: str, found: set[str]) -> None:
    assert imported_components(source, "csr.samplers") == found
