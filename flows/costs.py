"""What a run spent up to an iteration: tokens, seconds, optimiser steps, people's verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.manifest import IterationManifest

STAGES = ("measure", "sample", "review", "pair", "train")
"""Stages that improve the policy; evaluation and gates only look at it."""

COSTS = {
    "spent_generated_tokens": "num_generated_tokens",
    "spent_prompt_tokens": "num_prompt_tokens",
    "spent_optimizer_steps": "num_steps",
    "spent_human_verdicts": "num_human_verdicts",
}
"""Name of a cost -> the stages' figure that it adds up."""
COST_NAMES = ("spent_seconds", *COSTS)


def costs_up_to(manifests: Sequence[IterationManifest]) -> list[dict[str, float]]:
    """For each of the iterations, in order, what it and those before it spent.

    `spent_seconds` is the wall time of the stages in `STAGES`, engines' starts included.
    """
    total = dict.fromkeys(COST_NAMES, 0.0)
    costs = []
    for manifest in manifests:
        for stage in manifest.stages:
            if stage.stage in STAGES and stage.status == "done":
                total["spent_seconds"] += stage.seconds
                for cost, figure in COSTS.items():
                    total[cost] += stage.metrics.get(figure, 0.0)
        costs.append(dict(total))
    return costs
