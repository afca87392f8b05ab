"""The stages that make pairs: measure, sample, pair.

Plain functions of the iteration's context; tests call them directly, the flow wraps
each in a task. What a stage reads from another it reads from the store.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from csr.errors import ConfigError, DataError
from csr.protocols import PreferenceSource, Similarity, SourceTools
from csr.types import REPLAY, PairingResult, Prompt, ResponseTree, SkipReason
from csr.waves import in_waves
from flows.context import IterationContext, StageOutcome, run_stage
from flows.engines import tokens_spent
from flows.figures import caption_figures, pair_figures, sum_counts, tree_figures
from flows.inputs import component_inputs, prompt_inputs, table_inputs
from flows.progress import stage_progress
from flows.reviewing import evidence_inputs, evidence_of
from rewards import calibrated
from rewards.statistics import Statistics, sample_statistics
from storage.atomic import read_json, write_json
from storage.critique import demonstrations_to_table
from storage.manifest import StageRecord
from storage.rows import pairs_to_table, responses_to_table
from storage.tables import read_table, shard_path, write_table
from storage.trees import trees_from_table, trees_to_table

AFTER_SAMPLING = ("review", "pair")
"""First stages of a rerun that rewards the trees anew: those were sampled by another attempt."""


def measure(context: IterationContext, *, num_waves: int = 1) -> StageRecord | None:
    """How the current policy's own captions look: what the centred calibration needs.

    None where nothing needs such statistics. Here as below, more waves take
    less memory and more time, and change no result.
    """
    recipe = context.recipe
    settings = _source(context).step_settings
    if settings is None or recipe.reward.calibration != "centred":
        return None
    prompts = context.prompts[: recipe.num_statistics_prompts]

    def work() -> StageOutcome:
        before = context.engines.counts()
        sampler = context.engines.sampler(context.policy)
        with stage_progress(f"{context.attempt.id} measure") as progress:
            statistics = sample_statistics(
                prompts,
                sampler=sampler,
                similarity=context.engines.similarity(),
                settings=settings,
                likelihood_kind=recipe.reward.likelihood,
                likelihood_scope=recipe.reward.statistics_scope,
                seed=context.seed,
                progress=progress,
                num_captions=recipe.num_statistics_prompts,
                num_waves=num_waves,
                evidence=calibrated.evidence_of(
                    recipe.reward, sampler, context.engines.second_similarity()
                ),
                evidence_inputs=recipe.reward.evidence_inputs,
            )
        path = _statistics_path(context)
        write_json(path, statistics.model_dump(mode="json"))
        figures = caption_figures(statistics) | tokens_spent(context.engines, before)
        return StageOutcome(files=(path,), metrics=figures)

    inputs = {
        **_engine_inputs(context),
        "prompts": prompt_inputs(prompts),
        "settings": dataclasses.asdict(settings),
        "num_captions": recipe.num_statistics_prompts,
        "likelihood": recipe.reward.likelihood,
        "scope": recipe.reward.statistics_scope,
        "evidence": recipe.reward.evidence_inputs,
    }
    return run_stage(context, "measure", inputs, work)


def sample(context: IterationContext, shard: int, *, num_waves: int = 1) -> StageRecord:
    """Search a shard's response trees and store every node."""
    recipe, source = context.recipe, _source(context)
    prompts = context.shard(shard)
    rewarded = source.step_settings is not None
    statistics = _read_statistics(context) if rewarded else None

    def work() -> StageOutcome:
        engines, before = context.engines, context.engines.counts()
        similarity, sampler = engines.similarity(), engines.sampler(context.policy)
        second = engines.second_similarity()
        scorer = (
            calibrated.build(recipe.reward, similarity, statistics, sampler, second)
            if rewarded
            else None
        )
        label = f"{context.attempt.id} sample {shard + 1}/{context.num_shards}"
        trees: list[ResponseTree] = []
        with stage_progress(label) as progress:
            for wave, shown in in_waves(prompts, num_waves, progress):
                tools = SourceTools(
                    policy=context.policy,
                    sampler=sampler,
                    scorer=scorer,
                    similarity=similarity,
                    seed=context.seed,
                    progress=shown,
                )
                trees += source.generate(wave, tools)
        path = shard_path(context.attempt.nodes, shard)
        write_table(path, trees_to_table(trees, iteration=context.attempt.id.iteration))
        skipped = sum_counts(tree.skipped for tree in trees)
        if n := _num_truncated(similarity if rewarded else None, trees):
            skipped[SkipReason.TRUNCATED_SIMILARITY_TEXT.value] = n
        figures = tree_figures(trees) | tokens_spent(engines, before)
        return StageOutcome(files=(path,), skipped=skipped, metrics=figures)

    inputs = {
        **_engine_inputs(context),
        "source": component_inputs(recipe.source),
        "prompts": prompt_inputs(prompts),
        "reward": recipe.reward.model_dump(mode="json") if rewarded else None,
        "statistics": statistics.model_dump(mode="json") if statistics else None,
    }
    return run_stage(context, "sample", inputs, work, shard)


def pair(context: IterationContext) -> StageRecord:
    """Best and worst responses of every tree become preference pairs. Seconds, no engine.

    Trees that another attempt sampled are rewarded anew first, by this one's settings.
    """
    attempt, iteration, source = context.attempt, context.attempt.id.iteration, _source(context)
    policy, origin = context.policy.name, context.recipe.source.name
    anew = context.from_stage in AFTER_SAMPLING and source.step_settings is not None
    rewarding = context.recipe.reward.model_dump(mode="json") if anew else None

    def work() -> StageOutcome:
        table = read_table(attempt.nodes, "nodes")
        trees = trees_from_table(table, context.prompts, policy=policy, origin=origin)
        if rewarding is not None:
            statistics = _read_statistics(context)
            trees = [
                calibrated.recalibrate(tree, statistics, context.recipe.reward) for tree in trees
            ]
        result = source.pair(trees, evidence_of(context))
        responses = shard_path(attempt.responses, 0)
        write_table(
            responses, responses_to_table(result.responses, iteration=iteration, policy=policy)
        )
        lessons = _write_lessons(context, source, result)
        _check_nothing_lost(context.prompts, result)
        return StageOutcome(
            files=(responses, lessons),
            skipped=dict(result.skipped),
            metrics=pair_figures(result, len(context.prompts)),
        )

    inputs = {
        "nodes": table_inputs(attempt, "sample", "nodes"),
        "prompts": prompt_inputs(context.prompts),
        "policy": policy,
        "source": component_inputs(context.recipe.source),
        "rewarding": rewarding,
        **evidence_inputs(context),
    }
    return run_stage(context, "pair", inputs, work)


def _write_lessons(
    context: IterationContext, source: PreferenceSource, result: PairingResult
) -> Path:
    """The table that the trainer reads."""
    attempt, iteration = context.attempt, context.attempt.id.iteration
    if source.makes == "pairs":
        path = shard_path(attempt.pairs, 0)
        table = pairs_to_table(result.pairs, iteration=iteration, policy=context.policy.name)
    else:
        path = shard_path(attempt.demonstrations, 0)
        table = demonstrations_to_table(result.demonstrations, iteration=iteration)
    write_table(path, table)
    return path


def _num_truncated(similarity: Similarity | None, trees: Sequence[ResponseTree]) -> int:
    """Steps whose text the similarity read only in part."""
    if similarity is None:
        return 0
    return similarity.num_truncated([node.step.text for tree in trees for node in tree.nodes])


def _source(context: IterationContext) -> PreferenceSource:
    source: PreferenceSource = context.recipe.source.build()
    return source


def _engine_inputs(context: IterationContext) -> dict[str, Any]:
    """Who speaks, how, what judges it, and by which seed."""
    recipe = context.recipe
    return {
        "policy": context.policy.sha256,
        "sampler": component_inputs(recipe.sampler),
        "similarity": component_inputs(recipe.similarity),
        "second_similarity": component_inputs(recipe.second_similarity),
        "seed": context.seed,
    }


def _statistics_path(context: IterationContext) -> Path:
    return context.attempt.path / "statistics.json"


def _read_statistics(context: IterationContext) -> Statistics | None:
    if context.recipe.reward.calibration != "centred":
        return None
    if context.from_stage in AFTER_SAMPLING and not _statistics_path(context).exists():
        raise ConfigError(
            f"{context.attempt.id}: the centred calibration needs statistics, and the attempt that "
            "the trees come from measured none. Rerun from measure, or keep its calibration."
        )
    return Statistics.model_validate(read_json(_statistics_path(context)))


def _check_nothing_lost(prompts: Sequence[Prompt], result: PairingResult) -> None:
    learnt = [pair.prompt for pair in result.pairs]
    learnt += [each.prompt for each in result.demonstrations if each.kind != REPLAY]
    used = {p.prompt_id for p in learnt} & {p.prompt_id for p in prompts}
    counts = (len(used), result.skipped, len(prompts))
    assert len(used) + sum(result.skipped.values()) == len(prompts), counts
    if not learnt:
        raise DataError(
            f"No prompt yielded a preference pair or a demonstration ({json.dumps(result.skipped)} "
            f"of {len(prompts)}). Loosen the source's filters or its critic, or sample more "
            "candidates."
        )
