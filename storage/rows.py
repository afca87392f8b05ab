"""Prompts, responses and pairs as table rows, and back, losing nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from csr.outcomes import Outcome
from csr.prompts import BadRecord
from csr.types import (
    FinishReason,
    GeneratedResponse,
    ImageRef,
    PreferencePair,
    Prompt,
    ScoredResponse,
)
from storage.tables import make_table

Row = dict[str, Any]


def prompts_to_table(prompts: Sequence[Prompt]) -> pa.Table:
    """The `prompts` table, in the given order."""
    return make_table(
        "prompts",
        [
            {
                "position": position,
                "prompt_id": prompt.prompt_id,
                "text": prompt.text,
                **image_row(prompt.image),
                "reference": prompt.reference,
                "dataset": prompt.dataset,
            }
            for position, prompt in enumerate(prompts)
        ],
    )


def prompts_from_table(table: pa.Table) -> list[Prompt]:
    """The prompts in their stored order."""
    return [prompt_of_row(row, row["text"]) for row in table.sort_by("position").to_pylist()]


def responses_to_table(
    responses: Sequence[ScoredResponse], *, iteration: int, policy: str
) -> pa.Table:
    """The `responses` table."""
    return make_table(
        "responses",
        [
            {
                "iteration": iteration,
                "prompt_id": response.prompt_id,
                "policy": policy,
                **_response_row("", response),
            }
            for response in responses
        ],
    )


def responses_from_table(table: pa.Table) -> list[ScoredResponse]:
    """The responses in stored order."""
    return [_response("", row) for row in table.to_pylist()]


def pairs_to_table(pairs: Sequence[PreferencePair], *, iteration: int, policy: str) -> pa.Table:
    """The `pairs` table, TRL's columns first. Images are paths, which readers decode lazily."""
    return make_table("pairs", [_pair_row(pair, iteration, policy) for pair in pairs])


def pairs_from_table(table: pa.Table) -> list[PreferencePair]:
    """The pairs in stored order."""
    return [_pair(row) for row in table.to_pylist()]


def generations_to_table(
    prompts: Sequence[Prompt],
    responses: Sequence[GeneratedResponse],
    *,
    iteration: int,
    benchmark: str,
    policy: str,
) -> pa.Table:
    """The `generations` table: one response for each prompt, in prompt order."""
    rows = []
    for prompt, response in zip(prompts, responses, strict=True):
        assert prompt.prompt_id == response.prompt_id, (prompt.prompt_id, response.prompt_id)
        row = {
            "iteration": iteration,
            "benchmark": benchmark,
            "prompt_id": prompt.prompt_id,
            "prompt_text": prompt.text,
            "image_uri": prompt.image.uri,
            "image_sha256": prompt.image.sha256,
            "text": response.text,
            "token_ids": list(response.token_ids),
            "token_logprobs": list(response.token_logprobs),
            "finish_reason": response.finish_reason.value,
            "policy": policy,
        }
        rows.append(row)
    return make_table("generations", rows)


def generations_from_table(table: pa.Table) -> list[GeneratedResponse]:
    """The responses in stored order."""
    return [
        GeneratedResponse(
            prompt_id=row["prompt_id"],
            text=row["text"],
            token_ids=tuple(row["token_ids"]),
            token_logprobs=tuple(row["token_logprobs"]),
            finish_reason=FinishReason(row["finish_reason"]),
        )
        for row in table.to_pylist()
    ]


def outcomes_to_table(outcomes: Sequence[Outcome], *, iteration: int, benchmark: str) -> pa.Table:
    """The `outcomes` table: each response's part in each figure."""
    rows = [
        {"iteration": iteration, "benchmark": benchmark, **dataclasses.asdict(outcome)}
        for outcome in outcomes
    ]
    return make_table("outcomes", rows)


def outcomes_from_table(table: pa.Table) -> list[Outcome]:
    """The outcomes in stored order."""
    names = [field.name for field in dataclasses.fields(Outcome)]
    return [Outcome(**row) for row in table.select(names).to_pylist()]


def quarantine_to_table(bad_records: Sequence[BadRecord]) -> pa.Table:
    """The `quarantine` table: records of the prompt file that were left out."""
    rows = [
        {
            "position": bad.position,
            "prompt_id": bad.prompt_id,
            "image_uri": bad.image,
            "reason": bad.reason.value,
            "message": bad.message,
        }
        for bad in bad_records
    ]
    return make_table("quarantine", rows)


def _response_row(prefix: str, response: ScoredResponse) -> Row:
    return {
        f"{prefix}response_id": response.response_id,
        f"{prefix}text": response.text,
        f"{prefix}token_ids": list(response.token_ids),
        f"{prefix}num_steps": response.num_steps,
        f"{prefix}num_tokens": response.num_tokens,
        f"{prefix}sum_logprob": response.sum_logprob,
        f"{prefix}reward": response.reward,
        f"{prefix}breakdown": parts_to_rows(response.breakdown),
        f"{prefix}finish_reason": response.finish_reason.value,
        f"{prefix}origin": response.origin,
    }


def _response(prefix: str, row: Row) -> ScoredResponse:
    return ScoredResponse(
        response_id=row[f"{prefix}response_id"],
        prompt_id=row["prompt_id"],
        text=row[f"{prefix}text"],
        token_ids=tuple(row[f"{prefix}token_ids"]),
        num_steps=row[f"{prefix}num_steps"],
        num_tokens=row[f"{prefix}num_tokens"],
        sum_logprob=row[f"{prefix}sum_logprob"],
        reward=row[f"{prefix}reward"],
        breakdown=parts_from_rows(row[f"{prefix}breakdown"]),
        finish_reason=FinishReason(row[f"{prefix}finish_reason"]),
        origin=row[f"{prefix}origin"],
    )


def _pair_row(pair: PreferencePair, iteration: int, policy: str) -> Row:
    prompt = pair.prompt
    assert pair.chosen.prompt_id == pair.rejected.prompt_id == prompt.prompt_id, pair.pair_id
    return {
        "images": [{"bytes": None, "path": prompt.image.uri}],
        "prompt": [{"role": "user", "content": prompt.text}],
        "chosen": [{"role": "assistant", "content": pair.chosen.text.strip()}],
        "rejected": [{"role": "assistant", "content": pair.rejected.text.strip()}],
        "iteration": iteration,
        "pair_id": pair.pair_id,
        "prompt_id": prompt.prompt_id,
        "prompt_text": prompt.text,
        **image_row(prompt.image),
        "reference": prompt.reference,
        "dataset": prompt.dataset,
        **_response_row("chosen_", pair.chosen),
        **_response_row("rejected_", pair.rejected),
        "margin": pair.margin,
        "source": pair.source,
        "policy": policy,
        **image_row(pair.rejected_image, "rejected_"),
    }


def _pair(row: Row) -> PreferencePair:
    return PreferencePair(
        pair_id=row["pair_id"],
        prompt=prompt_of_row(row, row["prompt_text"]),
        chosen=_response("chosen_", row),
        rejected=_response("rejected_", row),
        margin=row["margin"],
        source=row["source"],
        rejected_image=_image(row, "rejected_"),
    )


def image_row(image: ImageRef | None, prefix: str = "") -> Row:
    """The columns of an image; all null for none."""
    return {
        f"{prefix}image_uri": image.uri if image else None,
        f"{prefix}image_sha256": image.sha256 if image else None,
        f"{prefix}image_corruption": image.corruption if image else None,
    }


def _image(row: Row, prefix: str = "") -> ImageRef | None:
    if row[f"{prefix}image_uri"] is None:
        return None
    return ImageRef(
        uri=row[f"{prefix}image_uri"],
        sha256=row[f"{prefix}image_sha256"],
        corruption=row[f"{prefix}image_corruption"],
    )


def prompt_of_row(row: Row, text: str) -> Prompt:
    """The prompt that a row of any table holds."""
    image = _image(row)
    assert image is not None, row["prompt_id"]
    return Prompt(
        prompt_id=row["prompt_id"],
        text=text,
        image=image,
        reference=row["reference"],
        dataset=row["dataset"],
    )


def parts_to_rows(breakdown: Mapping[str, float]) -> list[Row]:
    """Sorted by name, so that equal breakdowns are equal rows."""
    return [{"name": name, "value": float(breakdown[name])} for name in sorted(breakdown)]


def parts_from_rows(parts: Sequence[Row]) -> dict[str, float]:
    """The breakdown that `parts_to_rows` stored."""
    return {part["name"]: part["value"] for part in parts}
