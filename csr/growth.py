"""How one prompt's tree grows: scored candidates become nodes, the best and the worst go on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from csr.errors import NumericalError
from csr.limits import reaches_limit
from csr.protocols import StepSettings
from csr.types import (
    FinishReason,
    Prompt,
    ResponseTree,
    SkipReason,
    StepCandidate,
    StepGroup,
    StepNode,
    StepScore,
)

PruneBy = Literal["reward", "likelihood"]
"""What orders the nodes of a level: the calibrated reward, or the likelihood part alone."""

PathScore = Literal["sum", "mean"]
"""How the steps' values become the path's. The nodes of a level are equally deep, so both
order them alike; they differ in the `cumulative_reward` that is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """How a tree grows."""

    steps: StepSettings
    keep_top: int
    """Best unfinished nodes of a level, for each prompt, that are expanded."""
    keep_bottom: int
    """Worst ones that are expanded too, so that rejected responses have somewhere to come from."""
    prune_by: PruneBy
    path_score: PathScore
    max_steps: int
    duplicate_retries: int
    """Further samplings of a node that has fewer distinct candidates than wanted."""

    @property
    def num_tries(self) -> int:
        """Samplings of a node at most: one where sampling anew gives the same steps again."""
        deterministic = self.steps.temperature == 0 or self.steps.diversity != "sample"
        return 1 if deterministic else 1 + self.duplicate_retries

    @property
    def max_level_tokens(self) -> int:
        """Most tokens that one level of a tree adds."""
        num_open = max(self.keep_top + self.keep_bottom, 1)
        return num_open * self.steps.num_candidates * self.steps.max_step_tokens


@dataclass(slots=True)
class OpenNode:
    """A node to expand: the root of a prompt, or a kept step."""

    name: str
    """Its id, or what stands before the ids of a root's children."""
    node_id: str | None = None
    prefix: tuple[StepCandidate, ...] = ()
    values: tuple[float, ...] = ()
    """What the search ranks by, for each step so far."""
    candidates: list[StepCandidate] = field(default_factory=list)
    num_samplings: int = 0


@dataclass(frozen=True, slots=True)
class _Child:
    """A scored candidate before it is known whether it is kept."""

    node: StepNode
    prefix: tuple[StepCandidate, ...]
    """Its own step is the last."""
    values: tuple[float, ...]


class GrowingTree:
    """One prompt's tree, level by level: fill the open nodes' candidates, then `grow`."""

    def __init__(self, prompt: Prompt, settings: SearchSettings) -> None:
        self.prompt = prompt
        self.open = [OpenNode(f"{prompt.prompt_id}/")]
        """The level that is being expanded; empty when the tree is done."""
        self._settings = settings
        self._nodes: list[StepNode] = []
        self._skipped: Counter[str] = Counter()

    def add_candidates(self, opened: OpenNode, candidates: Sequence[StepCandidate]) -> bool:
        """Take steps that say something new until there are enough, and count the copies met.

        Returns whether the node should be sampled once more.
        """
        opened.num_samplings += 1
        wanted = self._settings.steps.num_candidates
        for candidate in candidates:
            if len(opened.candidates) == wanted:
                break
            if any(_same(candidate, other) for other in opened.candidates):
                self._skipped[SkipReason.DUPLICATE_SIBLING.value] += 1
            else:
                opened.candidates.append(candidate)
        may_go_on = opened.num_samplings < self._settings.num_tries
        return may_go_on and len(opened.candidates) < wanted

    def groups(self) -> list[StepGroup]:
        """What is to be scored: the candidates of each open node."""
        return [
            StepGroup(prompt=self.prompt, prefix=each.prefix, candidates=tuple(each.candidates))
            for each in self.open
        ]

    def grow(self, scores: Sequence[Sequence[StepScore]]) -> None:
        """Store the scored candidates as nodes, in order, and open those that go on.

        Finished nodes leave the search and count neither as top nor as bottom. NumericalError
        names the prompt and the node where a reward or a log-probability is not finite.
        """
        family = [
            child
            for opened, of_opened in zip(self.open, scores, strict=True)
            for child in self._children(opened, of_opened)
        ]
        growing = [child for child in family if self._can_grow(child)]
        kept = {child.node.node_id for child in self._best_and_worst(growing)}
        self.open = []
        for child in family:
            node = child.node
            if node.node_id in kept:
                node = replace(node, kept=True)
                opened = OpenNode(node.node_id, node.node_id, child.prefix, child.values)
                self.open.append(opened)
            self._nodes.append(node)

    def tree(self, policy_name: str, origin: str) -> ResponseTree:
        """The tree as it is stored."""
        return ResponseTree(
            prompt=self.prompt,
            policy=policy_name,
            origin=origin,
            nodes=tuple(self._nodes),
            skipped=dict(self._skipped),
        )

    def _children(self, opened: OpenNode, scores: Sequence[StepScore]) -> Iterator[_Child]:
        for index, (step, score) in enumerate(zip(opened.candidates, scores, strict=True)):
            node_id = f"{opened.name}{'.' if opened.node_id else ''}{index}"
            _check_finite(self.prompt, node_id, step, score)
            values = (*opened.values, _value(score, self._settings.prune_by))
            node = StepNode(
                node_id=node_id,
                parent_id=opened.node_id,
                depth=len(values),
                step=step,
                score=score,
                cumulative_reward=_path_score(values, self._settings.path_score),
                kept=step.finish_reason is FinishReason.EOS,
            )
            yield _Child(node, (*opened.prefix, step), values)

    def _can_grow(self, child: _Child) -> bool:
        ended = child.node.step.finish_reason is FinishReason.EOS
        return not ended and not reaches_limit(child.prefix, self._settings.max_steps)

    def _best_and_worst(self, growing: Sequence[_Child]) -> Sequence[_Child]:
        """The `keep_top` best and `keep_bottom` worst, none twice; all where they are few."""
        keep_top, keep_bottom = self._settings.keep_top, self._settings.keep_bottom
        if len(growing) <= keep_top + keep_bottom:
            return growing
        # Equal scores keep their stored order, so a rerun keeps the same nodes.
        ranked = sorted(growing, key=lambda child: -child.node.cumulative_reward)
        return [*ranked[:keep_top], *ranked[len(ranked) - keep_bottom :]]


def _same(a: StepCandidate, b: StepCandidate) -> bool:
    """Equal tokens, or equal text with an equal end: two ways to spell one sentence."""
    same_text = a.text.strip() == b.text.strip() and a.finish_reason is b.finish_reason
    return a.token_ids == b.token_ids or same_text


def _value(score: StepScore, prune_by: PruneBy) -> float:
    return score.reward if prune_by == "reward" else score.breakdown["likelihood"]


def _path_score(values: Sequence[float], how: PathScore) -> float:
    return math.fsum(values) / (len(values) if how == "mean" else 1)


def _check_finite(prompt: Prompt, node_id: str, step: StepCandidate, score: StepScore) -> None:
    numbers = [("log-probability", value) for value in step.token_logprobs]
    numbers += [("reward", score.reward), *score.breakdown.items()]
    for name, value in numbers:
        if not math.isfinite(value):
            raise NumericalError(
                f"A {name} of node {node_id!r} of prompt {prompt.prompt_id!r} is {value}. Look "
                "for overflow in the policy or the similarity model (try fp32)."
            )
