"""ILLUME: rationales that a critic accepts become what the policy imitates (arXiv:2208.08241).

The policy says several times why an answer holds, at several temperatures (section 3.2). A critic,
who may be a person, keeps the fitting ones (3.3); those of earlier iterations stay. The policy is
then tuned on them, and on plain answers so that answering is not forgotten (3.4).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from csr.annotations import AnnotationVerdict, Evidence, agreed_verdicts
from csr.config import ComponentConfig, Location
from csr.pairing import complete_responses
from csr.planning import ExpectedResponse, PlannedCall, PlannedWork
from csr.prompts import PromptCheck
from csr.protocols import (
    GenerateSettings,
    PreferenceSource,
    SourceTools,
    StepSettings,
    TrainingTable,
)
from csr.records import BadRecordError, prompt_id, read_entries, text_field
from csr.search import request_seed
from csr.sources._sampled import (
    WHOLE_RESPONSES,
    SampledResponse,
    pair_whole,
    planned_whole,
    tree_of_sampled,
)
from csr.types import (
    REPLAY,
    Demonstration,
    PairingResult,
    Prompt,
    ResponseTree,
    ScoredResponse,
    SkipReason,
    StepRequest,
)

_TEMPLATE = "{question} The answer: {answer} Why?"
RATIONALE, ANSWER = "rationale", "answer"
PAIRING_SETTINGS = ("replay_ratio", "rationale_weight", "makes", "max_length_difference")

Decision = AnnotationVerdict | SkipReason


class Config(ComponentConfig):
    """How rationales are sampled, and what is trained on beside the accepted ones."""

    answers: Location | None = None
    """JSONL file or JSON list: records with the prompts' `id` and a `reference`, the answer that
    is to be explained. None asks the prompts as they are, and trains on rationales alone."""
    rationale_prompt: str | None = None
    """What is asked: `{question}` is the prompt's text, `{answer}` its answer. None is "{question}
    The answer: {answer} Why?", and without answers the prompt as it is. (The paper's code: "Q:
    {question} A: {answer}, seeing that".)"""
    num_samples: int = Field(default=5, ge=1)
    """Rationales of each prompt at each temperature (README of the paper's code: 5)."""
    temperatures: tuple[float, ...] = Field(default=(0.3, 0.8), min_length=1)
    """README of the paper's code: 0.3 and 0.8."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Probability mass that is sampled from (the paper's code takes the likeliest 10 % of the
    vocabulary, whatever their mass)."""
    max_response_tokens: int = Field(default=100, ge=1)
    """Tokens of a rationale (the paper's code: 100)."""
    replay_ratio: float = Field(default=10.0, ge=0)
    """Plain answers of prompts without a rationale, for each accepted rationale, as far as the
    iteration's prompts go (a notebook of the paper's code: about 10)."""
    rationale_weight: float | None = Field(default=None, gt=0)
    """Of a rationale's loss against an answer's; None is replayed answers over rationales, as in
    the paper's code, or 1 where nothing is replayed."""
    makes: TrainingTable = "demonstrations"
    """`pairs` compares accepted with refused rationales instead; nothing is replayed then."""
    max_length_difference: float = Field(default=1.0, ge=0, le=1)
    """Of `pairs`: largest difference in tokens, over the longer rationale; 1 keeps every pair."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        template = self.template
        try:
            template.format(question="", answer="")
        except (IndexError, KeyError, ValueError) as error:
            raise ValueError(
                f"rationale_prompt cannot be filled in ({error!r}). It may hold {{question}} and "
                "{answer}; a brace that is meant is written twice."
            ) from None
        if "{answer}" in template and self.answers is None:
            raise ValueError(
                "rationale_prompt holds {answer}, and no `answers` file says what that is. Name "
                "one, or take {answer} out."
            )
        return self

    @property
    def template(self) -> str:
        """What is asked, with places for `{question}` and `{answer}`."""
        return self.rationale_prompt or (_TEMPLATE if self.answers else "{question}")


def build(config: Config) -> PreferenceSource:
    """The source. Its answers are read when they are needed."""
    return ILLUMESource(config)


def check_prompts(config: Config) -> PromptCheck:
    """Refuses prompts that have no answer in the answers' file. DataError where that is no use."""
    answers = _read_answers(Path(config.answers)) if config.answers else None

    def check(prompt: Prompt, image_size: tuple[int, int]) -> None:
        if answers is not None and prompt.prompt_id not in answers:
            raise BadRecordError(
                f"the answers in {config.answers} have none for it, so there is nothing to "
                "explain. Add its answer.",
                SkipReason.MISSING_REFERENCE,
            )

    return check


def planned_work(config: Config, expected: ExpectedResponse) -> PlannedWork:
    """Rationales at each temperature. What a critic accepts of them nobody knows before."""
    rationale = expected.cut(config.max_response_tokens)
    call = PlannedCall(
        name="rationales", num_candidates=config.num_samples, generated_tokens=rationale
    )
    num_sampled = config.num_samples * len(config.temperatures)
    return planned_whole(
        *[call] * len(config.temperatures),
        num_responses=num_sampled,
        response_tokens=rationale,
        max_lessons=1 if config.makes == "pairs" else num_sampled + (config.answers is not None),
        notes=(
            "The critic accepts every rationale, so training is an upper bound; accepted ones of "
            "earlier iterations come on top, and people's time is not counted.",
        ),
    )


class ILLUMESource:
    """Sampled rationales, judged by a critic. Implements `PreferenceSource`."""

    needs_critic = True

    def __init__(self, config: Config) -> None:
        self._config = config

    @property
    def makes(self) -> TrainingTable:
        """As configured."""
        return self._config.makes

    @property
    def step_settings(self) -> StepSettings | None:
        """Rationales are sampled whole, and no step is rewarded."""
        return None

    def generate(self, prompts: Sequence[Prompt], tools: SourceTools) -> list[ResponseTree]:
        """Trees of depth one: what was said of each prompt, each wording once."""
        config, asked = self._config, [self.asked(prompt) for prompt in prompts]
        said: list[list[SampledResponse]] = [[] for _ in prompts]
        for number, temperature in enumerate(config.temperatures):
            requests = [
                StepRequest(
                    prompt=prompt,
                    seed=request_seed(tools.seed, prompt.prompt_id, f"rationale {number}", sample),
                )
                for prompt in asked
                for sample in range(config.num_samples)
            ]
            settings = GenerateSettings(
                temperature=temperature,
                top_p=config.top_p,
                max_response_tokens=config.max_response_tokens,
            )
            responses = tools.sampler.generate(requests, settings)
            for place, response in enumerate(responses):
                sampled = SampledResponse(response=response, parts={"temperature": temperature})
                said[place // config.num_samples].append(sampled)
            done = (number + 1) * len(prompts) // len(config.temperatures)
            tools.progress(done, len(prompts))
        return [
            tree_of_sampled(prompt, responses, policy=tools.policy.name, origin="illume")
            for prompt, responses in zip(prompts, said, strict=True)
        ]

    def pair(self, trees: Sequence[ResponseTree], evidence: Evidence) -> PairingResult:
        """Demonstrations from what the critic accepts, now and earlier; or pairs."""
        decisions = agreed_verdicts(evidence.annotations)
        if self.makes == "pairs":
            rewarded = [_rewarded(tree, decisions) for tree in trees]
            return pair_whole(rewarded, self._config.max_length_difference)
        responses = [r for tree in trees for r, _ in complete_responses(tree, WHOLE_RESPONSES)]
        rationales = self._rationales(trees, responses, decisions, evidence.earlier)
        explained = {each.prompt.prompt_id for each in rationales}
        skipped: dict[str, int] = {}
        for tree in trees:
            if tree.prompt.prompt_id not in explained:
                reason = _why_none(tree, decisions).value
                skipped[reason] = skipped.get(reason, 0) + 1
        return PairingResult(
            pairs=(),
            responses=tuple(responses),
            skipped=skipped,
            demonstrations=tuple(self._with_answers(rationales, trees)),
        )

    # ------------------------------------------------------------ what is asked

    @cached_property
    def _answers(self) -> Mapping[str, str]:
        return _read_answers(Path(self._config.answers)) if self._config.answers else {}

    def asked(self, prompt: Prompt) -> Prompt:
        """The prompt with the answer that is to be explained."""
        answer = self._answers.get(prompt.prompt_id, "")
        text = self._config.template.format(question=prompt.text, answer=answer)
        return replace(prompt, text=text)

    # ------------------------------------------------------------ what is trained on

    def _rationales(
        self,
        trees: Sequence[ResponseTree],
        responses: Sequence[ScoredResponse],
        decisions: Mapping[str, Decision],
        earlier: Sequence[Demonstration],
    ) -> list[Demonstration]:
        """Accepted ones, each wording of a prompt once, those of earlier iterations last."""
        asked = {tree.prompt.prompt_id: self.asked(tree.prompt) for tree in trees}
        accepted = [
            _demonstration(asked[r.prompt_id], r.text, r.token_ids, RATIONALE)
            for r in responses
            if decisions.get(r.response_id) is AnnotationVerdict.ACCEPT
        ]
        accepted += [each for each in earlier if each.kind == RATIONALE]
        first: dict[str, Demonstration] = {}
        for each in accepted:
            first.setdefault(each.demonstration_id, each)
        return list(first.values())

    def _with_answers(
        self, rationales: Sequence[Demonstration], trees: Sequence[ResponseTree]
    ) -> list[Demonstration]:
        """The rationales, weighted, then their prompts' answers, then replayed ones."""
        explained = {each.prompt.prompt_id for each in rationales}
        mine = [tree.prompt for tree in trees if tree.prompt.prompt_id in self._answers]
        spare = sorted((p for p in mine if p.prompt_id not in explained), key=_lot)
        replayed = spare[: math.floor(self._config.replay_ratio * len(rationales))]
        weight = self._config.rationale_weight or len(replayed) / max(len(rationales), 1) or 1.0
        answers = [(p, ANSWER) for p in mine if p.prompt_id in explained]
        answers += [(p, REPLAY) for p in replayed]
        return [replace(each, weight=weight) for each in rationales] + [
            _demonstration(p, self._answers[p.prompt_id], None, kind) for p, kind in answers
        ]


def _read_answers(path: Path) -> dict[str, str]:
    answers = {}
    for entry in read_entries(path):
        record = entry.record()
        answers[prompt_id(record, entry.where)] = text_field(record, "reference", entry.where)
    return answers


def _why_none(tree: ResponseTree, decisions: Mapping[str, Decision]) -> SkipReason:
    """Why a prompt has no rationale: the first cause that, taken away, might have given one."""
    judged = [decisions.get(node.node_id, SkipReason.NO_VERDICT) for node in tree.finished()]
    if not judged:
        return SkipReason.UNFINISHED if tree.nodes else SkipReason.TOO_FEW_RESPONSES
    for reason in (SkipReason.DISPUTED, SkipReason.NO_VERDICT):
        if reason in judged:
            return reason
    return SkipReason.REFUSED


def _rewarded(tree: ResponseTree, decisions: Mapping[str, Decision]) -> ResponseTree:
    """The tree's judged responses: 1 for accepted ones, 0 for refused ones."""
    values: dict[Decision | None, float] = {
        AnnotationVerdict.ACCEPT: 1.0,
        AnnotationVerdict.REFUSE: 0.0,
    }
    nodes = tuple(
        replace(node, score=replace(node.score, reward=values[verdict]))
        for node in tree.nodes
        if (verdict := decisions.get(node.node_id)) in values
    )
    return replace(tree, nodes=nodes)


def _demonstration(
    prompt: Prompt, text: str, token_ids: tuple[int, ...] | None, kind: str
) -> Demonstration:
    """Named by what it says: the same again, in a later iteration, is the same demonstration."""
    said = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Demonstration(
        demonstration_id=f"{prompt.prompt_id}/{kind}/{said}",
        prompt=prompt,
        text=text,
        token_ids=token_ids,
        weight=1.0,
        kind=kind,
        source="illume",
    )


def _lot(prompt: Prompt) -> str:
    return hashlib.sha256(f"replay\x1f{prompt.prompt_id}".encode()).hexdigest()
