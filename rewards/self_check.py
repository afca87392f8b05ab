"""Whether the policy itself, asked about a sentence alone, says that the image shows it.

Each sentence is one claim, put to the policy as a yes-or-no question about the same image. The
value is the probability of "yes" among "yes" and "no": the claim check of RLAIF-V
(arXiv:2405.17220), with the sentence in place of an extracted claim and the policy in
place of a second model. A policy that says "yes" to everything has that habit taken off it where a
content-free input is set (arXiv:2403.05262, post-hoc debias).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field, field_validator

from csr.config import ComponentConfig
from csr.label_calibration import (
    ContentFree,
    calibrated,
    content_free_prompts,
    label_logprobs,
    probabilities,
    summed,
    surface_forms,
)
from csr.protocols import Sampler
from csr.types import LabelQuery, Prompt
from rewards.raw import Step

_FORMS = (surface_forms("yes"), surface_forms("no"))
_CLAIM = "{claim}"
_MARKERS = str.maketrans("", "", "<>[]")


class Config(ComponentConfig):
    """How a sentence is put to the policy."""

    template: str = Field(
        default=f"{_CLAIM}\nIs this statement about the image true? Answer yes or no."
    )
    """The question; `{claim}` is where the sentence stands."""
    content_free: ContentFree | None = None
    """What shows the habit that the answer is calibrated by (see `csr.label_calibration`); null
    takes the answer as it is, and costs half as much or less."""

    @field_validator("template")
    @classmethod
    def _check_template(cls, template: str) -> str:
        if template.count(_CLAIM) != 1:
            raise ValueError(
                f"must hold {_CLAIM} exactly once, where the sentence stands; it holds it "
                f"{template.count(_CLAIM)} times"
            )
        return template


def self_check(steps: Sequence[Step], sampler: Sampler, config: Config) -> list[float]:
    """Probability in [0, 1] of "yes" to each step's sentence. At most two `score` calls in all.

    Sentences that stand under one image more than once are asked once. `sampler` speaks for the
    policy that is asked.
    """
    asked = [_question(step, config.template) for step in steps]
    distinct = list(dict.fromkeys(asked))
    views = [_views(prompt, config.content_free) for prompt in distinct]
    answers = iter(label_logprobs([query for each in views for query in each], sampler))
    found = {
        prompt: _yes([probabilities(next(answers)) for _ in queries])
        for prompt, queries in zip(distinct, views, strict=True)
    }
    return [found[prompt] for prompt in asked]


def _question(step: Step, template: str) -> Prompt:
    """Without the brackets that a model's image marker is spelled with: it would be refused."""
    claim = step.text.translate(_MARKERS)
    return replace(step.group.prompt, text=template.replace(_CLAIM, claim))


def _views(prompt: Prompt, content_free: ContentFree | None) -> list[LabelQuery]:
    free = content_free_prompts(prompt, content_free) if content_free else []
    return [
        LabelQuery(prompt=asked, forms=_FORMS, with_image=with_image)
        for asked, with_image in [(prompt, True), *free]
    ]


def _yes(views: Sequence[Sequence[float]]) -> float:
    seeing, *free = views
    return calibrated(seeing, summed(free))[0] if free else seeing[0]
