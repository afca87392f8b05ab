"""The stage that asks the newest policy every benchmark's questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from csr.descriptions import described
from csr.intervals import confidence_intervals
from csr.label_calibration import label_logprobs
from csr.outcomes import Outcome
from csr.protocols import Benchmark, GenerateSettings, Json, Sampler
from csr.response_files import MarksResponses, ReadsResponses
from csr.types import GeneratedResponse, PolicyRef, Prompt, StepRequest
from csr.waves import wave_size
from flows.choices import BenchmarkChoice
from flows.conditions import conditions_of
from flows.context import IterationContext, StageOutcome, run_stage
from flows.inputs import component_inputs, prompt_inputs
from flows.metric_names import CI_HIGH, CI_LOW, STANDARD_ERROR
from flows.progress import stage_progress
from storage.atomic import write_json
from storage.attempt import AttemptDir
from storage.manifest import StageRecord
from storage.rows import generations_to_table, outcomes_to_table
from storage.tables import write_table

MAX_DESCRIPTION_TOKENS = 256
"""Of a description that stands before a question."""


def evaluate(context: IterationContext, *, num_waves: int = 1) -> StageRecord:
    """Ask the newest policy every benchmark's questions, greedily."""
    attempt, recipe = context.attempt, context.recipe
    policy_out = attempt.manifest.read().policy_out
    assert policy_out is not None, "train comes first"
    policy = PolicyRef(**policy_out)
    benchmarks: list[Benchmark] = [choice.build() for choice in recipe.evaluation]

    def work() -> StageOutcome:
        metrics: dict[str, float] = {}
        conditions: Json = {}
        files: list[Path] = []
        for choice, benchmark in zip(recipe.evaluation, benchmarks, strict=True):
            written, figures = _run_benchmark(context, policy, choice, benchmark, num_waves)
            metrics |= figures
            files += written
            conditions[choice.name] = conditions_of(choice, benchmark, benchmark.prompts())
        path = attempt.evaluation / "metrics.json"
        write_json(path, metrics)
        write_json(attempt.conditions, conditions)
        return StageOutcome(files=(*files, path, attempt.conditions), metrics=metrics)

    inputs = {
        "policy": policy.sha256,
        "sampler": component_inputs(recipe.sampler),
        "benchmarks": [component_inputs(choice) for choice in recipe.evaluation],
        "prompts": [prompt_inputs(benchmark.prompts()) for benchmark in benchmarks],
    }
    record = run_stage(context, "evaluate", inputs, work)
    if not context.only_look and attempt.manifest.read().metrics != record.metrics:
        attempt.manifest.update(metrics=record.metrics)
    return record


def _run_benchmark(
    context: IterationContext,
    policy: PolicyRef,
    choice: BenchmarkChoice,
    benchmark: Benchmark,
    num_waves: int,
) -> tuple[list[Path], dict[str, float]]:
    prompts = benchmark.prompts()
    settings = GenerateSettings(
        temperature=0.0, top_p=1.0, max_response_tokens=benchmark.max_response_tokens
    )
    queries = benchmark.label_queries()
    total = len(prompts) + len(queries)
    responses, logprobs = [], []
    with stage_progress(f"{context.attempt.id} evaluate {choice.name}") as progress:
        sampler = context.engines.sampler(policy)
        size = wave_size(context.recipe.shard_size, num_waves)
        prompts = _asked(benchmark, sampler, size)
        for start in range(0, len(prompts), size):
            batch = [StepRequest(prompt=prompt, seed=0) for prompt in prompts[start : start + size]]
            responses += sampler.generate(batch, settings)
            progress(len(responses), total)
        for start in range(0, len(queries), size):
            logprobs += label_logprobs(queries[start : start + size], sampler)
            progress(len(responses) + len(logprobs), total)
    attempt, iteration = context.attempt, context.attempt.id.iteration
    path = attempt.evaluation / f"{choice.name}.parquet"
    table = generations_to_table(
        prompts, responses, iteration=iteration, benchmark=choice.name, policy=policy.name
    )
    write_table(path, table)
    outcomes = benchmark.outcomes(responses, logprobs)
    parts = outcomes_to_table(outcomes, iteration=iteration, benchmark=choice.name)
    write_table(attempt.outcomes(choice.name), parts)
    others = _write_others(attempt, choice.name, benchmark, responses)
    files = [path, attempt.outcomes(choice.name), *others]
    return files, benchmark.evaluate(responses, logprobs) | interval_metrics(outcomes)


def _write_others(
    attempt: AttemptDir, name: str, benchmark: Benchmark, responses: Sequence[GeneratedResponse]
) -> list[Path]:
    """Writes what not every benchmark has; the files."""
    documents: dict[Path, Any] = {}
    if isinstance(benchmark, ReadsResponses):
        documents[attempt.response_records(name)] = benchmark.response_records(responses)
    if isinstance(benchmark, MarksResponses):
        marks = {
            response.prompt_id: [asdict(mark) for mark in found]
            for response, found in zip(responses, benchmark.false_mentions(responses), strict=True)
            if found is not None
        }
        if marks:
            documents[attempt.false_mentions(name)] = marks
    for path, document in documents.items():
        write_json(path, document)
    return list(documents)


def interval_metrics(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """`<figure>_ci_low`, `<figure>_ci_high` and `<figure>_se` of each that has an interval."""
    metrics: dict[str, float] = {}
    for name, interval in confidence_intervals(outcomes).items():
        metrics[f"{name}{CI_LOW}"] = interval.low
        metrics[f"{name}{CI_HIGH}"] = interval.high
        metrics[f"{name}{STANDARD_ERROR}"] = interval.standard_error
    return metrics


def _asked(benchmark: Benchmark, sampler: Sampler, batch_size: int) -> Sequence[Prompt]:
    """The benchmark's prompts, with the policy's own descriptions where they are wanted."""
    if benchmark.describe_first is None:
        return benchmark.prompts()
    return described(
        benchmark.prompts(),
        sampler,
        question=benchmark.describe_first,
        max_response_tokens=MAX_DESCRIPTION_TOKENS,
        batch_size=batch_size,
    )
