"""The card of an exported model: README.md with the hub's metadata."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from csr.protocols import Json, Metrics
from flows.exporting.lineage import base_label, hub_id, recipe_rows
from flows.exporting.markdown import indented, sections, shareable, table, warned
from flows.exporting.subject import Subject, policies_to
from flows.inert import as_code
from flows.metric_names import METRICS
from flows.report_figures import format_change, format_figure
from storage.manifest import IterationManifest
from storage.tables import read_table

MAX_PROMPTS_SHOWN = 3
_CAPTIONS = ("chair_s", "chair_i", "recall", "mean_response_sentences", "mean_response_tokens")
INDEXED = {
    "captions": _CAPTIONS,
    "coco_chair": _CAPTIONS,
    "amber": ("amber_chair", "amber_cover", "amber_hal", "amber_cog", "amber_accuracy", "amber_f1"),
    "pope": ("pope_accuracy", "pope_f1"),
    "multiple_choice": ("multiple_choice_accuracy",),
}
"""Benchmark -> its figures in the hub's model index: recall and length beside hallucination."""
PEFT_USE = """\
```python
from peft import PeftModel
from transformers import AutoModelForImageTextToText

base = AutoModelForImageTextToText.from_pretrained("BASE")
model = PeftModel.from_pretrained(base, "PATH")
```

The processor is that of the base model."""
TRANSFORMERS_USE = """\
```python
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("PATH")
processor = AutoProcessor.from_pretrained("PATH")
```"""


def write_card(
    subject: Subject, what: str, folder: Path, base_model: str | None, counts: Json
) -> None:
    """README.md in `folder`, proved to read back as it was meant."""
    from huggingface_hub import ModelCard, ModelCardData

    base, figures = hub_id(subject, base_model), _indexed(subject)
    facts = ModelCardData(
        license="unknown",
        library_name="transformers" if what == "merged" else "peft",
        pipeline_tag="image-text-to-text",
        base_model=base,
        tags=["csr", "vision-language", *_tags(subject)],
        model_name=subject.id if figures else None,
        eval_results=figures or None,
        **({"base_model_relation": "finetune" if what == "merged" else "adapter"} if base else {}),
    )
    body = _body(subject, what, base_model, counts)
    card = ModelCard(f"---\n{facts.to_yaml()}\n---\n\n{body}")
    assert card.data.to_dict() == facts.to_dict(), "the card does not read back"
    card.save(folder / "README.md")


def metric_rows(base: Metrics, now: Metrics) -> list[tuple[str, str, str, str]]:
    """Name, base, iteration and change, with standard errors; measured ones, in METRICS' order."""
    rows = []
    for metric in (metric for group in METRICS.values() for metric in group):
        name = metric.name
        if name in base or name in now:
            change = format_change([base.get(name), now.get(name)])
            title = f"`{name}` ({metric.better})" if metric.better else f"`{name}`"
            rows.append((title, _figure(base, name), _figure(now, name), change))
    return rows


def _figure(metrics: Metrics, name: str) -> str:
    text, error = format_figure(metrics.get(name), name), metrics.get(f"{name}_se")
    return text if error is None else f"{text} ± {format_figure(error)}"


def _tags(subject: Subject) -> list[str]:
    tags = [str(subject.config["trainer"]["name"])]
    return [*tags, "held-by-gate"] if subject.manifest.status == "held" else tags


def _indexed(subject: Subject) -> list[Any]:
    from huggingface_hub import EvalResult

    limits = {each["name"]: each.get("max_response_tokens") for each in _benchmarks(subject)}
    return [
        EvalResult(
            task_type="image-text-to-text",
            dataset_type=benchmark,
            dataset_name=f"{benchmark}, held-out prompts of run {subject.run.run_id}",
            metric_type=name,
            metric_name=name,
            metric_value=subject.manifest.metrics[name],
            metric_args={"max_response_tokens": limits[benchmark], "decoding": "greedy"},
        )
        for benchmark, names in INDEXED.items()
        if benchmark in limits
        for name in names
        if math.isfinite(subject.manifest.metrics.get(name, math.nan))
    ]


def _benchmarks(subject: Subject) -> list[Json]:
    return list(subject.config.get("evaluation", []))


def _body(subject: Subject, what: str, base_model: str | None, counts: Json) -> str:
    base = base_label(subject, base_model)
    return sections(
        f"# {subject.id}",
        warned(subject.warnings()),
        f"{base} after iteration {subject.manifest.iteration} of a self-rewarding loop: it "
        "answered prompts about images, its answers were rewarded by how well they fit the image, "
        "and it was trained on what came out best (CSR, Calibrated Self-Rewarding, "
        "[arXiv:2405.14622](https://arxiv.org/abs/2405.14622), or another source of that loop).",
        "## Use",
        TRANSFORMERS_USE if what == "merged" else _adapter_use(base, counts),
        "## Where it comes from",
        table(("what", "value"), recipe_rows(subject, base_model)),
        _lineage(subject, base),
        "## Measured",
        _measured(subject),
        "## Gates",
        _gates(subject),
        "## Recipe",
        indented(shareable(subject.config)),
        "## Versions",
        table(("package", "version"), _versions(subject)),
        _intended(),
    )


def _adapter_use(base: str, counts: Json) -> str:
    number, rank = counts["adapters"], counts["rank"]
    joined = (
        f"A LoRA adapter of rank {rank} for {base}."
        if number == 1
        else f"The LoRA adapters of {number} iterations side by side, as one of rank {rank} for "
        f"{base}. It says what the merged model says, but for rounding: each merge rounded to the "
        "weights' type."
    )
    return f"{joined}\n\n{PEFT_USE}"


def _lineage(subject: Subject, base: str) -> str:
    """Every policy from the base to this one."""
    rows = [("base", base, "", "", as_code(subject.base.sha256))]
    rows += [_ancestor(attempt.manifest.read()) for attempt in policies_to(subject)]
    told = table(("attempt", "from", "learned from", "status", "weights sha256"), rows)
    return sections("Every policy on the way here:", told, subject.lineage_problem).rstrip()


def _ancestor(manifest: IterationManifest) -> tuple[str, str, str, str, str]:
    pairing, before, after = manifest.stage("pair"), manifest.policy_in, manifest.policy_out
    figures = pairing.metrics if pairing else {}
    kinds = {"pairs": "num_pairs", "demonstrations": "num_demonstrations"}
    counts = {kind: int(figures.get(name, 0)) for kind, name in kinds.items()}
    learned = ", ".join(f"{number:,} {kind}" for kind, number in counts.items() if number)
    recipe = f"{manifest.config['source']['name']}, {manifest.config['trainer']['name']}"
    return (
        as_code(f"{manifest.run_id}/{manifest.iteration:02d}.{manifest.attempt}"),
        as_code(before["name"]) if before else "",
        f"{learned} ({recipe})",
        manifest.status,
        as_code(after["sha256"]) if after else "",
    )


def _measured(subject: Subject) -> str:
    now = subject.manifest.metrics
    if not now:
        return "Nothing: the recipe names no benchmark."
    rows = metric_rows(subject.base_metrics, now)
    return sections(
        "On held-out images, as fractions in [0, 1] but for lengths; ± is one standard error over "
        "the held-out set, which says nothing about another training seed. A policy that says less "
        "hallucinates less: read `chair_s` and `chair_i` with `recall` and the lengths.",
        table(("figure", "base", "this", "change"), rows),
        "Asked so:",
        table(
            ("benchmark", "prompts", "at most, tokens", "decoding", "asked"),
            [_asked(subject, settings) for settings in _benchmarks(subject)],
        ),
    ).rstrip()


def _asked(subject: Subject, settings: Json) -> tuple[str, str, str, str, str]:
    name = settings["name"]
    rows = read_table(subject.attempt.evaluation / f"{name}.parquet", "generations")
    texts = list(dict.fromkeys(rows.column("prompt_text").to_pylist()))
    shown = "; ".join(as_code(text, 200) for text in texts[:MAX_PROMPTS_SHOWN])
    more = (
        f"; and {len(texts) - MAX_PROMPTS_SHOWN:,} more" if len(texts) > MAX_PROMPTS_SHOWN else ""
    )
    tokens = settings.get("max_response_tokens")
    return name, f"{rows.num_rows:,}", str(tokens or "its own limit"), "greedy", shown + more


def _gates(subject: Subject) -> str:
    verdicts = subject.gates
    if not verdicts:
        return "No gate judged this iteration: the recipe switches them off."
    tripped = [verdict for verdict in verdicts if verdict.tripped]
    said = f"{len(tripped)} of {len(verdicts)} gates tripped." if tripped else "No gate tripped."
    rows = [
        (
            as_code(verdict.gate),
            format_figure(verdict.value),
            format_figure(verdict.limit),
            "tripped" if verdict.tripped else "fine",
            as_code(verdict.message) if verdict.message else "",
        )
        for verdict in verdicts
    ]
    return f"{said}\n\n{table(('gate', 'value', 'limit', 'verdict', 'message'), rows)}"


def _versions(subject: Subject) -> list[tuple[str, str]]:
    record = subject.manifest.stage("train")
    assert record is not None, subject.id
    versions = {"csr": subject.manifest.code_version, **record.packages}
    return [(as_code(name), as_code(version)) for name, version in versions.items()]


def _intended() -> str:
    return """\
## Intended use and limits

For research into hallucination of vision-language models, and for whatever the base model is meant
for. It inherits the base model's limits, biases and licence. Its rewards come from the model itself
and from an image-text model, not from people, unless the recipe names a human critic: what both get
wrong is learned as right. It was measured on the benchmarks above alone; safety, other languages
and other tasks were not looked at.

## Licence

Unknown to CSR: it follows from the licences of the base model and of the data."""
