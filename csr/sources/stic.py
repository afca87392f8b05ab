"""STIC: self-training on image comprehension (arXiv:2405.19716).

Stage `preference` (section 4.1): the policy's response to a careful prompt is preferred to its
response to a misleading one, or to a corrupted image. Both are trained on as responses to the run's
own plain prompt and the clean image. The released code never corrupts an image; here it is done.

Stage `description` (4.2): answers to questions, each with the policy's own description of the image
before the question, are imitated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from csr.annotations import Evidence
from csr.config import ComponentConfig, Probability
from csr.corruptions import check_corruption
from csr.descriptions import can_be_asked, infused
from csr.pairing import complete_responses
from csr.planning import ExpectedResponse, PlannedCall, PlannedWork, scoring_call, text_tokens
from csr.prompts import PromptCheck
from csr.protocols import (
    GenerateSettings,
    PreferenceSource,
    SourceTools,
    StepSettings,
    TrainingTable,
)
from csr.records import BadRecordError
from csr.search import request_seed
from csr.sources._comprehension_prompts import BAD_PROMPTS, GOOD_PROMPT
from csr.sources._sampled import (
    WHOLE_RESPONSES,
    SampledResponse,
    pair_whole,
    planned_whole,
    tree_of_sampled,
)
from csr.types import (
    Demonstration,
    FinishReason,
    GeneratedResponse,
    PairingResult,
    Prompt,
    ResponseTree,
    SkipReason,
    StepRequest,
)

PAIRING_SETTINGS = ("max_length_difference",)


class Config(ComponentConfig):
    """Which stage, and what is asked in it."""

    stage: Literal["preference", "description"] = "preference"
    """`preference` makes pairs; `description` makes demonstrations from prompts with references."""
    temperature: float = Field(default=0.2, ge=0)
    """Of all responses (the paper's code: 0.2)."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Probability mass that is sampled from."""
    max_response_tokens: int = Field(default=512, ge=1)
    """Tokens of a response, or of a description."""
    good_prompt: str = GOOD_PROMPT
    """Asks for the preferred response (the paper's is a long step-by-step prompt)."""
    bad_prompts: tuple[str, ...] = Field(default=BAD_PROMPTS, min_length=1)
    """Ask for dispreferred responses; the paper has eight, of imagined or absent objects."""
    bad_prompt_share: Probability = 0.5
    """Of the prompts; the others' dispreferred response sees a corrupted image (paper: half)."""
    corruptions: tuple[str, ...] = Field(
        default=("resize:20", "colour_jitter:0.5:0.3"), min_length=1
    )
    """Of those images, each as often (the paper's code: 20 pixels; brightness 0.5, hue 0.3)."""
    max_length_difference: float = Field(default=1.0, ge=0, le=1)
    """Largest difference of a pair in tokens, over the longer response; 1 keeps every pair."""
    description_prompts: tuple[str, ...] = Field(
        default=("Describe the image.", "What does the image show?"), min_length=1
    )
    """Ask for the description of the second stage; one is drawn for each prompt."""

    @field_validator("corruptions")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            check_corruption(name)
        return names

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.good_prompt in self.bad_prompts:
            raise ValueError("good_prompt is among the bad_prompts: both sides would be the same.")
        return self


def build(config: Config) -> PreferenceSource:
    """The source of the configured stage."""
    return PreferenceStage(config) if config.stage == "preference" else DescriptionStage(config)


def check_prompts(config: Config) -> PromptCheck:
    """The description stage refuses prompts without a reference: there is nothing to imitate."""

    def check(prompt: Prompt, image_size: tuple[int, int]) -> None:
        if config.stage == "description" and prompt.reference is None:
            raise BadRecordError(
                "it has no reference, which STIC's second stage imitates. Add a `reference`.",
                SkipReason.MISSING_REFERENCE,
            )

    return check


def planned_work(config: Config, expected: ExpectedResponse) -> PlannedWork:
    """Two responses, scored behind the plain prompt; or a description."""
    response = expected.cut(config.max_response_tokens)

    def asked(name: str, questions: Sequence[str], share: float = 1.0) -> PlannedCall:
        tokens = sum(map(text_tokens, questions)) / len(questions)
        return PlannedCall(
            name=name, num_contexts=share, num_questions=share, question_tokens=tokens,
            generated_tokens=response, shared="image",
        )  # fmt: skip

    if config.stage == "description":
        describing = asked("description", config.description_prompts)
        note = "References are as long as responses; a lesson's prompt holds the description."
        return planned_whole(
            describing, num_responses=1, response_tokens=response, lesson_extra_tokens=response,
            notes=(note,),
        )  # fmt: skip
    share = config.bad_prompt_share
    careful = asked("careful", [config.good_prompt])
    misled = asked("misled", config.bad_prompts, share)
    corrupted = PlannedCall(
        name="corrupted image", num_contexts=1 - share, num_questions=1 - share,
        generated_tokens=response, shared="nothing",
    )  # fmt: skip
    score = scoring_call("score", 1, response, shared="image")
    return planned_whole(
        careful, score, misled, corrupted, score, num_responses=2, response_tokens=response,
        notes=("All responses differ.",),
    )  # fmt: skip


class PreferenceStage:
    """A careful response against a misled one. Implements `PreferenceSource`."""

    makes: TrainingTable = "pairs"
    needs_critic = False
    step_settings: StepSettings | None = None
    """Responses are sampled whole, and no step is rewarded."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def generate(self, prompts: Sequence[Prompt], tools: SourceTools) -> list[ResponseTree]:
        """Trees of depth one: the preferred response, and the other where it differs.

        Log-probabilities are those of the plain prompt and the clean image.
        """
        careful = [replace(prompt, text=self._config.good_prompt) for prompt in prompts]
        misled = [self.misled(prompt, tools.seed) for prompt in prompts]
        good = self._responses(careful, prompts, tools)
        tools.progress(len(prompts) // 2, len(prompts))
        bad = self._responses(misled, prompts, tools)
        tools.progress(len(prompts), len(prompts))
        return [
            tree_of_sampled(
                prompt,
                [
                    SampledResponse(response=preferred, reward=1.0),
                    SampledResponse(
                        response=other,
                        parts={"corrupted": float(asked.image.corruption is not None)},
                    ),
                ],
                policy=tools.policy.name,
                origin="stic",
            )
            for prompt, asked, preferred, other in zip(prompts, misled, good, bad, strict=True)
        ]

    def pair(self, trees: Sequence[ResponseTree], evidence: Evidence) -> PairingResult:
        """The careful response against the misled one."""
        told = [tree for tree in trees if len(tree.nodes) > 1]
        result = pair_whole(told, self._config.max_length_difference)
        if len(told) == len(trees):
            return result
        equal = {SkipReason.EQUAL_TEXT.value: len(trees) - len(told)}
        return replace(result, skipped=result.skipped | equal)

    def misled(self, prompt: Prompt, seed: int) -> Prompt:
        """What the dispreferred response is sampled from: another prompt or another image."""
        if _share(seed, prompt, "which side") < self._config.bad_prompt_share:
            text = _drawn(self._config.bad_prompts, seed, prompt, "bad prompt")
            return replace(prompt, text=text)
        name = _drawn(self._config.corruptions, seed, prompt, "corruption")
        return replace(prompt, image=replace(prompt.image, corruption=name))

    def _responses(
        self, asked: Sequence[Prompt], plain: Sequence[Prompt], tools: SourceTools
    ) -> list[GeneratedResponse]:
        """Sampled from what is asked, scored as responses to the plain prompts.

        One that does not fit behind its plain prompt, which may be the longer, counts as cut.
        """
        responses = _respond(asked, tools, self._config)
        fits = [
            len(response.token_ids) < tools.sampler.room(prompt)
            for response, prompt in zip(responses, plain, strict=True)
        ]
        prompts = [prompt for prompt, fit in zip(plain, fits, strict=True) if fit]
        token_ids = [r.token_ids for r, fit in zip(responses, fits, strict=True) if fit]
        logprobs = iter(tools.sampler.score(prompts, token_ids))
        return [
            replace(response, token_logprobs=next(logprobs))
            if fit
            else replace(response, finish_reason=FinishReason.LENGTH)
            for response, fit in zip(responses, fits, strict=True)
        ]


class DescriptionStage:
    """Answers with a description before the question. Implements `PreferenceSource`."""

    makes: TrainingTable = "demonstrations"
    needs_critic = False
    step_settings: StepSettings | None = None
    """Descriptions are sampled whole, and no step is rewarded."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def generate(self, prompts: Sequence[Prompt], tools: SourceTools) -> list[ResponseTree]:
        """Trees of depth one: the description of each prompt's image."""
        questions = self._config.description_prompts
        asked = [replace(p, text=_drawn(questions, tools.seed, p, "question")) for p in prompts]
        responses = _respond(asked, tools, self._config)
        tools.progress(len(prompts), len(prompts))
        return [
            tree_of_sampled(
                prompt,
                [
                    SampledResponse(
                        response=response,
                        parts={
                            "usable": float(
                                can_be_asked(infused(prompt, response.text), tools.sampler)
                            )
                        },
                    )
                ],
                policy=tools.policy.name,
                origin="stic",
            )
            for prompt, response in zip(prompts, responses, strict=True)
        ]

    def pair(self, trees: Sequence[ResponseTree], evidence: Evidence) -> PairingResult:
        """The references, to be imitated with the descriptions before their questions.

        A description that was cut, says nothing, or cannot stand before its question, is not used.
        """
        said = [(t, r) for t in trees for r, _ in complete_responses(t, WHOLE_RESPONSES)]
        useful = [
            (t, r)
            for t, r in said
            if r.text and r.finish_reason is FinishReason.EOS and r.breakdown["usable"]
        ]
        num_lost = len(trees) - len(useful)
        return PairingResult(
            pairs=(),
            responses=tuple(response for _, response in said),
            skipped={SkipReason.UNFINISHED.value: num_lost} if num_lost else {},
            demonstrations=tuple(_demonstration(t.prompt, r.text) for t, r in useful),
        )


def _demonstration(prompt: Prompt, description: str) -> Demonstration:
    assert prompt.reference is not None, "check_prompts lets no other pass"
    return Demonstration(
        demonstration_id=f"{prompt.prompt_id}/infused",
        prompt=infused(prompt, description),
        text=prompt.reference,
        token_ids=None,
        weight=1.0,
        kind="infused",
        source="stic",
    )


def _respond(
    prompts: Sequence[Prompt], tools: SourceTools, config: Config
) -> list[GeneratedResponse]:
    requests = [
        StepRequest(prompt=p, seed=request_seed(tools.seed, p.prompt_id, f"stic {p.text}", 0))
        for p in prompts
    ]
    settings = GenerateSettings(
        temperature=config.temperature,
        top_p=config.top_p,
        max_response_tokens=config.max_response_tokens,
    )
    return tools.sampler.generate(requests, settings)


def _share(seed: int, prompt: Prompt, what: str) -> float:
    """A number in [0, 1) that belongs to this prompt and draw alone."""
    digest = hashlib.sha256(f"{seed}\x1f{prompt.prompt_id}\x1f{what}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _drawn(choices: Sequence[str], seed: int, prompt: Prompt, what: str) -> str:
    return choices[int(_share(seed, prompt, what) * len(choices))]
