"""Annotations and demonstrations as table rows, and back, losing nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from csr.annotations import Annotation, AnnotationVerdict
from csr.types import Demonstration
from storage.rows import Row, image_row, prompt_of_row
from storage.tables import make_table


def annotations_to_table(annotations: Sequence[Annotation], *, iteration: int) -> pa.Table:
    """The `annotations` table."""
    rows = [
        {
            "iteration": iteration,
            "prompt_id": each.prompt_id,
            "response_id": each.response_id,
            "annotator": each.annotator,
            "verdict": each.verdict.value,
            "score": each.score,
            "created_at": each.created_at,
        }
        for each in annotations
    ]
    return make_table("annotations", rows)


def annotations_from_table(table: pa.Table) -> list[Annotation]:
    """The annotations in stored order."""
    return [
        Annotation(
            response_id=row["response_id"],
            prompt_id=row["prompt_id"],
            verdict=AnnotationVerdict(row["verdict"]),
            annotator=row["annotator"],
            created_at=row["created_at"],
            score=row["score"],
        )
        for row in table.to_pylist()
    ]


def demonstrations_to_table(demonstrations: Sequence[Demonstration], *, iteration: int) -> pa.Table:
    """The `demonstrations` table, TRL's columns first."""
    return make_table("demonstrations", [_demonstration_row(d, iteration) for d in demonstrations])


def demonstrations_from_table(table: pa.Table) -> list[Demonstration]:
    """The demonstrations in stored order."""
    return [
        Demonstration(
            demonstration_id=row["demonstration_id"],
            prompt=prompt_of_row(row, row["prompt_text"]),
            text=row["text"],
            token_ids=None if row["token_ids"] is None else tuple(row["token_ids"]),
            weight=row["weight"],
            kind=row["kind"],
            source=row["source"],
        )
        for row in table.to_pylist()
    ]


def _demonstration_row(demonstration: Demonstration, iteration: int) -> Row:
    prompt, ids = demonstration.prompt, demonstration.token_ids
    return {
        "images": [{"bytes": None, "path": prompt.image.uri}],
        "prompt": [{"role": "user", "content": prompt.text}],
        "completion": [{"role": "assistant", "content": demonstration.text.strip()}],
        "iteration": iteration,
        "demonstration_id": demonstration.demonstration_id,
        "prompt_id": prompt.prompt_id,
        "prompt_text": prompt.text,
        **image_row(prompt.image),
        "reference": prompt.reference,
        "dataset": prompt.dataset,
        "text": demonstration.text,
        "token_ids": None if ids is None else list(ids),
        "weight": demonstration.weight,
        "kind": demonstration.kind,
        "source": demonstration.source,
    }
