"""Step-wise search: all prompts advance one sentence at a time, together.

One level = one `sample_steps` call over every open node of every prompt (and at most
`duplicate_retries` more for nodes whose candidates coincide), then one `score` call.
The number of calls does not depend on the number of prompts.

    open nodes -> candidates -> drop duplicates -> score -> keep best and worst -> open nodes

Every request has its own seed, made of the prompt and its place in the tree: a tree is
the same whatever else is sampled beside it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from csr.errors import DataError, NumericalError
from csr.limits import reaches_limit
from csr.protocols import Progress, Sampler, StepScorer, StepSettings
from csr.types import (
    FinishReason,
    Prompt,
    ResponseTree,
    SkipReason,
    StepCandidate,
    StepGroup,
    StepNode,
    StepRequest,
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


@dataclass(slots=True)
class _Open:
    """A node to expand: the root of a prompt, or a kept step."""

    tree: _Tree
    node_id: str | None
    prefix: tuple[StepCandidate, ...]
    values: tuple[float, ...]
    """What the search ranks by, for each step so far."""
    candidates: list[StepCandidate] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.node_id or f"{self.tree.prompt.prompt_id}/"


@dataclass(slots=True)
class _Tree:
    """One prompt's tree as it grows."""

    prompt: Prompt
    nodes: list[StepNode] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Child:
    """A scored candidate before it is known whether it is kept."""

    parent: _Open
    node: StepNode
    values: tuple[float, ...]


def search(
    prompts: Sequence[Prompt],
    *,
    sampler: Sampler,
    scorer: StepScorer,
    settings: SearchSettings,
    seed: int,
    policy_name: str,
    origin: str,
    progress: Progress,
) -> list[ResponseTree]:
    """One tree for each prompt, in prompt order. `progress` counts prompts that are done.

    DataError where two prompts share an id; NumericalError names the prompt and the node
    where a reward or a log-probability is not finite.
    """
    _check_ids(prompts)
    trees = [_Tree(prompt) for prompt in prompts]
    level = [_Open(tree, None, (), ()) for tree in trees]
    while level:
        _sample(level, sampler, settings, seed)
        children = _score(level, scorer, settings)
        level = [opened for family in children for opened in _keep(family, settings)]
        progress(len(trees) - len({id(opened.tree) for opened in level}), len(trees))
    return [
        ResponseTree(
            prompt=tree.prompt,
            policy=policy_name,
            origin=origin,
            nodes=tuple(tree.nodes),
            skipped=dict(tree.skipped),
        )
        for tree in trees
    ]


# ---------------------------------------------------------------- sampling


def _sample(level: Sequence[_Open], sampler: Sampler, settings: SearchSettings, seed: int) -> None:
    """Fill each open node's `candidates` with distinct steps."""
    wanted = settings.steps.num_candidates
    waiting = list(level)
    for attempt in range(1 + _num_retries(settings)):
        # All candidates are asked for again, not just the missing ones: the answer to a
        # request then depends on its seed alone, not on which other nodes need more.
        requests = [
            StepRequest(
                prompt=opened.tree.prompt,
                prefix=opened.prefix,
                seed=request_seed(seed, opened.tree.prompt.prompt_id, opened.name, attempt),
            )
            for opened in waiting
        ]
        answers = sampler.sample_steps(requests, settings.steps)
        assert len(answers) == len(requests), "a sampler answers every request"
        for opened, candidates in zip(waiting, answers, strict=True):
            _add_distinct(opened, candidates, wanted)
        waiting = [opened for opened in waiting if len(opened.candidates) < wanted]
        if not waiting:
            break


def _num_retries(settings: SearchSettings) -> int:
    """None where sampling anew gives the same steps again."""
    deterministic = settings.steps.temperature == 0 or settings.steps.diversity != "sample"
    return 0 if deterministic else settings.duplicate_retries


def _add_distinct(opened: _Open, candidates: Sequence[StepCandidate], wanted: int) -> None:
    """Add steps that say something new until there are enough; count the copies met."""
    for candidate in candidates:
        if len(opened.candidates) == wanted:
            return
        if any(_same(candidate, other) for other in opened.candidates):
            opened.tree.skipped[SkipReason.DUPLICATE_SIBLING.value] += 1
        else:
            opened.candidates.append(candidate)


def _same(a: StepCandidate, b: StepCandidate) -> bool:
    """Equal tokens, or equal text with an equal end: two ways to spell one sentence."""
    same_text = a.text.strip() == b.text.strip() and a.finish_reason is b.finish_reason
    return a.token_ids == b.token_ids or same_text


def request_seed(seed: int, prompt_id: str, node: str, attempt: int) -> int:
    """A seed in [0, 2^32) that belongs to this request and to no other."""
    name = json.dumps([seed, prompt_id, node, attempt])
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


# ---------------------------------------------------------------- scoring


def _score(
    level: Sequence[_Open], scorer: StepScorer, settings: SearchSettings
) -> list[list[_Child]]:
    """The scored children of the level, one list for each prompt, in prompt order."""
    groups = [
        StepGroup(
            prompt=opened.tree.prompt,
            prefix=opened.prefix,
            candidates=tuple(opened.candidates),
        )
        for opened in level
    ]
    scores = scorer.score(groups)
    families: dict[int, list[_Child]] = {}
    for opened, family_scores in zip(level, scores, strict=True):
        family = families.setdefault(id(opened.tree), [])
        family.extend(_children(opened, family_scores, settings))
    return list(families.values())


def _children(
    opened: _Open, scores: Sequence[StepScore], settings: SearchSettings
) -> Iterator[_Child]:
    for index, (step, score) in enumerate(zip(opened.candidates, scores, strict=True)):
        separator = "." if opened.node_id else ""
        node_id = f"{opened.name}{separator}{index}"
        _check_finite(opened.tree.prompt, node_id, step, score)
        values = (*opened.values, _value(score, settings.prune_by))
        node = StepNode(
            node_id=node_id,
            parent_id=opened.node_id,
            depth=len(opened.prefix) + 1,
            step=step,
            score=score,
            cumulative_reward=_path_score(values, settings.path_score),
            kept=step.finish_reason is FinishReason.EOS,
        )
        yield _Child(opened, node, values)


def _value(score: StepScore, prune_by: PruneBy) -> float:
    return score.reward if prune_by == "reward" else score.breakdown["likelihood"]


def _path_score(values: Sequence[float], how: PathScore) -> float:
    return math.fsum(values) / (len(values) if how == "mean" else 1)


# ---------------------------------------------------------------- keeping


def _keep(family: Sequence[_Child], settings: SearchSettings) -> list[_Open]:
    """Store one prompt's new nodes; return those to expand next, in stored order.

    Finished nodes leave the search and count neither as top nor as bottom.
    """
    growing = [child for child in family if _can_grow(child, settings)]
    kept = {child.node.node_id for child in _best_and_worst(growing, settings)}
    opened = []
    for child in family:
        node = child.node
        if node.node_id in kept:
            node = replace(node, kept=True)
            prefix = (*child.parent.prefix, node.step)
            opened.append(_Open(child.parent.tree, node.node_id, prefix, child.values))
        child.parent.tree.nodes.append(node)
    return opened


def _can_grow(child: _Child, settings: SearchSettings) -> bool:
    steps = (*child.parent.prefix, child.node.step)
    ended = child.node.step.finish_reason is FinishReason.EOS
    return not ended and not reaches_limit(steps, settings.max_steps)


def _best_and_worst(growing: Sequence[_Child], settings: SearchSettings) -> Sequence[_Child]:
    """The `keep_top` best and `keep_bottom` worst, none twice; all of them where they are few."""
    if len(growing) <= settings.keep_top + settings.keep_bottom:
        return growing
    # Equal scores keep their stored order, so a rerun keeps the same nodes.
    ranked = sorted(growing, key=lambda child: -child.node.cumulative_reward)
    return [*ranked[: settings.keep_top], *ranked[len(ranked) - settings.keep_bottom :]]


# ---------------------------------------------------------------- checks


def _check_ids(prompts: Sequence[Prompt]) -> None:
    repeated = [name for name, n in Counter(p.prompt_id for p in prompts).items() if n > 1]
    if repeated:
        raise DataError(
            f"{len(repeated)} prompt ids occur more than once, the first is {repeated[0]!r}: their "
            "trees could not be told apart. Give every prompt an id of its own."
        )


def _check_finite(prompt: Prompt, node_id: str, step: StepCandidate, score: StepScore) -> None:
    numbers = [("log-probability", value) for value in step.token_logprobs]
    numbers += [("reward", score.reward), *score.breakdown.items()]
    for name, value in numbers:
        if not math.isfinite(value):
            raise NumericalError(
                f"A {name} of node {node_id!r} of prompt {prompt.prompt_id!r} is {value}. Look "
                "for overflow in the policy or the similarity model (try fp32)."
            )
