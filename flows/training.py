"""The stage that updates the policy, and proves that the sampler speaks with the new weights."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Sequence
from typing import Any

from csr.checkpoints import weights_sha256
from csr.errors import NumericalError
from csr.files import replaced_directory
from csr.protocols import Trainer, TrainingTable
from csr.rendering import load_processor, response_token_ids
from csr.types import Demonstration, PolicyRef
from flows.context import IterationContext, StageOutcome, run_stage
from flows.inputs import component_inputs, table_inputs
from flows.probe import NUM_PROBE_TEXTS, ProbeText, probe_policy
from flows.progress import stage_progress
from storage.atomic import write_json
from storage.attempt import AttemptDir
from storage.critique import demonstrations_from_table
from storage.manifest import StageRecord
from storage.rows import pairs_from_table
from storage.tables import read_table


def train(context: IterationContext) -> StageRecord:
    """Update the policy on what pairing made, then prove that the sampler has its weights."""
    attempt, recipe = context.attempt, context.recipe
    table: TrainingTable = recipe.trainer.module.READS

    def work() -> StageOutcome:
        trainer: Trainer = recipe.trainer.build()
        attempt.manifest.update(policy_out=None)
        with (
            replaced_directory(attempt.policy) as building,
            stage_progress(f"{attempt.id} train") as show,
        ):
            result = trainer.train(
                policy=context.policy,
                data_path=attempt.path / table,
                output_dir=building,
                seed=context.seed,
                progress=show,
                checkpoint_dir=attempt.checkpoints / "train",
            )
            _check_finite(result.metrics)
            write_json(building / "history.json", {"history": result.history})
        policy = _trained_policy(context)
        probe = probe_policy(
            context.engines,
            trainer,
            before=context.policy,
            after=policy,
            texts=_probe_texts(attempt, table, context.policy),
            tolerance=recipe.probe_tolerance,
        )
        attempt.manifest.update(policy_out=dataclasses.asdict(policy))
        return StageOutcome(files=(attempt.policy,), metrics={**result.metrics, **probe})

    inputs = {
        "policy": context.policy.sha256,
        table: table_inputs(attempt, "pair", table),
        "trainer": component_inputs(recipe.trainer),
        "seed": context.seed,
        "probe_tolerance": recipe.probe_tolerance,
    }
    record = run_stage(context, "train", inputs, work)
    if not context.only_look:
        shutil.rmtree(attempt.checkpoints, ignore_errors=True)
    return record


def _probe_texts(attempt: AttemptDir, table: TrainingTable, policy: PolicyRef) -> list[ProbeText]:
    """Responses that were trained on, with their prompts; sampled ones, where there are any."""
    rows = read_table(attempt.path / table, table)
    if table == "pairs":
        return [(pair.prompt, pair.chosen.token_ids) for pair in pairs_from_table(rows)]
    demonstrations = demonstrations_from_table(rows)
    sampled = [(each.prompt, each.token_ids) for each in demonstrations if each.token_ids]
    return sampled or _written(demonstrations[:NUM_PROBE_TEXTS], load_processor(policy.model_path))


def _written(demonstrations: Sequence[Demonstration], processor: Any) -> list[ProbeText]:
    """Texts that nobody sampled, as the trainer writes them."""
    return [
        (each.prompt, tuple(response_token_ids(processor, each.prompt.text, each.text)))
        for each in demonstrations
    ]


def _trained_policy(context: IterationContext) -> PolicyRef:
    model = context.attempt.policy / "model"
    return PolicyRef(
        name=str(context.attempt.id),
        model_path=str(model.resolve()),
        sha256=weights_sha256(model),
        iteration=context.attempt.id.iteration,
        adapter_path=str((context.attempt.policy / "adapter").resolve()),
    )


def _check_finite(metrics: dict[str, float]) -> None:
    broken = {name: value for name, value in metrics.items() if not math.isfinite(value)}
    if broken:
        raise NumericalError(
            f"Training ended with {broken}. The previous policy stays current. Lower the "
            "learning rate, or train in float32."
        )
