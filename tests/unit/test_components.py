"""Components that an installed package adds by entry points."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from csr.errors import ConfigError
from csr.types import ImageRef
from flows import components, reading, versions
from flows.choices import SimilarityChoice
from flows.components import PACKAGES, Component, load

ROOT = Path(__file__).resolve().parents[2]

Install = Callable[[str], None]

WORDS = '''
from csr.config import ComponentConfig


class Config(ComponentConfig):
    """Settings."""

    words: tuple[str, ...] = ("circle",)
    """What counts."""


def build(config):
    """The similarity."""
    return config.words
'''


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a package `lab-tools` whose module `lab_words` has the given text."""

    def forget() -> None:
        components._others.cache_clear()
        components.component_packages.cache_clear()
        versions.installed_version.cache_clear()
        importlib.invalidate_caches()
        sys.modules.pop("lab_words", None)

    def install(text: str) -> None:
        (tmp_path / "lab_words.py").write_text(text)
        info = tmp_path / "lab_tools-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-tools\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(
            "[rewards.similarity]\nwords = lab_words\nclip = lab_words\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        forget()

    yield install
    monkeypatch.undo()
    forget()


def test_a_recipe_chooses_it_by_its_name(install: Install) -> None:
    install(WORDS)
    choice = SimilarityChoice.model_validate({"name": "words", "words": ["ring"]})
    assert choice.build() == ("ring",)
    assert choice.model_dump() == {"name": "words", "words": ["ring"]}
    assert versions.package_versions()["lab-tools"] == "1.2"


def test_the_example_of_the_page_works(install: Install) -> None:
    page = (ROOT / "docs" / "components.md").read_text()
    install(page.partition("```python\n")[2].partition("```")[0])
    similarity = SimilarityChoice.model_validate({"name": "words", "words": ["circle"]}).build()
    image = ImageRef(uri="a.png", sha256="0")
    assert similarity.image_text([image, image], ["A circle.", "A big ring."]) == [0.5, 0.0]
    assert similarity.text_text(["a"], ["a"]) == [1.0]
    assert similarity.num_truncated(["a"]) == 0


def test_every_kind_of_component_can_be_added() -> None:
    kinds = {choice.package for choice in Component.__subclasses__()}
    assert set(PACKAGES) == {*kinds, reading.PACKAGE}


def test_it_takes_no_place_of_ours(install: Install) -> None:
    install(WORDS)
    assert load("rewards.similarity", "clip").__name__ == "rewards.similarity.clip"


def test_a_misspelt_name_is_told_with_all_that_are_known(install: Install) -> None:
    install(WORDS)
    with pytest.raises(ConfigError, match=r"Did you mean 'words'.*Known: clip, scripted, .*words"):
        load("rewards.similarity", "wrds")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import not_there", "of lab-tools 1.2 cannot be imported .ModuleNotFoundError"),
        ("1 / 0", "ZeroDivisionError"),
        ("def build(config): ...", "it must be a module with `build` and a `Config`"),
        ("class Config: ...\ndef build(config): ...", "which lab-tools 1.2 calls the component"),
    ],
)
def test_a_package_that_is_of_no_use_is_told(install: Install, text: str, told: str) -> None:
    install(text)
    with pytest.raises(ConfigError, match=told):
        load("rewards.similarity", "words")
