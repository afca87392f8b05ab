"""`csr diff`: what two attempts differ in, from settings to figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from csr.protocols import Json
from flows import listing, tables
from flows.home import open_store
from flows.metric_names import is_companion
from flows.paired import untested_lines
from flows.paired_attempts import compared
from storage.attempt import AttemptDir, parse_iteration_id
from storage.run_store import RunStore, differing_settings
from storage.tables import read_table, table_files

NUM_SHOWN_PROMPTS = 10
PAIR_COLUMNS = ("chosen_text", "rejected_text", "margin")
DEMONSTRATION_COLUMNS = ("prompt_text", "text", "kind", "weight")


def diff(home: Path, one_id: str, other_id: str) -> Json:
    """Two attempts side by side; a key of `counts` and `metrics` holds both values.

    `{"attempts": [a, b], "config": {key: [x, y]}, "counts": {...}, "tables": {name: {"equal",
    "content_sha256": [x, y]}}, "pairs": {"added": [prompt ids], "removed", "changed",
    "num_unchanged"}, "demonstrations": {as pairs}, "policy_equal", "policy_sha256": [x, y],
    "metrics": {...}, "tests": [{"metric", "before", "after", "difference", "ci_low", "ci_high",
    "p_value", "p_adjusted", "method", "num_prompts", "num_images", ...}], "untested": {what:
    why}}`. `config`, `counts` and `metrics` list what differs alone. DataError where an attempt
    does not exist.
    """
    store = open_store(home)
    one, other = _attempt(store, one_id), _attempt(store, other_id)
    left, right = (listing.iteration(home, str(attempt.id)) for attempt in (one, other))
    tests = compared([(one, other)])
    configs = [attempt.manifest.read().config for attempt in (one, other)]
    return {
        "attempts": [str(one.id), str(other.id)],
        "config": differing_settings(*configs),
        "counts": differing_settings(left["counts"], right["counts"]),
        "tables": _tables(left["tables"], right["tables"]),
        "pairs": _by_prompt(one.pairs, other.pairs, "pairs", PAIR_COLUMNS),
        "demonstrations": _by_prompt(
            one.demonstrations, other.demonstrations, "demonstrations", DEMONSTRATION_COLUMNS
        ),
        "policy_equal": left["policy"]["sha256"] == right["policy"]["sha256"],
        "policy_sha256": [left["policy"]["sha256"], right["policy"]["sha256"]],
        "metrics": differing_settings(left["metrics"], right["metrics"]),
        "tests": [figure.as_json() for figure in tests.figures],
        "untested": dict(tests.untested),
    }


def table(shape: Json) -> Any:
    """The shape of `diff` for people."""
    from rich.console import Group

    rows: list[Sequence[str]] = []
    figures = {k: v for k, v in shape["metrics"].items() if not is_companion(k)}
    shown = {**shape, "metrics": _unless_unmeasured(figures)}
    for part in ("config", "counts", "metrics"):
        for name, values in shown[part].items():
            rows.append((f"{part}.{name}", *map(_cell, values)))
    for name, facts in shape["tables"].items():
        same = "equal" if facts["equal"] else "differ"
        rows.append((f"table {name}: {same}", *(_cell(d)[:16] for d in facts["content_sha256"])))
    policy = "equal" if shape["policy_equal"] else "differ"
    rows.append((f"policy: {policy}", *(str(sha256)[:16] for sha256 in shape["policy_sha256"])))
    for name in ("pairs", "demonstrations"):
        rows += _prompt_rows(name, shape[name])
    rows += map(_test_row, shape["tests"])
    cautions = [f"Caution: {line}." for line in untested_lines(shape["untested"])]
    view = tables.table(("what", *shape["attempts"]), rows, "Differences")
    return Group(view, *map(tables.plain, cautions))


def _test_row(test: Json) -> tuple[str, str, str]:
    """E.g. "test chair_s: difference -0.020 [-0.041, +0.001], p 0.062 (Holm 0.310)"."""
    interval = ""
    if test["ci_low"] is not None:
        interval = f" [{test['ci_low']:+.3f}, {test['ci_high']:+.3f}]"
    told = f"{test['difference']:+.3f}{interval}, p {test['p_value']:.3g}"
    adjusted = f"Holm {test['p_adjusted']:.3g}; {test['method']}, {test['num_images']} images"
    return f"test {test['metric']}", told, adjusted


def _prompt_rows(table: str, change: Json) -> list[tuple[str, str, str]]:
    """No row of a table that neither attempt has."""
    rows = []
    for name in ("added", "removed", "changed"):
        ids = change[name]
        more = ", ..." if len(ids) > NUM_SHOWN_PROMPTS else ""
        rows.append((f"{table} {name}", str(len(ids)), ", ".join(ids[:NUM_SHOWN_PROMPTS]) + more))
    rows.append((f"{table} unchanged", str(change["num_unchanged"]), ""))
    return rows if any(number != "0" for _, number, _ in rows) else []


def _unless_unmeasured(metrics: Json) -> Json:
    """The differing figures; one line for all where an attempt was never evaluated."""
    for side in (0, 1):
        if len(metrics) > 1 and all(values[side] == "unset" for values in metrics.values()):
            told = ["none", "none"]
            told[1 - side] = f"{len(metrics)} figures"
            return {"*": told}
    return metrics


def _attempt(store: RunStore, attempt_id: str) -> AttemptDir:
    asked = parse_iteration_id(attempt_id)
    return store.attempt(asked.run_id, asked.iteration, asked.attempt)


def _tables(left: Json, right: Json) -> Json:
    absent: Json = {"content_sha256": None}
    digests = {
        name: [side.get(name, absent)["content_sha256"] for side in (left, right)]
        for name in {**left, **right}
    }
    return {
        name: {"equal": one == other, "content_sha256": [one, other]}
        for name, (one, other) in digests.items()
    }


def _by_prompt(one: Path, other: Path, schema: str, columns: Sequence[str]) -> Json:
    """A prompt is changed where a row of it has another value in one of the columns."""
    before, after = (_values_by_prompt(path, schema, columns) for path in (one, other))
    common = before.keys() & after.keys()
    changed = sorted(key for key in common if before[key] != after[key])
    return {
        "added": sorted(after.keys() - before.keys()),
        "removed": sorted(before.keys() - after.keys()),
        "changed": changed,
        "num_unchanged": len(common) - len(changed),
    }


def _values_by_prompt(
    path: Path, schema: str, columns: Sequence[str]
) -> dict[str, list[tuple[Any, ...]]]:
    if not table_files(path):
        return {}
    values: dict[str, list[tuple[Any, ...]]] = {}
    for row in read_table(path, schema).select(["prompt_id", *columns]).to_pylist():
        values.setdefault(row["prompt_id"], []).append(tuple(row[name] for name in columns))
    return values


def _cell(value: Any) -> str:
    return f"{value:.4g}" if type(value) is float else str(value)
