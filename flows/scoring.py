"""`csr score`: a file of responses against a benchmark, without a model.

For other people's responses, and for ours under other rules: an attempt keeps its own as
`evaluation/<benchmark>.responses.json`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csr.errors import ConfigError, DataError
from csr.files import file_sha256
from csr.protocols import Json
from csr.response_files import ReadsResponses, read_responses
from flows import tables
from flows.benchmarks import interval_metrics
from flows.choices import BenchmarkChoice
from flows.components import load
from flows.config import absolute_paths
from flows.inputs import component_inputs
from flows.metric_names import CI_HIGH, CI_LOW, is_companion
from flows.recipe_file import apply_override, read_document
from flows.validation import validate


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """What is scored, and how."""

    file: Path
    benchmark: str
    recipe: Path | None = None
    """Its settings of the benchmark are taken."""
    settings: tuple[str, ...] = ()
    """Settings of the benchmark, each as `key=value`."""
    id_field: str | None = None
    """Name of a record's id, where the file does not use the benchmark's own."""
    text_field: str | None = None
    partial: bool = False
    """Score what the file answers, though it does not answer all."""


def score(request: ScoreRequest) -> Json:
    """The figures of a file of responses, with what they depend on.

    `{"benchmark", "file", "file_sha256", "num_responses", "num_missing", "num_unknown", "metrics",
    "conditions"}`. CSRError where the file or the benchmark cannot work, or the file does not
    answer every prompt and `partial` is not asked for.
    """
    choice = _choice(request)
    benchmark = choice.build()
    if not isinstance(benchmark, ReadsResponses):
        raise ConfigError(
            f"The benchmark {choice.name!r} has no form for files of responses, as where it is "
            "read off a policy's probabilities. Use csr evaluate."
        )
    prompt_ids = list(benchmark.prompt_ids())
    fields = benchmark.response_fields
    named = (request.id_field or fields[0], request.text_field or fields[1])
    read = read_responses(request.file, named, prompt_ids)
    if read.num_missing and not request.partial:
        raise DataError(
            f"{request.file} answers {len(read.responses)} of {len(prompt_ids)} prompts, and "
            "figures over a part are not the benchmark's. List the images with image_ids, or give "
            "--partial to score the part."
        )
    answered = [response.prompt_id for response in read.responses]
    benchmark.keep(answered)
    outcomes = benchmark.outcomes(read.responses)  # type: ignore[attr-defined]
    metrics = benchmark.evaluate(read.responses)  # type: ignore[attr-defined]
    return {
        "benchmark": choice.name,
        "file": str(request.file),
        "file_sha256": file_sha256(request.file),
        "num_responses": len(answered),
        "num_missing": read.num_missing,
        "num_unknown": read.num_unknown,
        "metrics": metrics | interval_metrics(outcomes),
        "conditions": {
            "prompt_ids_sha256": hashlib.sha256(json.dumps(answered).encode()).hexdigest(),
            "settings": component_inputs(choice),
        },
    }


def table(shape: Json) -> Any:
    """The shape of `score` for people."""
    counts = f"{shape['num_responses']} responses"
    for name in ("missing", "unknown"):
        counts += f", {shape[f'num_{name}']} {name}" if shape[f"num_{name}"] else ""
    rows, metrics = [], shape["metrics"]
    for name, value in metrics.items():
        if is_companion(name):
            continue
        low, high = metrics.get(name + CI_LOW), metrics.get(name + CI_HIGH)
        interval = "" if low is None else f"{low:.4f} to {high:.4f}"
        rows.append((name, f"{value:.4f}", interval))
    title = f"{shape['benchmark']}: {counts}"
    return tables.table(("figure", "value", "95 % interval"), rows, title)


def _choice(request: ScoreRequest) -> BenchmarkChoice:
    """The benchmark with the recipe's settings, then those given. Images need not be here."""
    load(BenchmarkChoice.package, request.benchmark)  # a name that nothing has is told as such
    document: dict[str, Any] = {"images": "."}
    if request.recipe is not None:
        document = _of_recipe(request.recipe, request.benchmark)
    for setting in request.settings:
        apply_override(document, setting)
    choice = validate(BenchmarkChoice, {**document, "name": request.benchmark}, request.benchmark)
    return choice.with_settings(absolute_paths(choice.settings))


def _of_recipe(recipe: Path, benchmark: str) -> dict[str, Any]:
    listed = read_document(recipe).get("evaluation")
    named = {}
    for each in listed if isinstance(listed, list) else []:
        settings = each if isinstance(each, dict) else {"name": each}
        named[str(settings.get("name"))] = settings
    if benchmark in named:
        return {"images": ".", **named[benchmark]}
    raise ConfigError(
        f"{recipe} names no benchmark {benchmark!r} under `evaluation`, but "
        f"{', '.join(named) or 'none at all'}. Score against one of those, or leave --recipe out "
        "and give the settings with --set."
    )
