"""What an export is about: one attempt, where its weights come from, and whether it stands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from csr.errors import ConfigError, CSRError, DataError
from csr.gates import Verdict
from csr.protocols import Json, Metrics
from csr.types import PolicyRef
from flows import listing
from flows.gating import held_reason, verdicts_of
from flows.home import open_store
from storage.attempt import AttemptDir, parse_iteration_id
from storage.lineage import is_held, is_stale, starts_from
from storage.manifest import IterationManifest, StageRecord, damaged_files
from storage.run_store import RunRecord, RunStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One attempt, read once; iteration 0 never is one."""

    store: RunStore
    run: RunRecord
    attempt: AttemptDir
    manifest: IterationManifest
    base: PolicyRef
    base_metrics: Metrics
    ancestors: tuple[AttemptDir, ...]
    """The attempts whose weights this one builds on, the first after the base first; without it."""
    lineage_problem: str
    """Why `ancestors` does not reach the base; "" where it does."""

    @property
    def id(self) -> str:
        """E.g. "tiny-b0f2/02.1"."""
        return str(self.attempt.id)

    @property
    def config(self) -> Json:
        """The attempt's resolved recipe."""
        return self.manifest.config

    @property
    def gates(self) -> list[Verdict]:
        """What the gates said; empty where they have not spoken, or are off."""
        return verdicts_of(self.attempt)

    @property
    def slug(self) -> str:
        """E.g. "tiny_4f2a_02_1", for names that take letters, digits and "_" alone."""
        return "".join(c if c.isalnum() else "_" for c in self.id)

    def warnings(self) -> list[str]:
        """What whoever uses the export must know first; empty for a sound current iteration."""
        said = []
        held = held_reason(self.attempt)
        if is_held(self.store, self.manifest):
            said.append(f"A gate holds this iteration: {held}")
        elif held:
            said.append(f"A gate tripped, and a person promoted the iteration all the same: {held}")
        if is_stale(self.store, self.manifest):
            said.append(
                "This iteration is stale: what it was built on has been replaced since, so it is "
                "not what its run stands for now."
            )
        current = self.store.current_attempt(self.run.run_id, self.manifest.iteration)
        if current != self.manifest.attempt:
            said.append(f"Another attempt of this iteration, {current}, is the current one.")
        status = listing.status_now(self.store, self.run.run_id, self.manifest.status)
        if status not in ("done", "held"):
            said.append(f"This iteration is {status}: it has not come to its end.")
        return said


def read_subject(home: Path, iteration_id: str) -> Subject:
    """DataError where there is no such attempt; ConfigError for the base model's iteration."""
    asked = parse_iteration_id(iteration_id)
    store = open_store(home)
    attempt = store.attempt(asked.run_id, asked.iteration, asked.attempt)
    if asked.iteration == 0:
        raise ConfigError(
            f"{iteration_id} is the evaluation of the base model: nothing was paired or trained "
            "there. Export an iteration from 1 on."
        )
    manifest = attempt.manifest.read()
    base = store.attempt(asked.run_id, 0).manifest.read()
    assert base.policy_in is not None, asked
    ancestors, problem = _ancestors(store, manifest)
    return Subject(
        store=store,
        run=store.run(asked.run_id),
        attempt=attempt,
        manifest=manifest,
        base=PolicyRef(**base.policy_in),
        base_metrics=base.metrics,
        ancestors=tuple(ancestors),
        lineage_problem=problem,
    )


def verified(attempt: AttemptDir, stage: str) -> StageRecord:
    """A stage's record, its files proved intact. DataError where it is not done, or damaged."""
    manifest = attempt.manifest.read()
    record = manifest.stage(stage)
    if record is None or record.status != "done":
        raise DataError(
            f"{attempt.id} is half finished: its stage {stage!r} is "
            f"{record.status if record else 'not done'}. Bring it to its end first: the command "
            "that began it, without --until, goes on with it."
        )
    if problems := damaged_files(record, attempt.path):
        raise DataError(
            f"{attempt.id} is damaged, and nothing was exported: {'; '.join(problems[:3])}. "
            f"`csr verify {attempt.id.run_id}` says what to do."
        )
    return record


def policies_to(subject: Subject) -> Iterable[AttemptDir]:
    """The attempts whose training led here, this one last."""
    return (*subject.ancestors, subject.attempt)


def _ancestors(store: RunStore, manifest: IterationManifest) -> tuple[list[AttemptDir], str]:
    """Back to the base by the policies that each attempt started from, each proved by its hash."""
    found: list[AttemptDir] = []
    while manifest.policy_in is not None and manifest.policy_in["iteration"] > 0:
        name = manifest.policy_in["name"]
        try:
            asked = parse_iteration_id(name)
            before = store.attempt(asked.run_id, asked.iteration, asked.attempt)
            parent = before.manifest.read()
        except CSRError:
            return found, f"The record of {name} is no longer there."
        if not starts_from(manifest, parent.policy_out):
            return found, f"{name} was trained anew since, and has other weights now."
        found.insert(0, before)
        manifest = parent
    return found, ""
