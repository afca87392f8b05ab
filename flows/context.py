"""One iteration as its stages see it, and the one place that skips or records a stage.

The release of this package (`code_version`) is part of every fingerprint and of every run's
record: a run is finished by the release that began it. Whoever changes what a stage makes
raises the version.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from csr.errors import DataError
from csr.prompts import select_prompts
from csr.types import PolicyRef, Prompt
from flows.config import Recipe
from flows.engines import Engines, warm_engines
from flows.validation import validate
from flows.versions import package_versions
from storage.attempt import AttemptDir, parse_iteration_id
from storage.manifest import StageRecord, Status, fingerprint, utc_now
from storage.rows import prompts_from_table
from storage.run_store import RunStore
from storage.tables import read_table

logger = logging.getLogger("csr")

NUM_LOGGED_FIGURES = 8


class Unfinished(Exception):
    """Work is left to do, and only a look was asked for."""


@dataclass(frozen=True, slots=True)
class IterationContext:
    """All that the stages of one iteration start from."""

    recipe: Recipe
    attempt: AttemptDir
    policy: PolicyRef
    """The policy that samples; the reference in training."""
    prompts: tuple[Prompt, ...]
    """This iteration's prompts, in order; none in iteration 0."""
    engines: Engines
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


def open_iteration(
    home: str, run_id: str, iteration: int, *, only_look: bool = False
) -> IterationContext:
    """The iteration's current attempt; its first one is made here.

    Iteration 0 holds the base model: its policy is put there when the run is prepared.
    DataError where the iteration before has no trained policy yet.
    """
    store = RunStore(Path(home))
    policy = _policy_before(store, run_id, iteration)
    if store.current_attempt(run_id, iteration) is None:
        if only_look:
            raise Unfinished(f"{run_id}/{iteration:02d}")
        store.new_attempt(run_id, iteration, policy_in=policy)
    attempt = store.attempt(run_id, iteration)
    manifest = attempt.manifest.read()
    if manifest.policy_in != policy and not only_look:
        attempt.manifest.update(policy_in=policy)
    recipe = validate(Recipe, manifest.config, run_id)
    return IterationContext(
        recipe=recipe,
        attempt=attempt,
        policy=PolicyRef(**policy),
        prompts=_prompts(store, recipe, run_id, iteration),
        engines=warm_engines(recipe),
        only_look=only_look,
    )


def open_attempt(home: str, attempt_id: str) -> IterationContext:
    """An attempt that exists, named as in `tiny-4f2a/02.1`."""
    name = parse_iteration_id(attempt_id)
    store = RunStore(Path(home))
    attempt = store.attempt(name.run_id, name.iteration, name.attempt)
    manifest = attempt.manifest.read()
    assert manifest.policy_in is not None, attempt_id
    recipe = validate(Recipe, manifest.config, name.run_id)
    return IterationContext(
        recipe=recipe,
        attempt=attempt,
        policy=PolicyRef(**manifest.policy_in),
        prompts=_prompts(store, recipe, name.run_id, name.iteration),
        engines=warm_engines(recipe),
    )


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
    except Exception as error:
        manifest.record(clock.record("failed", message=f"{type(error).__name__}: {error}"))
        manifest.update(status="failed")
        raise
    except BaseException:
        manifest.update(status="suspended")
        raise
    record = manifest.record(clock.record("done", outcome), files=outcome.files)
    logger.info("%s: done in %.1f s %s", label, record.seconds, _summary(outcome))
    return record


def code_version() -> str:
    """The release of this package."""
    return importlib.metadata.version("csr")


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


def _policy_before(store: RunStore, run_id: str, iteration: int) -> dict[str, Any]:
    """The policy that the iteration starts from, as the manifest stores it."""
    before = store.attempt(run_id, max(iteration - 1, 0))
    policy = before.manifest.read().policy_out
    if policy is None:
        raise DataError(
            f"{before.id} has no trained policy for the next iteration to start from. Finish it "
            "first: the command that began the run resumes it."
        )
    return policy


def _prompts(store: RunStore, recipe: Recipe, run_id: str, iteration: int) -> tuple[Prompt, ...]:
    if iteration == 0:
        return ()
    prompts = prompts_from_table(read_table(store.prompts_path(run_id), "prompts"))
    data = recipe.data
    return tuple(
        select_prompts(prompts, iteration, data.num_prompts_per_iteration, data.prompt_order)
    )


def _summary(outcome: StageOutcome) -> str:
    shown = {**outcome.skipped, **outcome.metrics}
    return " ".join(f"{key}={value:.4g}" for key, value in list(shown.items())[:NUM_LOGGED_FIGURES])
