"""JSON as other people's readers split it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_LINE_ENDS = {ord(character): f"\\u{ord(character):04x}" for character in "\x85\u2028\u2029"}
"""Python's `splitlines` ends a line at these, JSON does not: readers of lines would break there."""


def json_line(value: Any) -> str:
    """`value` as JSON on one line, whatever counts as a line's end."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).translate(_LINE_ENDS)


def write_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """One object a line."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{json_line(row)}\n" for row in rows)


def write_json_list(path: Path, rows: Iterable[Any]) -> None:
    """One list, an object a line; never more than one row in memory."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        before = "[\n"
        for row in rows:
            file.write(before + json_line(row))
            before = ",\n"
        file.write("\n]\n" if before == ",\n" else "[]\n")
