"""From scored trees to preference pairs: pure, instant, repeatable.

Each complete path of a tree is a response; the best and the worst of a prompt make its
pair unless a filter stops it. Prompts in = prompts with a pair + skipped, always.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from csr.limits import reaches_limit
from csr.responses import ResponseReward, path_to, response_of
from csr.text_rules import is_clean_step, repetition
from csr.types import (
    FinishReason,
    PairingResult,
    PreferencePair,
    ResponseTree,
    ScoredResponse,
    SkipReason,
    StepNode,
)

PairChoice = Literal["extremes", "siblings", "extremes_and_siblings", "random"]
"""`extremes`: the best response against the worst.
`siblings`: along the best response, the best next sentence against the worst that was sampled
behind the same prefix (the form of SENTINEL's pairs, arXiv:2507.12455). The prefix is said by both
sides, so in a loss of summed log-probabilities it cancels, and no difference in length is left but
the sentences' own. Alone, it says nothing of when to stop: a policy trained on it goes on longer.
`extremes_and_siblings`: both.
`random`, the control: two responses drawn blindly, for the prompts that have a pair of extremes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairingSettings:
    """Which responses are compared, and which pairs are kept."""

    response_reward: ResponseReward
    pairing: PairChoice
    require_eos: bool
    clean_text: bool
    min_margin: float
    min_margin_quantile: float
    max_length_difference: float
    max_repetition: float
    max_steps: int
    """Of the search, so that a response cut there is told from a path the search left."""


def pair_trees(trees: Sequence[ResponseTree], settings: PairingSettings) -> PairingResult:
    """The pairs of each tree, in tree order, and every complete response.

    One pair a tree at most, unless siblings are paired: then one for each sentence of its best
    response.

    The margin quantile is taken over the pairs of this call that pass the other filters.
    NumericalError names the node whose stored reward is not finite.
    """
    responses: list[ScoredResponse] = []
    drawn: list[PreferencePair] = []
    skipped: Counter[str] = Counter()
    for tree in trees:
        complete = complete_responses(tree, settings)
        responses.extend(response for response, _ in complete)
        pairs, reason = _pairs(tree, complete, settings)
        drawn += pairs
        if not pairs:
            skipped[reason.value] += 1
    threshold = quantile([pair.margin for pair in drawn], settings.min_margin_quantile)
    kept = [pair for pair in drawn if pair.margin >= threshold]
    if num_lost := len(_prompt_ids(drawn) - _prompt_ids(kept)):
        skipped[SkipReason.SMALL_MARGIN.value] += num_lost
    if settings.pairing == "random":
        by_id = {tree.prompt.prompt_id: tree for tree in trees}
        kept = [_random_pair(by_id[pair.prompt.prompt_id], pair, settings) for pair in kept]
    num_paired = len(_prompt_ids(kept))
    assert num_paired + sum(skipped.values()) == len(trees), "a prompt has a pair or a reason"
    return PairingResult(pairs=tuple(kept), responses=tuple(responses), skipped=dict(skipped))


# ---------------------------------------------------------------- responses


def complete_responses(
    tree: ResponseTree, settings: PairingSettings
) -> list[tuple[ScoredResponse, bool]]:
    """The paths that ended or reached a limit, each with whether all its steps are clean.

    A node that the search did not go on with is no response and is left out.
    """
    by_id = {node.node_id: node for node in tree.nodes}
    found = []
    for leaf in tree.leaves():
        path = path_to(leaf, by_id)
        steps = [node.step for node in path]
        ended = leaf.step.finish_reason is FinishReason.EOS
        if ended or reaches_limit(steps, settings.max_steps):
            clean = not settings.clean_text or all(is_clean_step(step.text) for step in steps)
            found.append((response_of(tree, path, settings.response_reward), clean))
    return found


# ---------------------------------------------------------------- pairs


def _pairs(
    tree: ResponseTree,
    complete: Sequence[tuple[ScoredResponse, bool]],
    settings: PairingSettings,
) -> tuple[list[PreferencePair], SkipReason]:
    """A tree's pairs, and the reason that counts where there is none."""
    whole = _pair(tree, complete, settings)
    found = [] if settings.pairing == "siblings" else [whole]
    if settings.pairing in ("siblings", "extremes_and_siblings"):
        found += _sibling_pairs(tree, complete, settings)
    pairs = [each for each in found if isinstance(each, PreferencePair)]
    reasons = [each for each in found if isinstance(each, SkipReason)]
    return pairs, reasons[0] if reasons else SkipReason.TOO_FEW_RESPONSES


def _prompt_ids(pairs: Sequence[PreferencePair]) -> set[str]:
    return {pair.prompt.prompt_id for pair in pairs}


def _pair(
    tree: ResponseTree,
    complete: Sequence[tuple[ScoredResponse, bool]],
    settings: PairingSettings,
) -> PreferencePair | SkipReason:
    """The best response against the worst, or why they make no pair."""
    candidates = _candidates(complete, settings)
    if len(candidates) < 2:
        return _why_too_few(complete, settings)
    # Equal rewards: the earlier path counts as better, so a rerun draws the same pair.
    ranked = sorted(candidates, key=lambda response: -response.reward)
    pair = _make_pair(tree, ranked[0], ranked[-1])
    return _refusal(pair, settings) or pair


def _candidates(
    complete: Sequence[tuple[ScoredResponse, bool]], settings: PairingSettings
) -> list[ScoredResponse]:
    """The responses that may be compared. One without a word answers nothing."""
    return [
        response
        for response, clean in complete
        if clean and response.text and (_ended(response) or not settings.require_eos)
    ]


def _why_too_few(
    complete: Sequence[tuple[ScoredResponse, bool]], settings: PairingSettings
) -> SkipReason:
    """The first cause that, taken away, would have left two responses."""
    spoken = [(response, clean) for response, clean in complete if response.text]
    if settings.require_eos and len(spoken) >= 2:
        spoken = [(response, clean) for response, clean in spoken if _ended(response)]
        if len(spoken) < 2:
            return SkipReason.UNFINISHED
    if len(spoken) >= 2:
        return SkipReason.FILTERED_TEXT
    return SkipReason.TOO_FEW_RESPONSES


def _ended(response: ScoredResponse) -> bool:
    return response.finish_reason is FinishReason.EOS


def _refusal(pair: PreferencePair, settings: PairingSettings) -> SkipReason | None:
    """Why a pair is not fit to train on, if so."""
    chosen, rejected = pair.chosen, pair.rejected
    if chosen.text == rejected.text:
        return SkipReason.EQUAL_TEXT
    # A margin of 0 says nothing about which is better, whatever `min_margin` is.
    if pair.margin <= 0 or pair.margin < settings.min_margin:
        return SkipReason.SMALL_MARGIN
    longest = max(chosen.num_tokens, rejected.num_tokens)
    if abs(chosen.num_tokens - rejected.num_tokens) > settings.max_length_difference * longest:
        return SkipReason.LENGTH_MISMATCH
    if max(repetition(chosen.text), repetition(rejected.text)) > settings.max_repetition:
        return SkipReason.REPETITION
    return None


def _sibling_pairs(
    tree: ResponseTree,
    complete: Sequence[tuple[ScoredResponse, bool]],
    settings: PairingSettings,
) -> list[PreferencePair | SkipReason]:
    """For each sentence of the best response, the best of its siblings against the worst."""
    candidates = _candidates(complete, settings)
    if not candidates:
        return [_why_too_few(complete, settings)]
    best = max(candidates, key=lambda response: response.reward)
    by_id = {node.node_id: node for node in tree.nodes}
    found: list[PreferencePair | SkipReason] = []
    for node in path_to(by_id[best.response_id], by_id):
        ranked = _ranked_siblings(tree, node, settings)
        if node.step.has_words and len(ranked) >= 2:
            chosen, rejected = (
                response_of(tree, path_to(each, by_id), settings.response_reward)
                for each in (ranked[0], ranked[-1])
            )
            pair = _make_pair(tree, chosen, rejected, number=node.depth)
            found.append(_refusal(pair, settings) or pair)
    return found


def _ranked_siblings(
    tree: ResponseTree, node: StepNode, settings: PairingSettings
) -> list[StepNode]:
    """The sentences behind the node's prefix, best first; to end there is none."""
    siblings = [
        other
        for other in tree.nodes
        if other.parent_id == node.parent_id
        and other.step.has_words
        and (not settings.clean_text or is_clean_step(other.step.text))
    ]
    return sorted(siblings, key=lambda other: -other.score.reward)


def _random_pair(
    tree: ResponseTree, pair: PreferencePair, settings: PairingSettings
) -> PreferencePair:
    """Two responses drawn by a hash of the prompt's id, in place of the best and the worst.

    The control has the same prompts and as many pairs as `extremes`, and chooses blindly.
    """
    candidates = _candidates(complete_responses(tree, settings), settings)
    by_text = {response.text: response for response in reversed(candidates)}

    def lot(response: ScoredResponse) -> str:
        name = f"random pair\x1f{tree.prompt.prompt_id}\x1f{response.response_id}"
        return hashlib.sha256(name.encode()).hexdigest()

    first, second = sorted(by_text.values(), key=lot)[:2]
    return _make_pair(tree, first, second)


def _make_pair(
    tree: ResponseTree, chosen: ScoredResponse, rejected: ScoredResponse, number: int = 0
) -> PreferencePair:
    return PreferencePair(
        pair_id=f"{tree.prompt.prompt_id}#{number}",
        prompt=tree.prompt,
        chosen=chosen,
        rejected=rejected,
        margin=chosen.reward - rejected.reward,
        source=tree.origin,
    )


def quantile(values: Sequence[float], q: float) -> float:
    """The value below which a share q of `values` lies, interpolated; -inf for none."""
    if not values:
        return -math.inf
    ranked = sorted(values)
    place = q * (len(ranked) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (place - low) * (ranked[high] - ranked[low])
