"""The card of an exported data set: README.md with the hub's metadata."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from csr.types import Demonstration
from flows.exporting.lessons import DataFile, Lessons
from flows.exporting.lineage import about_policy, base_label, recipe_rows
from flows.exporting.markdown import indented, sections, shareable, table, warned
from flows.exporting.pictures import Pictures
from flows.exporting.subject import Subject

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""Rows below which the hub names a size so."""
MADE_BY = ("source", "reward", "second_similarity", "similarity", "critic", "sampler")
"""The parts of a recipe that decide what its pairs are."""


def write_card(
    subject: Subject, lessons: Lessons, files: Sequence[DataFile], pictures: Pictures,
    folder: Path, *, module: Any, format_name: str,
) -> None:  # fmt: skip
    """README.md in `folder`, proved to read back as it was meant."""
    from huggingface_hub import DatasetCard, DatasetCardData

    facts = DatasetCardData(
        license="unknown",
        pretty_name=f"{_title(files)} of {subject.id}",
        size_categories=_size(lessons.num_rows),
        task_categories=["image-text-to-text"],
        annotations_creators=["machine-generated"],
        tags=["csr", *_tags(files), "vision-language", format_name],
        configs=[_config(file, folder, index == 0) for index, file in enumerate(files)],
    )
    body = _body(subject, lessons, files, pictures, module)
    card = DatasetCard(f"---\n{facts.to_yaml()}\n---\n\n{body}")
    assert card.data.to_dict() == facts.to_dict(), "the card does not read back"
    card.save(folder / "README.md")


def _config(file: DataFile, folder: Path, is_default: bool) -> dict[str, Any]:
    path = file.path.relative_to(folder).as_posix()
    facts = {"config_name": file.kind, "data_files": [{"split": "train", "path": path}]}
    return {**facts, "default": True} if is_default else facts


def _title(files: Sequence[DataFile]) -> str:
    kinds = {"pairs": "preference pairs", "demonstrations": "demonstrations"}
    text = " and ".join(kinds[file.kind] for file in files)
    return text[0].upper() + text[1:]


def _tags(files: Sequence[DataFile]) -> list[str]:
    tags = {"pairs": ["preference", "dpo"], "demonstrations": ["sft"]}
    return [tag for file in files for tag in tags[file.kind]]


def _size(num_rows: int) -> str:
    return next((name for limit, name in SIZES if num_rows < limit), "1M<n<10M")


def _body(
    subject: Subject, lessons: Lessons, files: Sequence[DataFile], pictures: Pictures, module: Any
) -> str:
    kinds = [file.kind for file in files]
    return sections(
        f"# {_title(files)} of {subject.id}",
        warned(subject.warnings()),
        "Responses that a vision-language model gave to prompts about images, made into what it "
        "is trained on next by CSR (Calibrated Self-Rewarding, "
        "[arXiv:2405.14622](https://arxiv.org/abs/2405.14622), or another source of that loop).",
        f"## Use\n\nWritten for {module.FITS}. PATH is this folder.",
        module.usage(subject.slug, kinds),
        "## Counts",
        table(("what", "number"), _counts(subject, lessons, pictures)),
        _remarks(lessons, pictures),
        "## Where it comes from",
        table(("what", "value"), [*recipe_rows(subject), *_policy_rows(subject)]),
        "Settings that decide what the rows are:",
        indented(shareable({key: subject.config.get(key) for key in MADE_BY})),
        "## Licence\n\nUnknown: CSR knows the licence of neither the images, nor the prompts, nor "
        f"the model {base_label(subject)} whose responses these are. Whoever publishes this must "
        "find out, and state them here.",
        "## Limits\n\nEvery response was written by a model, and none was checked by a person "
        "unless the critic above is `human`. A chosen response is better than the rejected one by "
        "the reward above, which does not make it true. The prompts and images are the run's "
        "own; whom and what they show, and leave out, was not looked at.",
    )


def _counts(subject: Subject, lessons: Lessons, pictures: Pictures) -> list[tuple[str, str]]:
    record = subject.manifest.stage("pair")
    assert record is not None, subject.id
    num_prompts = int(record.metrics.get("num_prompts", 0))
    rows = [("prompts of the iteration", f"{num_prompts:,}")]
    rows += [(f"skipped in pairing: `{k}`", f"{n:,}") for k, n in sorted(record.skipped.items())]
    rows += [(f"left out of this export: `{k}`", f"{n:,}") for k, n in lessons.left_out.items()]
    if lessons.pairs:
        rows.append(("pairs", f"{len(lessons.pairs):,}"))
    return [*rows, *_kinds(lessons.demonstrations), ("images", f"{pictures.count:,}")]


def _kinds(demonstrations: Sequence[Demonstration]) -> list[tuple[str, str]]:
    kinds = sorted({each.kind for each in demonstrations})
    return [
        (f"demonstrations of kind `{kind}`", f"{sum(d.kind == kind for d in demonstrations):,}")
        for kind in kinds
    ]


def _remarks(lessons: Lessons, pictures: Pictures) -> str:
    """What another trainer would not do as CSR does."""
    said = []
    if pictures.num_redrawn:
        said.append(
            f"{pictures.num_redrawn:,} images are written anew as PNG, as the model saw them: "
            "upright, without transparency, or corrupted on purpose."
        )
    if lessons.num_cut:
        said.append(
            f"{lessons.num_cut:,} responses were cut by a token limit or stop at a sentence. CSR "
            "trains them without an end; other trainers add one."
        )
    if lessons.num_other_images:
        said.append(
            f"{lessons.num_other_images:,} rejected responses were given to another image than the "
            "one here, which is the image both sides are trained on."
        )
    if any(each.weight != 1.0 for each in lessons.demonstrations):
        said.append("Demonstrations have weights, which other trainers do not read.")
    return "\n".join(f"- {sentence}" for sentence in said)


def _policy_rows(subject: Subject) -> list[tuple[str, str]]:
    policy = subject.manifest.policy_in
    assert policy is not None, subject.id
    return [("policy that answered", about_policy(policy["name"], policy["sha256"]))]
