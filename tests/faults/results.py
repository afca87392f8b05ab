"""What a run made, what of it is finished, and what lies about: read from its files alone."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.manifest import damaged
from storage.run_store import RunStore
from storage.tables import content_sha256, table_files, table_identity

TABLES = ("nodes", "responses", "pairs")


def made(home: Path, run_id: str) -> dict[str, Any]:
    """Everything that must not depend on how often the run was disturbed."""
    store, found = RunStore(home), {}
    for number in store.iterations(run_id):
        attempt = store.attempt(run_id, number)
        manifest = attempt.manifest.read()
        found[f"{number} attempts"] = store.attempts(run_id, number)
        found[f"{number} status"] = manifest.status
        found[f"{number} policy"] = (manifest.policy_out or {}).get("sha256")
        found[f"{number} metrics"] = manifest.metrics
        for table in TABLES:
            if table_files(attempt.path / table):
                found[f"{number} {table}"] = content_sha256(attempt.path / table, table)
        for file in table_files(attempt.evaluation):
            found[f"{number} {file.name}"] = content_sha256(file, table_identity(file)[0])
        for stage in manifest.stages:
            key = f"{number} {stage.stage} {stage.shard}"
            metrics = {k: v for k, v in stage.metrics.items() if k != "seconds"}
            found[key] = (stage.status, stage.fingerprint, metrics, stage.skipped)
    return found | {"status": store.run(run_id).status}


def finished(home: Path, run_id: str) -> dict[str, str]:
    """Attempt, stage and shard -> when it was done, for all that a killed run had finished."""
    times = {}
    for path in sorted(home.glob(f"{run_id}/iterations/*/attempts/*/manifest.json")):
        for stage in json.loads(path.read_text())["stages"]:
            if stage["status"] == "done":
                key = f"{path.parent.relative_to(home)} {stage['stage']} {stage['shard']}"
                times[key] = stage["finished_at"]
    return times


def damage(home: Path, run_id: str) -> list[str]:
    """Files under their final names that are not whole, and stages that took negative time."""
    store, problems = RunStore(home), _unreadable(home)
    if not store.has_run(run_id):
        return []
    problems += damaged(store.run(run_id).files, store.run_path(run_id))
    for number in store.iterations(run_id):
        for which in store.attempts(run_id, number):
            attempt = store.attempt(run_id, number, which)
            for stage in attempt.manifest.read().stages:
                if stage.status == "done":
                    problems += damaged(stage.files, attempt.path)
                if stage.seconds < 0:
                    problems.append(f"{attempt.id} {stage.stage} took {stage.seconds} s")
    return problems


def _unreadable(home: Path) -> list[str]:
    problems = []
    for path in sorted((*home.rglob("*.parquet"), *home.rglob("*.json"))):
        if any(part.endswith(".tmp") for part in path.parts):
            continue
        try:
            pq.ParquetFile(path) if path.suffix == ".parquet" else json.loads(path.read_text())
        except (ValueError, pa.ArrowException) as error:
            problems.append(f"{path} is not whole: {error}")
    return problems


def leftovers(home: Path) -> list[str]:
    """Half-written files and folders."""
    found = [*home.rglob(".*.tmp"), *home.rglob(".training-*")]
    return sorted(str(path.relative_to(home)) for path in found)


def report_time(home: Path, run_id: str) -> int | None:
    """When the report was written; None where there is none."""
    path = home / run_id / "report.html"
    return path.stat().st_mtime_ns if path.exists() else None
