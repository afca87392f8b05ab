"""POVID: preference optimisation with AI-generated dispreferences (arXiv:2402.11411).

The preferred response is the prompt's reference answer, unchanged. The dispreferred one is that
answer rewritten so that it says false things in the same form: objects that usually occur
together with those that are there, wrong attributes and relations (section 3.1). The paper has a
closed model do this; here rules do, from a vocabulary and from what occurs together in the
references. Each rewritten sentence must fit the image worse than the one it stands for, or
the rewrite is not used.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import Field

from csr.annotations import Evidence
from csr.config import ComponentConfig, Location
from csr.errors import ConfigError, DataError
from csr.pairing import PairingSettings, pair_trees
from csr.prompts import PromptCheck
from csr.protocols import PreferenceSource, SourceTools, StepSettings, TrainingTable
from csr.records import BadRecordError, read_entries
from csr.sources._rewrites import Cooccurrence, Rewrite, cooccurrence, rewrite
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
from csr.vocabulary import Vocabulary, read_vocabulary


class Config(ComponentConfig):
    """How references are rewritten, and which rewrites are used."""

    vocabulary: Location
    """JSON file with the wordings of objects and attributes: what can be exchanged."""
    references: Location
    """Prompt file whose references tell which objects occur together, such as `data.prompts`."""
    num_edits: int = Field(default=2, ge=1)
    """Things said otherwise in a rewrite; fewer where the reference holds fewer."""
    num_rewrites: int = Field(default=4, ge=1)
    """Rewrites tried for a prompt; the first that the image refutes is used."""
    min_similarity_drop: float | None = Field(default=0.0, ge=0)
    """100 x cosine with the image that each rewritten sentence must lose, at least. None takes
    every rewrite, unchecked; then no similarity is needed."""
    max_length_difference: float = Field(default=0.15, ge=0, le=1)
    """Largest difference in tokens over the longer response."""


def build(config: Config) -> PreferenceSource:
    """The source. Its files are read when they are needed."""
    return POVIDSource(config)


def check_prompts(config: Config) -> PromptCheck:
    """Refuses prompts without a reference. DataError where the source's own files are no use."""
    _Knowledge(config).together  # noqa: B018

    def check(prompt: Prompt, image_size: tuple[int, int]) -> None:
        if prompt.reference is None:
            raise BadRecordError(
                "it has no reference, which POVID prefers to its rewrite. Add a `reference`.",
                SkipReason.MISSING_REFERENCE,
            )

    return check


@dataclass(frozen=True)
class _Knowledge:
    """What the rules know."""

    config: Config

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return read_vocabulary(Path(self.config.vocabulary))

    @cached_property
    def together(self) -> Cooccurrence:
        path = Path(self.config.references)
        values = [entry.value for entry in read_entries(path)]
        texts = [value.get("reference") for value in values if isinstance(value, dict)]
        counts = cooccurrence([t for t in texts if isinstance(t, str)], self.vocabulary.objects)
        if not counts:
            raise DataError(
                f"No `reference` in {path} names two objects of the vocabulary "
                f"{self.config.vocabulary}, so what usually occurs together cannot be told. Give "
                "a vocabulary of the things that the references are about."
            )
        return counts


@dataclass(slots=True)
class _Draft:
    """A prompt on its way to a rewrite of its reference."""

    prompt: Prompt
    reference: str
    rewrite: Rewrite | None = None
    """The one to use."""
    similarity_drop: float = 0.0
    num_unrefuted: int = 0

    @property
    def texts(self) -> list[str]:
        """The responses of the tree, the reference first."""
        return [self.reference, *([self.rewrite.text] if self.rewrite else [])]


class POVIDSource:
    """References against their rewrites. Implements `PreferenceSource`."""

    makes: TrainingTable = "pairs"
    needs_critic = False

    def __init__(self, config: Config) -> None:
        self._config = config
        self._known = _Knowledge(config)

    @property
    def step_settings(self) -> StepSettings | None:
        """Nothing is sampled."""
        return None

    def generate(self, prompts: Sequence[Prompt], tools: SourceTools) -> list[ResponseTree]:
        """Trees of depth one: the reference, and its rewrite where there is one."""
        drafts = [_Draft(prompt, _reference(prompt)) for prompt in prompts]
        waiting = drafts
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
        return pair_trees(trees, _pairing(self._config))

    def _tried(self, waiting: Sequence[_Draft], number: int, tools: SourceTools) -> list[_Draft]:
        """Give each draft a rewrite if the image refutes it; those to try once more."""
        made = [(draft, new) for draft in waiting if (new := self._rewrite(draft, number, tools))]
        refused = []
        for (draft, new), drop in zip(made, self._similarity_drops(made, tools), strict=True):
            if drop is None or drop > (self._config.min_similarity_drop or 0.0):
                draft.rewrite, draft.similarity_drop = new, drop or 0.0
            else:
                draft.num_unrefuted += 1
                refused.append(draft)
        return refused

    def _rewrite(self, draft: _Draft, number: int, tools: SourceTools) -> Rewrite | None:
        rng = random.Random(f"rewrite/{tools.seed}/{draft.prompt.prompt_id}/{number}")
        known = self._known
        return rewrite(
            draft.reference, known.vocabulary, known.together, self._config.num_edits, rng
        )

    def _similarity_drops(
        self, made: Sequence[tuple[_Draft, Rewrite]], tools: SourceTools
    ) -> list[float | None]:
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
    skipped = {SkipReason.UNREFUTED_REWRITE.value: draft.num_unrefuted}
    return ResponseTree(
        prompt=draft.prompt,
        policy=tools.policy.name,
        origin="povid",
        nodes=nodes,
        skipped={reason: count for reason, count in skipped.items() if count},
    )


def _pairing(config: Config) -> PairingSettings:
    return PairingSettings(
        response_reward="sum",
        pairing="extremes",
        require_eos=True,
        clean_text=False,
        min_margin=0.0,
        min_margin_quantile=0.0,
        max_length_difference=config.max_length_difference,
        max_repetition=1.0,
        max_steps=1,
    )
