"""What a check found, and how that is shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from flows.shipped import is_checkout

if TYPE_CHECKING:
    from rich.table import Table

Status = Literal["ok", "warn", "fail"]

MEND = (
    "run `make setup` again"
    if is_checkout()
    else "`csr doctor --mend`, else install csr with the extra `cpu` or `cuda` in a new environment"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the diagnosis.

    Example: `Finding("import vllm", "fail", "ModuleNotFoundError: ...", "run `make setup` again")`
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""
    """What to do; empty when all is well."""


def render(findings: Sequence[Finding]) -> Table:
    """A table for people."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("check", "status", "found", "what to do", title="csr doctor")
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    for each in findings:
        status = f"[{colours[each.status]}]{each.status}[/]"
        table.add_row(each.name, status, escape(each.detail), escape(each.remedy))
    return table


def render_json(findings: Sequence[Finding]) -> str:
    """One object: `{"status": worst, "findings": [{"name", "status", "detail", "remedy"}]}`."""
    order = ("ok", "warn", "fail")
    worst = max((order.index(each.status) for each in findings), default=0)
    rows = [asdict(each) for each in findings]
    return json.dumps({"status": order[worst], "findings": rows}, indent=2)
