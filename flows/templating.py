"""The templates of pages and pictures. What is filled in is escaped."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any


@functools.cache
def templates() -> Any:
    """Jinja's environment over `flows/templates`; an unknown name is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
