"""The site as `make docs` builds it: no warning, nothing from elsewhere, every page found."""

import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
"""Tag -> the attribute by which a browser loads something."""


class Page(HTMLParser):
    """What a page loads, and the targets that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.loads += [given[LOADS[tag]] or ""] if tag in LOADS and LOADS[tag] in given else []
        self.ids += [given["id"]] if given.get("id") else []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the command of the Makefile, into a folder of the test's."""
    folder = tmp_path_factory.mktemp("site")
    said = subprocess.run(
        ["make", "--dry-run", "docs"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    [line] = [line for line in said.stdout.splitlines() if "sphinx-build" in line]
    _, *options, output = shlex.split(line)
    assert output == "build/docs"
    command = [sys.executable, "-m", "sphinx", *options, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        elsewhere = [url for url in Page(page.read_text()).loads if "//" in url]
        assert elsewhere == [], page
    for sheet in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", sheet.read_text()) == []


def test_every_page_is_in_the_navigation_and_can_be_searched(site: Path) -> None:
    start = (site / "index.html").read_text()
    sources = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*.rst")]
    names = [source.stem for source in sources] + [f"reference/{n}" for n in ("recipe", "commands")]
    assert [name for name in names if f'href="{name}.html"' not in start and name != "index"] == []
    index = (site / "searchindex.js").read_text()
    assert all(f'"{name}"' in index for name in names)


def test_fields_commands_and_docstrings_have_targets(site: Path) -> None:
    recipe = Page((site / "reference" / "recipe.html").read_text()).ids
    assert {"recipe-seed", "trainer-dpo-beta", "source-csr-pair-filter-min-margin"} <= set(recipe)
    assert len(recipe) == len(set(recipe))
    assert "csr-rerun" in Page((site / "reference" / "commands.html").read_text()).ids
    api = Page((site / "api.html").read_text()).ids
    assert {"csr.types.ResponseTree.path", "csr.protocols.Sampler.score"} <= set(api)
