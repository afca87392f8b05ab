"""Sphinx's configuration: `make docs` builds the site into build/docs.

Everything that a page needs is in the site itself, so that it works from a folder, offline.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

project = "CSR"
version = release = installed_version("csr")
root_doc = "index"
exclude_patterns = ["generate", "__pycache__"]
extensions = ["myst_parser", "sphinx.ext.autodoc"]

# Links to headings work as they do where the code is hosted.
myst_heading_anchors = 4

smartquotes = False  # `--set` stays what it is
html_theme = "furo"
html_title = "CSR"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_static_path = ["style"]
html_css_files = ["csr.css"]

add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
autodoc_default_options = {
    "members": True,
    "undoc-members": True,
    "exclude-members": "__init__, __new__",
}


def write_reference(app: Any) -> None:
    """The pages that the code tells are made before Sphinx looks which pages there are."""
    from docs.generate import write_pages

    write_pages(Path(app.srcdir) / "reference")


def as_restructured_text(
    app: Any, what: str, name: str, item: Any, _: Any, lines: list[str]
) -> None:
    """Docstrings are plain English with code in single backticks, and no other markup."""
    parts = re.split(r"`([^`]+)`", "\n".join(lines))
    parts[::2] = [re.sub(r"([*|_])", r"\\\1", text) for text in parts[::2]]
    parts[1::2] = [f"``{' '.join(code.split())}``\\ " for code in parts[1::2]]
    lines[:] = "".join(parts).split("\n")


def setup(app: Any) -> None:
    """Sphinx calls it once, before it builds."""
    app.connect("builder-inited", write_reference)
    app.connect("autodoc-process-docstring", as_restructured_text)
