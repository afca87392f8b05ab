"""Rewrites of a reference by the policy itself: what it is told, and which answers count.

The kinds of error are POVID's (arXiv:2402.11411, section 3.1), in our own words. The answer is JSON
with the new text and a list of what was changed. An answer that was cut, that changes too much
or too little, or that lists no or too many changes, is junk.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from pydantic import Field, ValidationError, model_validator

from csr.config import ComponentConfig
from csr.errors import DataError
from csr.protocols import GenerateSettings, Sampler, SourceTools
from csr.search import request_seed
from csr.sources._templates import check_template
from csr.types import FinishReason, GeneratedResponse, Prompt, StepRequest

INSTRUCTION = """\
Below is a correct description of the image. Write it again with one to three mistakes in it that \
contradict the image. Mistakes are of these kinds:

1. Absent object: name a thing that often stands beside those in the image, and is not there.
2. Wrong relation: say otherwise where things are, or what they do to each other.
3. Wrong attribute: say otherwise what colour, number, shape or size a thing has.

Change only the words that a mistake needs. Keep every other word, the order of the sentences and \
the length. A reader who does not see the image must find nothing odd.

Answer in JSON: "rewritten" is the whole new description, "edits" lists each mistake in a few words.

Description: {reference}
"""
SLOTS = ("reference",)


class PolicyRewriteSettings(ComponentConfig):
    """How the policy writes rewrites, and which of them count."""

    instruction: str = INSTRUCTION
    """What the policy is told beside the image, with `{reference}`."""
    temperature: float = Field(default=0.8, gt=0)
    """Above 0, so that another try is another rewrite."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Probability mass that is sampled from."""
    max_rewrite_tokens: int = Field(default=1024, ge=1)
    """Tokens of the whole JSON answer."""
    max_edits: int = Field(default=3, ge=1)
    """Most mistakes that an answer may list; at least one."""
    min_edit_ratio: float = Field(default=0.03, ge=0, le=1)
    """Words that change over the reference's words, at least."""
    max_edit_ratio: float = Field(default=0.25, ge=0, le=1)
    """Words that change over the reference's words, at most."""
    max_word_difference: float = Field(default=0.15, ge=0, le=1)
    """Largest difference in words over the reference's words."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_template("instruction", self.instruction, SLOTS)
        if self.min_edit_ratio > self.max_edit_ratio:
            raise ValueError(
                f"min_edit_ratio ({self.min_edit_ratio}) is above max_edit_ratio "
                f"({self.max_edit_ratio}), so no rewrite could pass. Lower the first."
            )
        return self


class _Answer(ComponentConfig):
    """What the policy answers."""

    rewritten: str
    edits: tuple[str, ...]


SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "rewritten": {"type": "string"},
            "edits": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["rewritten", "edits"],
        "additionalProperties": False,
    }
)
"""`_Answer` as a JSON schema. The edits have no bounds here: an answer that lists too many shall
be seen as such."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRewrite:
    """A reference's text with some things said otherwise."""

    text: str
    edits: tuple[str, ...]
    """Each mistake in the policy's own words."""


def has_room(prompt: Prompt, reference: str, sampler: Sampler, instruction: str) -> bool:
    """Whether the instruction fits into the context, with a text as long as the reference."""
    try:
        room = sampler.room(_asked(prompt, reference, instruction))
    except DataError:  # the reference holds what stands for an image in this model
        return False
    return room >= len(sampler.encode(prompt, reference))


def write_rewrites(
    prompts: Sequence[Prompt],
    references: Sequence[str],
    number: int,
    tools: SourceTools,
    settings: PolicyRewriteSettings,
) -> list[PolicyRewrite | None]:
    """Try `number` of each reference's rewrite, the image shown, in one batch; None is junk."""
    requests = [
        StepRequest(
            prompt=_asked(prompt, reference, settings.instruction),
            seed=request_seed(tools.seed, prompt.prompt_id, "rewrite", number),
        )
        for prompt, reference in zip(prompts, references, strict=True)
    ]
    answers = tools.sampler.generate(
        requests,
        GenerateSettings(
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_response_tokens=settings.max_rewrite_tokens,
            json_schema=SCHEMA,
        ),
    )
    found = []
    for prompt, reference, answer in zip(prompts, references, answers, strict=True):
        new = accepted(reference, answer, settings)
        found.append(new if new and _can_be_said(prompt, new.text, tools.sampler) else None)
    return found


def accepted(
    reference: str, answer: GeneratedResponse, settings: PolicyRewriteSettings
) -> PolicyRewrite | None:
    """The rewrite in the answer, if it is whole and changes neither too much nor too little."""
    if answer.finish_reason is not FinishReason.EOS:
        return None
    try:
        parsed = _Answer.model_validate_json(answer.text)
    except ValidationError:
        return None
    text = parsed.rewritten.strip()
    edits = tuple(edit.strip() for edit in parsed.edits if edit.strip())
    old, new = reference.split(), text.split()
    if not 1 <= len(edits) <= settings.max_edits or not new or new == old:
        return None
    ratio = word_edits(old, new) / max(len(old), 1)
    difference = abs(len(new) - len(old)) / max(len(old), 1)
    if not settings.min_edit_ratio <= ratio <= settings.max_edit_ratio:
        return None
    if difference > settings.max_word_difference:
        return None
    return PolicyRewrite(text=text, edits=edits)


def word_edits(before: Sequence[str], after: Sequence[str]) -> int:
    """Fewest words to put in, take out or exchange (Levenshtein's distance).

    Example: "a red circle" and "a blue circle here" are two apart.
    """
    row = list(range(len(after) + 1))
    for number, old in enumerate(before, start=1):
        above, row = row, [number]
        for place, new in enumerate(after, start=1):
            exchanged = above[place - 1] + (old != new)
            row.append(min(above[place] + 1, row[-1] + 1, exchanged))
    return row[-1]


def _asked(prompt: Prompt, reference: str, instruction: str) -> Prompt:
    return replace(prompt, text=instruction.format(reference=reference))


def _can_be_said(prompt: Prompt, text: str, sampler: Sampler) -> bool:
    """Whether the text may stand as a response, which one that spells an image marker, or that
    holds a word without end, may not.
    """
    try:
        return len(sampler.encode(prompt, text)) < sampler.room(prompt)
    except DataError:
        return False
