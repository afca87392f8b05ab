"""One iteration as its stages see it, and the one place that skips or records a stage.

The release of this package (`code_version`) is part of every fingerprint and of every run's
record: a run is finished by the release that began it. Whoever changes what a stage makes
raises the version.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import logging
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from csr.errors import ConfigError, EnvironmentFault, VerdictsWanted
from csr.prompts import select_prompts
from csr.types import PolicyRef, Prompt
from flows.config import Recipe, of_iteration
from flows.engines import Engines, warm_engines
from flows.validation import validate
from flows.versions import package_versions
from storage.attempt import AttemptDir, parse_iteration_id
from storage.lineage import policy_before, starts_from
from storage.manifest import StageRecord, Status, fingerprint, utc_now
from storage.rows import prompts_from_table
from storage.run_store import RunRecord, RunStore
from storage.tables import read_table

logger = logging.getLogger("csr")

NUM_LOGGED_FIGURES = 8


class Unfinished(Exception):
    """Work is left to do, and only a look was asked for."""


@dataclass(frozen=True, slots=True)
class IterationContext:
    """All that the stages of one iteration start from."""

    recipe: Recipe
    store: RunStore
    attempt: AttemptDir
    policy: PolicyRef
    """The policy that samples; the reference in training."""
    prompts: tuple[Prompt, ...]
    """This iteration's prompts, in order; none in iteration 0."""
    engines: Engines
    from_stage: str | None = None
    """The first stage that this attempt does itself; None where that is the first of all."""
    only_look: bool = False
    """Work that is not done raises `Unfinished` instead of being done."""

    @property
    def seed(self) -> int:
        """The iteration's own seed."""
        return derive_seed(self.recipe.seed, self.attempt.id.iteration)

    @property
    def num_shards(self) -> int:
        """How many shards the prompts make."""
        return -(-len(self.prompts) // self.recipe.shard_size)

    def shard(self, number: int) -> tuple[Prompt, ...]:
        """The prompts of one shard."""
        size = self.recipe.shard_size
        return self.prompts[number * size : (number + 1) * size]


@dataclass(frozen=True, slots=True)
class StageOutcome:
    """What a stage made."""

    files: tuple[Path, ...] = ()
    skipped: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


def open_attempt(home: str, attempt_id: str, *, only_look: bool = False) -> IterationContext:
    """An existing attempt, such as `tiny-b0f2/02.1`, with all that its stages start from."""
    store = RunStore(Path(home))
    asked = parse_iteration_id(attempt_id)
    attempt = store.attempt(asked.run_id, asked.iteration, asked.attempt)
    manifest = attempt.manifest.read()
    assert manifest.policy_in is not None, f"{attempt.id} was made without a policy"
    recipe = validate(Recipe, manifest.config, asked.run_id)
    return IterationContext(
        recipe=recipe,
        store=store,
        attempt=attempt,
        policy=PolicyRef(**manifest.policy_in),
        prompts=_prompts(store, recipe, asked.run_id, asked.iteration),
        engines=warm_engines(recipe),
        from_stage=manifest.from_stage,
        only_look=only_look,
    )


def open_iteration(
    home: str, run_id: str, iteration: int, *, only_look: bool = False
) -> IterationContext:
    """The attempt that the run goes on with: the current one, unless that is stale.

    A missing attempt is made here, and so is a new one in place of a stale one, which stays as
    it is. DataError where the iteration before has no trained policy yet.
    """
    store = RunStore(Path(home))
    policy = policy_before(store, run_id, iteration)
    current = store.current_attempt(run_id, iteration)
    if current is None or _builds_on_another(store, run_id, iteration, policy):
        if only_look:
            raise Unfinished(f"{run_id}/{iteration:02d}")
        recipe = of_iteration(validate(Recipe, store.run(run_id).config, run_id), iteration)
        config = json.loads(recipe.model_dump_json())
        attempt = store.new_attempt(run_id, iteration, config=config, policy_in=policy)
        if current is not None:
            logger.info("%s: made anew, since what %s builds on changed", attempt.id, current)
            store.set_current(run_id, iteration, attempt.number)
    return open_attempt(home, str(store.attempt(run_id, iteration).id), only_look=only_look)


def _builds_on_another(
    store: RunStore, run_id: str, iteration: int, policy: dict[str, Any]
) -> bool:
    manifest = store.attempt(run_id, iteration).manifest.read()
    return iteration > 0 and not starts_from(manifest, policy)


def run_stage(
    context: IterationContext,
    stage: str,
    inputs: dict[str, Any],
    work: Callable[[], StageOutcome],
    shard: int | None = None,
) -> StageRecord:
    """Do a stage's work and record it, unless the manifest says that it is done.

    `inputs` is everything that decides the result; with the code version it makes the
    fingerprint. A stage that fails or is interrupted leaves the attempt `failed` or
    `suspended`, and its error goes on.
    """
    manifest, number = context.attempt.manifest, shard or 0
    label = f"{context.attempt.id} {stage}" + ("" if shard is None else f" shard {shard}")
    mark = fingerprint(inputs=inputs, code=code_version())
    if manifest.is_done(stage, number, mark):
        if not context.only_look:
            logger.info("%s: already done", label)
        done = manifest.read().stage(stage, number)
        assert done is not None
        return done
    if context.only_look:
        raise Unfinished(label)
    logger.info("%s: started", label)
    manifest.update(status="running")
    clock = _Clock(stage=stage, shard=number, mark=mark)
    try:
        outcome = work()
    except VerdictsWanted:
        manifest.update(status="waiting")
        raise
    except Exception as error:
        with suppress(EnvironmentFault):  # a full disk must not hide what went wrong
            manifest.record(clock.record("failed", message=f"{type(error).__name__}: {error}"))
            manifest.update(status="failed")
        raise
    except BaseException:
        with suppress(EnvironmentFault):
            manifest.update(status="suspended")
        raise
    record = manifest.record(clock.record("done", outcome), files=outcome.files)
    logger.info("%s: done in %.1f s %s", label, record.seconds, _summary(outcome))
    return record


@functools.cache
def code_version() -> str:
    """The release of this package, read once a process."""
    return importlib.metadata.version("csr")


def refuse_other_release(run: RunRecord) -> None:
    """ConfigError where another release began the run."""
    if run.code_version != code_version():
        raise ConfigError(
            f"run {run.run_id} was begun with release {run.code_version}, and this is "
            f"{code_version()}: the two may not make the same. Finish it with the release that "
            "began it, or start a new one with --run-id."
        )


def derive_seed(*parts: object) -> int:
    """A 31-bit seed from any parts with a stable text form."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


class _Clock:
    """Starts with a stage's work and writes its record at the end."""

    def __init__(self, *, stage: str, shard: int, mark: str) -> None:
        self._stage, self._shard, self._mark = stage, shard, mark
        self._started_at, self._started = utc_now(), time.monotonic()

    def record(
        self, status: Status, outcome: StageOutcome | None = None, message: str = ""
    ) -> StageRecord:
        outcome = outcome or StageOutcome()
        return StageRecord(
            stage=self._stage,
            shard=self._shard,
            status=status,
            fingerprint=self._mark,
            skipped=outcome.skipped,
            metrics=outcome.metrics,
            message=message,
            started_at=self._started_at,
            finished_at=utc_now(),
            seconds=time.monotonic() - self._started,
            packages=package_versions(),
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )


def _prompts(store: RunStore, recipe: Recipe, run_id: str, iteration: int) -> tuple[Prompt, ...]:
    if iteration == 0:
        return ()
    prompts = prompts_from_table(read_table(store.prompts_of(run_id, iteration), "prompts"))
    data = recipe.data
    return tuple(
        select_prompts(prompts, iteration, data.num_prompts_per_iteration, data.prompt_order)
    )


def _summary(outcome: StageOutcome) -> str:
    shown = {**outcome.skipped, **outcome.metrics}
    return " ".join(f"{key}={value:.4g}" for key, value in list(shown.items())[:NUM_LOGGED_FIGURES])
