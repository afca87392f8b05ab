"""The last stage of an iteration: gates look at what it made, and hold it where it did harm.

A held iteration stays where it is, with the reason; the policy before it stays the current one.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from typing import Any

from csr.gates import Evidence, Verdict, judge
from csr.protocols import Metrics
from csr.types import GeneratedResponse, PolicyRef, Prompt
from flows.context import IterationContext, StageOutcome, run_stage
from storage.atomic import read_json, write_json
from storage.attempt import AttemptDir
from storage.lineage import attempt_before
from storage.manifest import StageRecord
from storage.rows import generations_from_table
from storage.run_store import RunStore
from storage.tables import read_table

logger = logging.getLogger("csr")

NUM_KL_RESPONSES = 32
"""Held-out answers that the divergence from the base is estimated on."""


def gate(context: IterationContext) -> StageRecord:
    """Judge the attempt, and end it: `done`, or `held` where a gate tripped."""
    attempt, recipe = context.attempt, context.recipe
    evidence = _stored_evidence(context.store, attempt)

    def work() -> StageOutcome:
        verdicts: tuple[Verdict, ...] = ()
        if recipe.gates is not None and attempt.id.iteration > 0:
            wanted = recipe.gates.max_kl_nats_per_token is not None
            kl = _kl_from_base(context) if wanted else None
            verdicts = judge(dataclasses.replace(evidence, kl_nats_per_token=kl), recipe.gates)
        path = attempt.evaluation / "gates.json"
        write_json(path, {"gates": [dataclasses.asdict(verdict) for verdict in verdicts]})
        values = {v.gate: v.value for v in verdicts if v.value is not None}
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        return StageOutcome(files=(path,), metrics=finite)

    inputs = {
        "evidence": repr(evidence),  # NaN, which JSON cannot hold, is what a gate looks for
        "gates": recipe.gates.model_dump(mode="json") if recipe.gates else None,
    }
    record = run_stage(context, "gate", inputs, work)
    if not context.only_look:
        _end(attempt)
    return record


def verdicts_of(attempt: AttemptDir) -> list[Verdict]:
    """What the gates said of the attempt; empty where they have not spoken."""
    path = attempt.evaluation / "gates.json"
    return [Verdict(**each) for each in read_json(path)["gates"]] if path.exists() else []


def held_reason(attempt: AttemptDir) -> str:
    """Why the attempt is held, one sentence a gate."""
    tripped = [verdict for verdict in verdicts_of(attempt) if verdict.tripped]
    return " ".join(
        f"{each.gate} is {_figure(each.value)}, past {_figure(each.limit)}: {each.message}"
        for each in tripped
    )


def _end(attempt: AttemptDir) -> None:
    status = "held" if any(verdict.tripped for verdict in verdicts_of(attempt)) else "done"
    if attempt.manifest.read().status != status:
        attempt.manifest.update(status=status)
    if status == "held":
        logger.warning("%s is held. %s", attempt.id, held_reason(attempt))


def _stored_evidence(store: RunStore, attempt: AttemptDir) -> Evidence:
    """All but the divergence, which needs an engine."""
    run_id, iteration = attempt.id.run_id, attempt.id.iteration
    before = attempt_before(store, run_id, iteration)
    two_before = attempt_before(store, run_id, before.id.iteration) if before.id.iteration else None
    return Evidence(
        base=store.attempt(run_id, 0).manifest.read().metrics,
        before=before.manifest.read().metrics,
        two_before=two_before.manifest.read().metrics if two_before else {},
        now=attempt.manifest.read().metrics,
        pairs=_stage_figures(attempt, "pair"),
        pairs_before=_stage_figures(before, "pair"),
        training=_stage_figures(attempt, "train"),
    )


def _stage_figures(attempt: AttemptDir, stage: str) -> Metrics:
    """Without the time it took, which no two runs share."""
    record = attempt.manifest.read().stage(stage)
    return {k: v for k, v in record.metrics.items() if k != "seconds"} if record else {}


def _kl_from_base(context: IterationContext) -> float | None:
    """Mean of log p_new - log p_base over the tokens of the new policy's own answers, in nats.

    The answers are greedy, so this is a sample of the divergence at the policy's likeliest
    texts. None where no benchmark was asked.
    """
    if not context.recipe.evaluation:
        return None
    # The benchmark with the longest answers: a yes or no says little about a policy.
    choice = max(context.recipe.evaluation, key=lambda each: each.build().max_response_tokens)
    table = read_table(context.attempt.evaluation / f"{choice.name}.parquet", "generations")
    answered = list(zip(choice.build().prompts(), generations_from_table(table), strict=True))
    spoken = [pair for pair in answered if pair[1].token_ids][:NUM_KL_RESPONSES]
    base = context.store.attempt(context.attempt.id.run_id, 0).manifest.read().policy_out
    return _mean_log_ratio(context, PolicyRef(**(base or {})), spoken)


def _mean_log_ratio(
    context: IterationContext, base: PolicyRef, spoken: Sequence[tuple[Prompt, GeneratedResponse]]
) -> float | None:
    prompts = [prompt for prompt, _ in spoken]
    token_ids = [response.token_ids for _, response in spoken]
    old = context.engines.sampler(base).score(prompts, token_ids)
    ratios = [
        new - before
        for (_, response), logprobs in zip(spoken, old, strict=True)
        for new, before in zip(response.token_logprobs, logprobs, strict=True)
    ]
    return math.fsum(ratios) / len(ratios) if ratios else None


def _figure(value: Any) -> str:
    return "not a number" if value is None or not math.isfinite(value) else f"{value:.3g}"
