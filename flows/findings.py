"""What a check found, and how that is shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from flows.shipped import is_checkout
from flows.tables import plain, table

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
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    rows = [
        (each.name, plain(each.status, colours[each.status]), each.detail, each.remedy)
        for each in findings
    ]
    return table(("check", "status", "found", "what to do"), rows, "csr doctor")


def render_json(findings: Sequence[Finding]) -> str:
    """One object: `{"status": worst, "findings": [{"name", "status", "detail", "remedy"}]}`."""
    order = ("ok", "warn", "fail")
    worst = max((order.index(each.status) for each in findings), default=0)
    rows = [asdict(each) for each in findings]
    return json.dumps({"status": order[worst], "findings": rows}, indent=2)
