"""What `csr ls` and `csr show` tell: JSON shapes that other tools may rely on, and tables."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from csr.protocols import Json
from flows import lmms_eval, tables
from flows.base_name import base_name
from flows.conditions import condition_line, read_conditions
from flows.figures import sum_counts
from flows.gating import verdicts_of
from flows.home import open_store
from flows.lmms_results import flat_figures
from flows.metric_names import CI_HIGH, CI_LOW, HEADLINES, is_companion
from storage.attempt import AttemptDir, parse_iteration_id
from storage.lineage import is_stale, stale_iterations
from storage.manifest import IterationManifest
from storage.run_store import OTHER_HOME, RunRecord, RunStore
from storage.tables import content_sha256, count_rows, read_table, table_files

_NO_BASE = {"status": "suspended", "failed": [], "metrics": {}}

TABLES = ("nodes", "annotations", "responses", "pairs", "demonstrations")


def runs(home: Path) -> Json:
    """`{"runs": [{"run_id", "recipe", "status", "num_iterations"}]}`, newest last."""
    store = open_store(home)
    return {
        "runs": [
            {
                "run_id": record.run_id,
                "recipe": record.recipe,
                "status": _run_status(store, record),
                "num_iterations": sum(number > 0 for number in store.iterations(record.run_id)),
            }
            for record in store.runs()
        ]
    }


def run(home: Path, run_id: str) -> Json:
    """`{"run_id", "status", "prompts", "base": {"name", "status", "failed", "metrics"},
    "iterations": [...], "other_attempts": [{"attempt_id", "status"}]}`.

    An iteration is `{"iteration_id", "attempt", "num_attempts", "status", "failed", "metrics"}`, of
    its current attempt. `failed` lists the stages that an attempt which failed did so in, as
    `{"stage", "shard", "message"}`; `prompts` counts the prompt file's records as `used` and, by
    reason, `skipped`.
    """
    store = open_store(home)
    record = store.run(run_id)
    attempts = [store.attempt(run_id, number) for number in store.iterations(run_id)]
    manifests = [attempt.manifest.read() for attempt in attempts]
    base = [manifest for manifest in manifests if manifest.iteration == 0]
    return {
        "run_id": run_id,
        "status": _run_status(store, record),
        "prompts": prompt_counts(store, run_id),
        "base": {
            "name": base_name(record.config),
            **(_base_line(store, base[0]) if base else _NO_BASE),
        },
        "iterations": [_iteration_line(store, m) for m in manifests if m.iteration > 0],
        "other_attempts": [
            {"attempt_id": str(other.id), "status": attempt_status(store, other.manifest.read())}
            for current in attempts
            for other in _other_attempts(store, current)
        ],
    }


def iteration(home: Path, iteration_id: str) -> Json:
    """One attempt: counts, tables, seconds and policy. DataError where there is none."""
    asked = parse_iteration_id(iteration_id)
    store = open_store(home)
    attempt = store.attempt(asked.run_id, asked.iteration, asked.attempt)
    manifest = attempt.manifest.read()
    policy = manifest.policy_out or {}
    current = store.current_attempt(asked.run_id, asked.iteration)
    pairing = manifest.stage("pair")
    sampled = [stage for stage in manifest.stages if stage.stage == "sample"]
    figures = pairing.metrics if pairing else {}
    return {
        **_iteration_line(store, manifest),
        "current": manifest.attempt == current,
        "rerun_of": manifest.rerun_of,
        "counts": {
            "prompts": int(figures.get("num_prompts", 0)),
            "pairs": int(figures.get("num_pairs", 0)),
            "demonstrations": int(figures.get("num_demonstrations", 0)),
            "skipped": pairing.skipped if pairing else {},
            "candidates_dropped": sum_counts(stage.skipped for stage in sampled),
        },
        "tables": _tables(attempt),
        "seconds": _seconds(manifest),
        "policy": {"path": policy.get("model_path"), "sha256": policy.get("sha256")},
        "benchmarks": read_conditions(attempt),
        "lmms_eval": lmms_eval.stored(attempt),
        "gates": [dataclasses.asdict(verdict) for verdict in verdicts_of(attempt)],
    }


def prompt_counts(store: RunStore, run_id: str) -> Json:
    """`{"used": n, "skipped": {reason: n}}` over the records of its prompt files."""
    skipped: dict[str, int] = {}
    for path in store.quarantine_paths(run_id):
        for row in read_table(path, "quarantine").to_pylist():
            skipped[row["reason"]] = skipped.get(row["reason"], 0) + 1
    return {"used": sum(map(count_rows, store.prompts_paths(run_id))), "skipped": skipped}


def runs_table(home: Path, shape: Json) -> Any:
    """The shape of `runs` as a table for people; where there is none, it names the folder."""
    if not shape["runs"]:
        where = open_store(home).home
        return f"No run is in {where} yet. csr demo makes one, and csr run RECIPE. {OTHER_HOME}"
    names = ("run_id", "recipe", "status", "num_iterations")
    rows = [[row[name] for name in names] for row in shape["runs"]]
    return tables.table(("run", "recipe", "status", "iterations"), rows, "Runs")


def table(shape: Json) -> Any:
    """The shape of `run` as a table for people."""
    from rich.console import Group

    base = shape["base"]
    lines = [(base["name"], base), *((_attempt_name(i), i) for i in shape["iterations"])]
    shown = [name for name in HEADLINES if any(name in line["metrics"] for _, line in lines)]
    rows = []
    for name, line in lines:
        metrics = line["metrics"]
        figures = [f"{metrics[key]:.3f}" if key in metrics else "" for key in shown]
        rows.append([name, line["status"], *figures])
    title = f"Run {shape['run_id']}, held-out images"
    told = [
        f"{name} failed in {_failure_line(each)}" for name, line in lines for each in line["failed"]
    ]
    if others := shape["other_attempts"]:
        named = ", ".join(f"{other['attempt_id']} ({other['status']})" for other in others)
        told.append(f"other attempts: {named}")
    sheet = tables.Sheet(["iteration", "status", *shown], rows, title)
    return Group(sheet, *map(tables.plain, told))


def iteration_table(shape: Json) -> Any:
    """The shape of `iteration` as a table for people."""
    current = "" if shape["current"] else ", not current"
    rows = [("status", shape["status"] + current)]
    rows += [("failed", _failure_line(each)) for each in shape["failed"]]
    if shape["rerun_of"]:
        rows.append(("rerun of", shape["rerun_of"]))
    for part in ("counts", "seconds", "metrics", "policy"):
        for name, value in shape[part].items():
            if part != "metrics" or not is_companion(name):
                rows.append((f"{part}.{name}", _cell(value) + _interval(name, shape["metrics"])))
    for name, conditions in shape["benchmarks"].items():
        rows.append((f"benchmarks.{name}", condition_line(conditions)))
    for said in shape["lmms_eval"]:
        for name, value in flat_figures(said).items():
            rows.append((name, f"{_cell(value)}, lmms-eval {said['lmms_eval']}"))
    for name, facts in shape["tables"].items():
        rows.append((f"tables.{name}", f"{facts['rows']} rows, {facts['content_sha256'][:16]}"))
    rows += [(f"gates.{verdict['gate']}", _verdict_line(verdict)) for verdict in shape["gates"]]
    title = f"{shape['iteration_id']} attempt {shape['attempt']}"
    return tables.table(("what", "value"), rows, title)


def _failure_line(failed: Json) -> str:
    """E.g. `sample, shard 2: DataError: ...`."""
    shard = f", shard {failed['shard']}" if failed["shard"] else ""
    return f"{failed['stage']}{shard}: {failed['message']}"


def _verdict_line(verdict: Json) -> str:
    """E.g. `0.034, at most 0.05: fine`, or `not measured, at most 0.05`."""
    limit = f"{verdict['bound'] or 'limit'} {_cell(verdict['limit'])}"
    if verdict["value"] is None:
        return f"{verdict['message']}, {limit}"
    return f"{_cell(verdict['value'])}, {limit}: {verdict['message'] or 'fine'}"


def _attempt_name(line: Json) -> str:
    """The attempt is named where there is a choice."""
    suffix = f".{line['attempt']}" if line["num_attempts"] > 1 else ""
    return f"{line['iteration_id']}{suffix}"


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items()) or "none"
    return f"{value:.4g}" if type(value) is float else str(value)


def _interval(name: str, metrics: Json) -> str:
    """E.g. " [0.041, 0.102]" behind a figure that has an interval."""
    if f"{name}{CI_LOW}" not in metrics:
        return ""
    return f" [{metrics[name + CI_LOW]:.3f}, {metrics[name + CI_HIGH]:.3f}]"


def status_now(store: RunStore, run_id: str, status: str) -> str:
    """A stored status as it is now: a process that was killed could not change it."""
    killed = status == "running" and not store.is_locked(run_id)
    return "suspended" if killed else status


def attempt_status(store: RunStore, manifest: IterationManifest) -> str:
    """The attempt's status as it is now: `stale` where what it builds on was replaced."""
    if is_stale(store, manifest):
        return "stale"
    return status_now(store, manifest.run_id, manifest.status)


def failures(manifest: IterationManifest) -> list[Json]:
    """The stages in which the attempt failed, and why; none once they are being done again."""
    failed = [stage for stage in manifest.stages if stage.status == "failed"]
    return [
        {"stage": stage.stage, "shard": stage.shard, "message": stage.message}
        for stage in failed
        if manifest.status == "failed"
    ]


def _run_status(store: RunStore, record: RunRecord) -> str:
    """A run that is done but holds a stale iteration is to be gone on with."""
    status = status_now(store, record.run_id, record.status)
    return "stale" if status == "done" and stale_iterations(store, record.run_id) else status


def _base_line(store: RunStore, manifest: IterationManifest) -> Json:
    status = attempt_status(store, manifest)
    return {"status": status, "failed": failures(manifest), "metrics": manifest.metrics}


def _other_attempts(store: RunStore, current: AttemptDir) -> list[AttemptDir]:
    run_id, iteration = current.id.run_id, current.id.iteration
    numbers = [each for each in store.attempts(run_id, iteration) if each != current.number]
    return [store.attempt(run_id, iteration, number) for number in numbers]


def _iteration_line(store: RunStore, manifest: IterationManifest) -> Json:
    return {
        "iteration_id": f"{manifest.run_id}/{manifest.iteration:02d}",
        "attempt": manifest.attempt,
        "num_attempts": len(store.attempts(manifest.run_id, manifest.iteration)),
        "status": attempt_status(store, manifest),
        "failed": failures(manifest),
        "metrics": manifest.metrics,
    }


def _tables(attempt: AttemptDir) -> Json:
    present = [name for name in TABLES if table_files(attempt.path / name)]
    return {
        name: {
            "rows": sum(count_rows(file) for file in table_files(attempt.path / name)),
            "content_sha256": content_sha256(attempt.path / name, name),
        }
        for name in present
    }


def _seconds(manifest: IterationManifest) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for stage in manifest.stages:
        seconds[stage.stage] = seconds.get(stage.stage, 0.0) + stage.seconds
    return seconds
