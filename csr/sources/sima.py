"""SIMA: the policy judges its own two responses by the reference (arXiv:2405.15973).

A greedy and a sampled response of each prompt (section 3.1) are shown to the policy itself, with
the reference and three visual metrics (3.2), and the one it prefers is chosen (3.3). The released
code always shows the sampled one first; here both orders are judged, and only verdicts that agree
make a pair.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from csr.annotations import Evidence
from csr.config import ComponentConfig
from csr.descriptions import can_be_asked
from csr.pairing import complete_responses
from csr.planning import ExpectedResponse, PlannedCall, PlannedWork, scoring_call, text_tokens
from csr.prompts import PromptCheck
from csr.protocols import (
    GenerateSettings,
    PreferenceSource,
    Sampler,
    SourceTools,
    StepSettings,
    TrainingTable,
)
from csr.records import BadRecordError
from csr.search import request_seed
from csr.sources._critic_prompt import CRITIC_TEMPLATE, OPTIONAL_SLOTS, SLOTS
from csr.sources._sampled import (
    WHOLE_RESPONSES,
    SampledResponse,
    pair_whole,
    planned_whole,
    tree_of_sampled,
)
from csr.sources._templates import check_template
from csr.types import (
    GeneratedResponse,
    PairingResult,
    Prompt,
    ResponseTree,
    SkipReason,
    StepRequest,
)

NUM_ORDERS = 2
PAIRING_SETTINGS = ("max_length_difference",)
_VERDICT = re.compile(r"\[\[(.*?)\]\]", re.DOTALL)


class Config(ComponentConfig):
    """How responses are sampled and judged."""

    temperature: float = Field(default=0.8, gt=0)
    """Of the sampled response (the paper's code: 0.8)."""
    top_p: float = Field(default=0.9, gt=0, le=1)
    """Of the sampled response (the paper's code: 0.9)."""
    max_response_tokens: int = Field(default=1024, ge=1)
    """Tokens of a response (the paper's code: 1024)."""
    critic_template: str = CRITIC_TEMPLATE
    """What the critic is asked, with `{reference}`, `{response_1}` and `{response_2}`, and with
    `{question}` where prompts differ."""
    verdict: Literal["written", "likelier"] = "written"
    """`written`: the critic writes greedily, and the last `[[1]]` or `[[2]]` counts, as in the
    paper. `likelier`: the response whose label is likelier to begin the critic's answer, by the
    mean log-odds of both orders, in which a liking for one place cancels; never malformed."""
    max_verdict_tokens: int = Field(default=256, ge=1)
    """Tokens of a written verdict (the paper's code: 4096, as many as its model's context)."""
    max_length_difference: float = Field(default=1.0, ge=0, le=1)
    """Largest difference of a pair in tokens, over the longer response; 1 keeps every pair."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_template("critic_template", self.critic_template, SLOTS, optional=OPTIONAL_SLOTS)
        return self


def build(config: Config) -> PreferenceSource:
    """The source."""
    return SIMASource(config)


def check_prompts(config: Config) -> PromptCheck:
    """Refuses prompts without a reference: the critic compares with it."""

    def check(prompt: Prompt, image_size: tuple[int, int]) -> None:
        if prompt.reference is None:
            raise BadRecordError(
                "it has no reference, with which SIMA's critic compares. Add a `reference`.",
                SkipReason.MISSING_REFERENCE,
            )

    return check


def planned_work(config: Config, expected: ExpectedResponse) -> PlannedWork:
    """A greedy and a sampled response, and the critic's two verdicts on them."""
    response = expected.cut(config.max_response_tokens)
    critic: dict[str, Any] = {
        "question_tokens": text_tokens(config.critic_template) + 3 * response,
        "num_questions": NUM_ORDERS,
        "shared": "image",
    }
    if config.verdict == "written":
        judged = PlannedCall(
            name="critic",
            num_contexts=NUM_ORDERS,
            generated_tokens=config.max_verdict_tokens,
            **critic,
        )
    else:
        judged = scoring_call("critic", 2 * NUM_ORDERS, text_tokens("[[1]]") + 1, **critic)
    return planned_whole(
        PlannedCall(name="greedy", generated_tokens=response),
        PlannedCall(name="sampled", generated_tokens=response),
        judged,
        num_responses=2,
        response_tokens=response,
        notes=(
            "References are as long as responses, all responses differ, and both orders agree.",
            "A written verdict takes all of max_verdict_tokens.",
        ),
    )


@dataclass(slots=True)
class _Contest:
    """A prompt's two responses on their way to a verdict. Index 0 is the greedy one."""

    prompt: Prompt
    responses: tuple[GeneratedResponse, GeneratedResponse]
    verdicts: list[int | None]
    """For each order the index of the preferred response; None is malformed."""
    asked: bool = False
    """Whether both orders fitted into the critic's context."""

    @property
    def is_open(self) -> bool:
        """Whether there is anything to decide."""
        return self.responses[0].text.strip() != self.responses[1].text.strip()


class SIMASource:
    """Greedy against sampled, judged by the policy itself. Implements `PreferenceSource`."""

    makes: TrainingTable = "pairs"
    needs_critic = False

    def __init__(self, config: Config) -> None:
        self._config = config

    @property
    def step_settings(self) -> StepSettings | None:
        """Responses are sampled whole, and no step is rewarded."""
        return None

    def generate(self, prompts: Sequence[Prompt], tools: SourceTools) -> list[ResponseTree]:
        """Trees of depth one: the greedy response, and the sampled one where it differs.

        The reward of a response is the number of orders in which it was preferred.
        """
        greedy = self._respond(prompts, tools, 0.0)
        tools.progress(len(prompts) // 3, len(prompts))
        sampled = self._respond(prompts, tools, self._config.temperature)
        tools.progress(2 * len(prompts) // 3, len(prompts))
        contests = [
            _Contest(prompt, pair, [])
            for prompt, pair in zip(prompts, zip(greedy, sampled, strict=True), strict=True)
        ]
        self._judge(contests, tools.sampler)
        tools.progress(len(prompts), len(prompts))
        return [_tree(contest, tools.policy.name) for contest in contests]

    def pair(self, trees: Sequence[ResponseTree], evidence: Evidence) -> PairingResult:
        """The response that both orders prefer against the other."""
        reasons = {tree.prompt.prompt_id: _refusal(tree) for tree in trees}
        judged = [tree for tree in trees if reasons[tree.prompt.prompt_id] is None]
        result = pair_whole(judged, self._config.max_length_difference)
        refused = [tree for tree in trees if reasons[tree.prompt.prompt_id] is not None]
        skipped = Counter(result.skipped)
        skipped.update(reason.value for reason in reasons.values() if reason is not None)
        others = [r for tree in refused for r, _ in complete_responses(tree, WHOLE_RESPONSES)]
        return replace(
            result,
            responses=(*result.responses, *others),
            skipped=dict(skipped),
            figures=_critic_figures(trees),
        )

    def _respond(
        self, prompts: Sequence[Prompt], tools: SourceTools, temperature: float
    ) -> list[GeneratedResponse]:
        requests = [
            StepRequest(prompt=p, seed=request_seed(tools.seed, p.prompt_id, "sima", 0))
            for p in prompts
        ]
        settings = GenerateSettings(
            temperature=temperature,
            top_p=self._config.top_p if temperature else 1.0,
            max_response_tokens=self._config.max_response_tokens,
        )
        return tools.sampler.generate(requests, settings)

    # ------------------------------------------------------------ the critic

    def _judge(self, contests: Sequence[_Contest], sampler: Sampler) -> None:
        """Ask for every open contest in both orders, all in one batch."""
        prompts: list[Prompt] = []
        for contest in contests:
            orders = [self._critic_prompt(contest, swapped=swapped) for swapped in (False, True)]
            contest.asked = contest.is_open and all(
                can_be_asked(prompt, sampler) for prompt in orders
            )
            prompts += orders if contest.asked else []
        asked = [contest for contest in contests if contest.asked]
        if not asked:
            return
        judge = self._written if self._config.verdict == "written" else _likelier
        for contest, verdicts in zip(asked, judge(prompts, sampler), strict=True):
            contest.verdicts = verdicts

    def _critic_prompt(self, contest: _Contest, *, swapped: bool) -> Prompt:
        texts = [response.text.strip() for response in contest.responses]
        first, second = reversed(texts) if swapped else texts
        values = (contest.prompt.text, contest.prompt.reference or "", first, second)
        filled = self._config.critic_template.format(**dict(zip(SLOTS, values, strict=True)))
        return replace(contest.prompt, text=filled)

    def _written(self, prompts: Sequence[Prompt], sampler: Sampler) -> list[list[int | None]]:
        """For each contest, whose two orders follow each other, the verdict of each order."""
        settings = GenerateSettings(
            temperature=0.0, top_p=1.0, max_response_tokens=self._config.max_verdict_tokens
        )
        answers = sampler.generate([StepRequest(prompt=p) for p in prompts], settings)
        places = [parse_verdict(answer.text) for answer in answers]
        return [
            [first, None if second is None else 1 - second]
            for first, second in zip(places[::2], places[1::2], strict=True)
        ]


def parse_verdict(text: str) -> int | None:
    """0 for a last `[[1]]`, 1 for a last `[[2]]`; None for anything else."""
    found = _VERDICT.findall(text)
    return {"1": 0, "2": 1}.get(found[-1].strip()) if found else None


def _likelier(prompts: Sequence[Prompt], sampler: Sampler) -> list[list[int | None]]:
    """For each contest the same verdict twice, but for a tie."""
    labels = [sampler.encode(prompt, f"[[{n}]]")[:-1] for prompt in prompts for n in (1, 2)]
    logprobs = sampler.score([prompt for prompt in prompts for _ in (1, 2)], labels)
    sums = [sum(each) for each in logprobs]
    odds = [first - second for first, second in zip(sums[::2], sums[1::2], strict=True)]
    verdicts: list[list[int | None]] = []
    for greedy_first, sampled_first in zip(odds[::2], odds[1::2], strict=True):
        preferred = int(greedy_first < sampled_first)
        verdicts.append([preferred, preferred] if greedy_first != sampled_first else [0, 1])
    return verdicts


def _tree(contest: _Contest, policy: str) -> ResponseTree:
    votes = Counter(contest.verdicts)
    # Whichever response stood first, it did so in one of the orders: first 0, then 1.
    first = sum(verdict == order for order, verdict in enumerate(contest.verdicts))
    parts = {
        "judged": float(contest.asked),
        "malformed_verdicts": float(votes[None]),
        "first_place_verdicts": float(first),
    }
    sampled = [
        SampledResponse(response=response, reward=float(votes[index]), parts=parts)
        for index, response in enumerate(contest.responses)
    ]
    return tree_of_sampled(contest.prompt, sampled, policy=policy, origin="sima")


def _refusal(tree: ResponseTree) -> SkipReason | None:
    """Why the verdicts make no pair, if so."""
    if len(tree.nodes) < NUM_ORDERS:
        return SkipReason.EQUAL_TEXT
    parts = tree.nodes[0].score.breakdown
    if not parts["judged"]:
        return SkipReason.CRITIC_PROMPT_TOO_LONG
    if parts["malformed_verdicts"]:
        return SkipReason.MALFORMED_VERDICT
    if max(node.score.reward for node in tree.nodes) < NUM_ORDERS:
        return SkipReason.DISAGREEING_VERDICTS
    return None


def _critic_figures(trees: Sequence[ResponseTree]) -> dict[str, float]:
    """What the critic's verdicts are worth; each share is 0 where there is none to count.

    `first_place_share` is 0.5 for a critic that does not mind the order.
    """
    judged = [tree.nodes for tree in trees if tree.nodes[0].score.breakdown["judged"]]
    malformed = [nodes[0].score.breakdown["malformed_verdicts"] for nodes in judged]
    first = sum(nodes[0].score.breakdown["first_place_verdicts"] for nodes in judged)
    whole = [nodes for nodes, lost in zip(judged, malformed, strict=True) if not lost]
    split = sum(max(node.score.reward for node in nodes) < NUM_ORDERS for nodes in whole)
    num_verdicts = NUM_ORDERS * len(judged)
    return {
        "malformed_verdict_share": sum(malformed) / max(num_verdicts, 1),
        "disagreeing_verdict_share": split / max(len(whole), 1),
        "first_place_share": first / max(num_verdicts - sum(malformed), 1),
    }
