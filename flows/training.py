"""The stage that updates the policy, and proves that the sampler speaks with the new weights."""

from __future__ import annotations

import dataclasses
import math
import shutil

from csr.checkpoints import weights_sha256
from csr.errors import NumericalError
from csr.files import replaced_directory
from csr.types import PolicyRef
from flows.context import IterationContext, StageOutcome, run_stage
from flows.inputs import component_inputs, table_inputs
from flows.probe import probe_policy
from flows.progress import stage_progress
from storage.atomic import write_json
from storage.manifest import StageRecord
from storage.rows import pairs_from_table
from storage.tables import read_table


def train(context: IterationContext) -> StageRecord:
    """Update the policy on the pairs, then prove that the sampler speaks with its weights."""
    attempt, recipe = context.attempt, context.recipe

    def work() -> StageOutcome:
        attempt.manifest.update(policy_out=None)
        with (
            replaced_directory(attempt.policy) as building,
            stage_progress(f"{attempt.id} train") as show,
        ):
            result = context.engines.trainer().train(
                policy=context.policy,
                pairs_path=attempt.pairs,
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
            before=context.policy,
            after=policy,
            pairs=pairs_from_table(read_table(attempt.pairs, "pairs")),
            tolerance=recipe.probe_tolerance,
        )
        attempt.manifest.update(policy_out=dataclasses.asdict(policy))
        return StageOutcome(files=(attempt.policy,), metrics={**result.metrics, **probe})

    inputs = {
        "policy": context.policy.sha256,
        "pairs": table_inputs(attempt, "pair", "pairs"),
        "trainer": component_inputs(recipe.trainer),
        "seed": context.seed,
        "probe_tolerance": recipe.probe_tolerance,
    }
    record = run_stage(context, "train", inputs, work)
    if not context.only_look:
        shutil.rmtree(attempt.checkpoints, ignore_errors=True)
    return record


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
