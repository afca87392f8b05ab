"""Which attempt an iteration's work goes into: the run's own, or a new one of a rerun.

A rerun starts from the inputs of the attempt that it does over, and overwrites nothing. Where it
was interrupted, the same request goes on with it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csr.errors import ConfigError, DataError
from csr.files import disk_errors
from flows.config import Recipe, overridden
from flows.context import code_version, open_attempt, open_iteration, refuse_other_release
from flows.forms import IterationRequest
from flows.home import open_store
from flows.iteration import BASE_STAGES, STAGES, stages_of
from flows.work import engines_closed_at_end
from storage.attempt import AttemptDir, IterationId, parse_iteration_id
from storage.manifest import IterationManifest, StageRecord, damaged_files
from storage.run_store import RunStore

logger = logging.getLogger("csr")

FIXED_SETTINGS = (
    "name", "num_iterations", "per_iteration", "stop", "world", "data", "policy",
)  # fmt: skip
"""What a run starts from; its stored prompts and its base model follow from them."""

UNREAD_SETTINGS = ("isolation", "stage_timeout_seconds", "ray", "tracker")
"""How the work is done, which changes nothing of what is made."""

_SCORED_BY = ("seed", "sampler", "similarity", "second_similarity", "source", "reward")
SETTINGS_READ = {
    "measure": (*_SCORED_BY, "num_statistics_prompts"),
    "sample": (*_SCORED_BY, "shard_size"),
    "review": ("critic",),
    "pair": ("source", "reward"),
    "train": ("seed", "trainer", "sampler", "probe_tolerance"),
    "evaluate": ("sampler", "evaluation", "shard_size"),
    "gate": ("sampler", "evaluation", "gates"),
}
"""Stage -> the settings that decide what it makes. Of a source, `_readers` goes by the field."""


OPTIONAL_STAGES = ("measure", "review")
"""Those that leave no record where the recipe has no use for them."""


@dataclass(frozen=True, slots=True)
class IterationWork:
    """The stages to bring to their end, and where."""

    home: str
    attempt_id: str
    iteration: int
    num_shards: int
    num_at_once: int
    """Shards that are sampled at once."""
    stages: list[str]


@contextmanager
def opened_iteration(request: IterationRequest) -> Iterator[IterationWork]:
    """The requested work, the run locked inside.

    CSRError where the request cannot work, before anything is written.
    """
    asked = parse_iteration_id(request.iteration_id)
    store = open_store(request.home_path)
    stages = _requested_stages(request, asked.iteration)
    with store.lock(asked.run_id), engines_closed_at_end():
        attempt = _attempt(store, asked, request)
        context = open_attempt(str(store.home), str(attempt.id))
        yield IterationWork(
            home=str(store.home),
            attempt_id=str(attempt.id),
            iteration=asked.iteration,
            num_shards=context.num_shards,
            num_at_once=context.recipe.ray.num_workers if context.recipe.ray else 1,
            stages=[stage for stage in stages if stage != "review" or context.recipe.critic],
        )
        if request.until_stage and attempt.manifest.read().status == "running":
            attempt.manifest.update(status="suspended")


def _requested_stages(request: IterationRequest, iteration: int) -> list[str]:
    stages = stages_of(iteration, request.from_stage, request.until_stage)
    if not stages:
        raise ConfigError(
            f"{request.iteration_id}: no stage lies between {request.from_stage or 'the first'} "
            f"and {request.until_stage or 'the last'}. Their order is {', '.join(STAGES)}; "
            f"iteration 0 has {' and '.join(BASE_STAGES)} alone."
        )
    return stages


def _attempt(store: RunStore, asked: IterationId, request: IterationRequest) -> AttemptDir:
    if request.attempt == "new":
        return _rerun_attempt(store, asked, request)
    if request.settings or request.from_stage or asked.attempt is not None:
        raise ConfigError(
            f"{request.iteration_id}: settings, a first stage and a certain attempt are for a new "
            "attempt. Leave them out to go on with the run's own, or ask for a new one."
        )
    refuse_other_release(store.run(asked.run_id))
    return open_iteration(str(store.home), asked.run_id, asked.iteration).attempt


def _rerun_attempt(store: RunStore, asked: IterationId, request: IterationRequest) -> AttemptDir:
    origin = store.attempt(asked.run_id, asked.iteration, asked.attempt)
    manifest = origin.manifest.read()
    recipe = overridden(manifest.config, request.settings, str(origin.id))
    done_over = _requested_stages(request, asked.iteration)
    _refuse_idle_settings(manifest, recipe, done_over)
    taken = _stages_before(request.from_stage)
    records = _finished_records(origin, manifest, taken)
    fields = {
        "config": json.loads(recipe.model_dump_json()),
        "seed": recipe.seed,
        "code_version": code_version(),
        "policy_in": manifest.policy_in,
        "rerun_of": str(origin.id),
        "from_stage": request.from_stage,
    }
    attempt = _unfinished(store, asked, fields)
    if attempt is None:
        attempt = store.new_attempt(asked.run_id, asked.iteration, **fields)
        logger.info("%s: a new attempt, doing %s over", attempt.id, origin.id)
    elif any(record.stage not in taken for record in attempt.manifest.read().stages):
        logger.info("%s: going on with the unfinished rerun of %s", attempt.id, origin.id)
    _take_over(origin, attempt, records)
    if asked.iteration == 0 or "train" in taken:
        attempt.manifest.update(policy_out=_moved(manifest.policy_out, origin, attempt))
    if "evaluate" in taken:
        attempt.manifest.update(metrics=manifest.metrics)
    return attempt


def _refuse_idle_settings(
    manifest: IterationManifest, recipe: Recipe, done_over: list[str]
) -> None:
    """ConfigError for an override that cannot have any effect on the stages that are done over."""
    if recipe.tracker is not None:
        raise ConfigError(
            f"'tracker' is that of all of run {manifest.run_id}, and a rerun is told to it too. "
            f"Start the run's own command with another one, or use csr track {manifest.run_id}."
        )
    changed = _changed(manifest.config, json.loads(recipe.model_dump_json()))
    if fixed := [name for name in changed if name in FIXED_SETTINGS]:
        raise ConfigError(
            f"{fixed[0]!r} is fixed for all of run {manifest.run_id}, and a rerun starts from the "
            "same inputs. Start a new run with it instead: csr run RECIPE --set ..."
        )
    if "source.preset" in changed:
        raise ConfigError(
            "'source.preset' fills in settings that a recipe leaves out, and an iteration has each "
            "written down: it could have no effect. Set those themselves, or start a new run."
        )
    if "reward" in changed and recipe.source.build().step_settings is None:
        raise ConfigError(
            f"'reward' would have no effect: the source {recipe.source.name!r} rewards no steps, "
            "its rewards are its own. Leave the setting as it was."
        )
    for name in changed:
        readers = _readers(name, recipe)
        if readers and not set(readers) & set(done_over):
            raise ConfigError(
                f"{name!r} decides what {' and '.join(readers)} make, and this rerun does "
                f"{' and '.join(done_over)} alone. Begin it earlier or end it later (--from, "
                "--until), or leave the setting as it was."
            )


def _changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Settings that differ; those of the same source by field, such as `source.temperature`."""
    names = [name for name in after if after[name] != before.get(name)]
    old, new = before["source"], after["source"]
    if "source" not in names or old["name"] != new["name"]:
        return names
    fields = [f"source.{name}" for name in new if new[name] != old.get(name)]
    return [name for name in names if name != "source"] + fields


def _readers(name: str, recipe: Recipe) -> list[str]:
    """The stages that make something else where this setting is another."""
    section, _, field = name.partition(".")
    readers = [stage for stage, names in SETTINGS_READ.items() if section in names]
    if section != "source":
        return readers
    pairing = getattr(recipe.source.module, "PAIRING_SETTINGS", None)
    if field and pairing is None:
        return readers
    return ["pair"] if field in (pairing or ()) else [each for each in readers if each != "pair"]


def _stages_before(from_stage: str | None) -> list[str]:
    names = list(STAGES)
    return names[: names.index(from_stage)] if from_stage else []


def _finished_records(
    origin: AttemptDir, manifest: IterationManifest, stages: list[str]
) -> list[StageRecord]:
    """The records of those stages. DataError where one is missing, unfinished or damaged."""
    records = [record for record in manifest.stages if record.stage in stages]
    missing = [
        stage
        for stage in stages
        if stage not in OPTIONAL_STAGES and not any(record.stage == stage for record in records)
    ]
    problems = [f"{stage} was never done" for stage in missing]
    for record in records:
        if record.status != "done":
            problems.append(f"{record.stage} shard {record.shard} is {record.status}")
        else:
            problems += damaged_files(record, origin.path)
    if problems:
        raise DataError(
            f"{origin.id} cannot be taken over: {'; '.join(problems[:3])}. Rerun from an earlier "
            "stage, or bring the attempt to its end first."
        )
    return records


def _unfinished(store: RunStore, asked: IterationId, fields: dict[str, Any]) -> AttemptDir | None:
    """The newest attempt of just this request that has not come to its end."""
    for number in reversed(store.attempts(asked.run_id, asked.iteration)):
        attempt = store.attempt(asked.run_id, asked.iteration, number)
        manifest = attempt.manifest.read()
        same = all(getattr(manifest, name) == value for name, value in fields.items())
        if same and manifest.status not in ("done", "held"):
            return attempt
    return None


def _take_over(origin: AttemptDir, attempt: AttemptDir, records: list[StageRecord]) -> None:
    """Give the attempt what earlier stages made: the same files under a second name."""
    known = attempt.manifest.read()
    for record in records:
        if known.stage(record.stage, record.shard) is not None:
            continue
        for file in record.files:
            _link(origin.path / file.path, attempt.path / file.path)
        attempt.manifest.record(record)


def _link(source: Path, target: Path) -> None:
    """Finished files are replaced and never changed, so two attempts may share one."""
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:  # a file system without hard links
            shutil.copy2(source, target)


def _moved(policy: Any, origin: AttemptDir, attempt: AttemptDir) -> Any:
    """The policy with its own files where `_take_over` put them."""

    def moved(path: str | None) -> str | None:
        inside = path and Path(path).is_relative_to(origin.path.resolve())
        if not path or not inside:
            return path
        return str(attempt.path.resolve() / Path(path).relative_to(origin.path.resolve()))

    return {
        **policy,
        "model_path": moved(policy["model_path"]),
        "adapter_path": moved(policy.get("adapter_path")),
    }
