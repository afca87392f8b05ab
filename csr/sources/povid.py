"""POVID: preference optimisation with AI-generated dispreferences (arXiv:2402.11411).

The preferred response is the prompt's reference answer, unchanged. The dispreferred one is that
answer rewritten so that it says false things in the same form: objects that usually occur
together with those that are there, wrong attributes and relations (section 3.1). The paper has a
closed model do this; here rules do, from a vocabulary and from what occurs together in the
references, or the policy itself. Each rewritten sentence must fit the image worse than the one it
stands for, or the rewrite is not used.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from csr.annotations import Evidence
from csr.config import ComponentConfig, Location
from csr.errors import ConfigError
from csr.planning import ExpectedResponse, PlannedCall, PlannedWork, scoring_call, text_tokens
from csr.prompts import PromptCheck
from csr.protocols import PreferenceSource, SourceTools, StepSettings, TrainingTable
from csr.records import BadRecordError
from csr.sources._policy_rewrites import (
    PolicyRewrite,
    PolicyRewriteSettings,
    has_room,
    write_rewrites,
)
from csr.sources._rewrites import Knowledge, Rewrite, rewrite
from csr.sources._sampled import pair_whole, planned_whole
from csr.steps import split_steps
from csr.types import (
    FinishReason,
    PairingResult,
    Prompt,
    ResponseTree,
    SkipReason,
    StepCandidate,
    StepNode,
    StepScore,
)

PAIRING_SETTINGS = ("max_length_difference",)


class Config(ComponentConfig):
    """How references are rewritten, and which rewrites are used."""

    rewriter: Literal["rules", "policy"] = "rules"
    """`rules`: from `vocabulary` and `references`. `policy`: the policy that is being trained, told
    by `policy_rewrites`; the sampler must be 'vllm', which can force the answer's form."""
    vocabulary: Location | None = None
    """JSON file with the wordings of objects and attributes: what can be exchanged. The rules need
    it; the policy does not read it."""
    references: Location | None = None
    """JSON file, such as `data.prompts`, whose references, or answers in LLaVA's `conversations`,
    tell which objects occur together. The rules need it; the policy does not read it."""
    num_edits: int = Field(default=2, ge=1)
    """Things said otherwise in a rewrite by rules; fewer where the reference holds fewer."""
    policy_rewrites: PolicyRewriteSettings = PolicyRewriteSettings()
    """What the policy is told, and which of its rewrites count; the rules do not read it."""
    num_rewrites: int = Field(default=4, ge=1)
    """Rewrites tried for a prompt; the first that the image refutes is used."""
    min_similarity_drop: float | None = Field(default=0.0, ge=0)
    """100 x cosine with the image that each rewritten sentence must lose, at least. None takes
    every rewrite, unchecked; then no similarity is needed."""
    max_length_difference: float = Field(default=0.15, ge=0, le=1)
    """Largest difference in tokens over the longer response."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.rewriter == "policy":
            return self
        given = {"vocabulary": self.vocabulary, "references": self.references}
        if missing := [name for name, value in given.items() if value is None]:
            raise ValueError(
                f"{' and '.join(missing)} must be given where rules rewrite. Name the file, or set "
                "rewriter to policy, which needs none."
            )
        return self


def build(config: Config) -> PreferenceSource:
    """The source. Its files are read when they are needed."""
    return POVIDSource(config)


def needs_json_schema(config: Config) -> bool:
    """Whether responses are asked for in a form that the sampler must force."""
    return config.rewriter == "policy"


def check_prompts(config: Config) -> PromptCheck:
    """Refuses prompts without a reference. DataError where the source's own files are no use."""
    if config.rewriter == "rules":
        _knowledge(config).together  # noqa: B018

    def check(prompt: Prompt, image_size: tuple[int, int]) -> None:
        if prompt.reference is None:
            raise BadRecordError(
                "it has no reference, which POVID prefers to its rewrite. Add a `reference`.",
                SkipReason.MISSING_REFERENCE,
            )

    return check


def planned_work(config: Config, expected: ExpectedResponse) -> PlannedWork:
    """References and their rewrites are scored; a policy that rewrites writes them first."""
    reference, calls, num_edits = expected.num_tokens, list[PlannedCall](), config.num_edits
    if config.rewriter == "policy":
        settings = config.policy_rewrites
        question, num_edits = text_tokens(settings.instruction) + reference, settings.max_edits
        written = min(1.25 * reference, settings.max_rewrite_tokens)  # JSON, and a list of edits
        calls += [PlannedCall(name="rewrite", question_tokens=question, generated_tokens=written)]
    return planned_whole(
        *calls,
        scoring_call("score", 2, reference, shared="image"),
        num_responses=2,
        response_tokens=reference,
        num_compared_texts=0 if config.min_similarity_drop is None else 2 * num_edits,
        notes=(
            "References are as long as responses are expected to be.",
            "The image refutes each first rewrite; each edit is in a sentence of its own.",
        ),
    )


@dataclass(slots=True)
class _Draft:
    """A prompt on its way to a rewrite of its reference."""

    prompt: Prompt
    reference: str
    rewrite: Rewrite | PolicyRewrite | None = None
    """The one to use."""
    similarity_drop: float = 0.0
    skipped: Counter[SkipReason] = field(default_factory=Counter)
    """Rewrites that are not used, by reason."""

    @property
    def texts(self) -> list[str]:
        """The responses of the tree, the reference first."""
        return [self.reference, *([self.rewrite.text] if self.rewrite else [])]


_Made = tuple[_Draft, Rewrite | PolicyRewrite]


class POVIDSource:
    """References against their rewrites. Implements `PreferenceSource`."""

    makes: TrainingTable = "pairs"
    needs_critic = False

    def __init__(self, config: Config) -> None:
        self._config = config

    @cached_property
    def _known(self) -> Knowledge:
        return _knowledge(self._config)

    @property
    def step_settings(self) -> StepSettings | None:
        """No step is sampled."""
        return None

    def generate(self, prompts: Sequence[Prompt], tools: SourceTools) -> list[ResponseTree]:
        """Trees of depth one: the reference, and its rewrite where there is one."""
        drafts = [_Draft(prompt, _reference(prompt)) for prompt in prompts]
        waiting = self._askable(drafts, tools)
        for number in range(self._config.num_rewrites):
            waiting = self._tried(waiting, number, tools) if waiting else []
        asked = [(draft.prompt, text) for draft in drafts for text in draft.texts]
        ids = [tools.sampler.encode(prompt, text) for prompt, text in asked]
        logprobs = tools.sampler.score([prompt for prompt, _ in asked], ids)
        steps = iter(
            StepCandidate(text=text, token_ids=i, token_logprobs=p, finish_reason=FinishReason.EOS)
            for (_, text), i, p in zip(asked, ids, logprobs, strict=True)
        )
        tools.progress(len(prompts), len(prompts))
        return [_tree(draft, [next(steps) for _ in draft.texts], tools) for draft in drafts]

    def pair(self, trees: Sequence[ResponseTree], evidence: Evidence) -> PairingResult:
        """The reference is chosen, its rewrite rejected; the margin counts the edits."""
        return pair_whole(trees, self._config.max_length_difference)

    def _askable(self, drafts: Sequence[_Draft], tools: SourceTools) -> list[_Draft]:
        """Drafts that the rewriter can be given; a policy's context may be too short."""
        if self._config.rewriter == "rules":
            return list(drafts)
        instruction = self._config.policy_rewrites.instruction
        fits = [has_room(d.prompt, d.reference, tools.sampler, instruction) for d in drafts]
        for draft, fitting in zip(drafts, fits, strict=True):
            draft.skipped[SkipReason.REWRITE_PROMPT_TOO_LONG] += not fitting
        return [draft for draft, fitting in zip(drafts, fits, strict=True) if fitting]

    def _tried(self, waiting: Sequence[_Draft], number: int, tools: SourceTools) -> list[_Draft]:
        """Give each draft a rewrite if the image refutes it; those to try once more."""
        again: list[_Draft] = []
        if self._config.rewriter == "rules":
            made = self._rewritten_by_rules(waiting, number, tools)
        else:
            made, again = self._rewritten_by_policy(waiting, number, tools)
        for (draft, new), drop in zip(made, self._similarity_drops(made, tools), strict=True):
            if drop is None or drop > (self._config.min_similarity_drop or 0.0):
                draft.rewrite, draft.similarity_drop = new, drop or 0.0
            else:
                draft.skipped[SkipReason.UNREFUTED_REWRITE] += 1
                again.append(draft)
        return again

    def _rewritten_by_rules(
        self, waiting: Sequence[_Draft], number: int, tools: SourceTools
    ) -> list[_Made]:
        """What holds nothing to exchange has no rewrite, and never will."""
        known, made = self._known, list[_Made]()
        for draft in waiting:
            rng = random.Random(f"rewrite/{tools.seed}/{draft.prompt.prompt_id}/{number}")
            edits = self._config.num_edits
            new = rewrite(draft.reference, known.vocabulary, known.together, edits, rng)
            if new is not None:
                made.append((draft, new))
        return made

    def _rewritten_by_policy(
        self, waiting: Sequence[_Draft], number: int, tools: SourceTools
    ) -> tuple[list[_Made], list[_Draft]]:
        """The rewrites, and the drafts for which the policy wrote junk."""
        prompts = [draft.prompt for draft in waiting]
        references = [draft.reference for draft in waiting]
        settings = self._config.policy_rewrites
        found = write_rewrites(prompts, references, number, tools, settings)
        both = list(zip(waiting, found, strict=True))
        junk = [draft for draft, new in both if new is None]
        for draft in junk:
            draft.skipped[SkipReason.JUNK_REWRITE] += 1
        return [(draft, new) for draft, new in both if new is not None], junk

    def _similarity_drops(self, made: Sequence[_Made], tools: SourceTools) -> list[float | None]:
        """The least that a changed sentence of each rewrite fits the image worse, in 100 x cosine.

        None where nothing is to be checked.
        """
        if self._config.min_similarity_drop is None:
            return [None] * len(made)
        if tools.similarity is None:
            raise ConfigError(
                "povid checks its rewrites against the image, and no `similarity` is configured. "
                "Name one, or set source.min_similarity_drop to null to use them unchecked."
            )
        if not made:
            return []
        images, texts, counts = [], [], []
        for draft, new in made:
            changed = _changed_sentences(draft.reference, new.text)
            counts.append(len(changed))
            texts += [text for pair in changed for text in pair]
            images += [draft.prompt.image] * (2 * len(changed))
        fits = tools.similarity.image_text(images, texts)
        both = zip(fits[::2], fits[1::2], strict=True)
        drops = iter([100 * (before - after) for before, after in both])
        return [min((next(drops) for _ in range(count)), default=0.0) for count in counts]


def _knowledge(config: Config) -> Knowledge:
    assert config.vocabulary is not None, "rules have both"
    assert config.references is not None, "rules have both"
    return Knowledge(Path(config.vocabulary), Path(config.references))


def _reference(prompt: Prompt) -> str:
    assert prompt.reference is not None, "check_prompts lets no other pass"
    return prompt.reference


def _changed_sentences(before: str, after: str) -> list[tuple[str, str]]:
    """Sentences that differ; none where an edit moved sentence ends, and nothing can be matched."""
    old, new = (split_steps(text, "sentence") for text in (before, after))
    if len(old) != len(new):
        return []
    return [(a.strip(), b.strip()) for a, b in zip(old, new, strict=True) if a != b]


def _tree(draft: _Draft, steps: Sequence[StepCandidate], tools: SourceTools) -> ResponseTree:
    edits = [0, len(draft.rewrite.edits) if draft.rewrite else 0]
    nodes = tuple(
        StepNode(
            node_id=f"{draft.prompt.prompt_id}/{number}",
            parent_id=None,
            depth=1,
            step=step,
            score=StepScore(
                reward=-float(edits[number]),
                breakdown={
                    "num_edits": float(edits[number]),
                    "similarity_drop": draft.similarity_drop if number else 0.0,
                },
            ),
            cumulative_reward=-float(edits[number]),
            kept=True,
        )
        for number, step in enumerate(steps)
    )
    return ResponseTree(
        prompt=draft.prompt,
        policy=tools.policy.name,
        origin="povid",
        nodes=nodes,
        skipped={reason.value: count for reason, count in draft.skipped.items() if count},
    )
