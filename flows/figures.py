"""The few numbers that a stage's record keeps of what it made."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from csr.types import PairingResult, ResponseTree, SkipReason
from flows.metric_names import is_count
from rewards.statistics import Statistics


def caption_figures(statistics: Statistics) -> dict[str, float]:
    """Mean, deviation and count of each raw part, e.g. `likelihood_mean`."""
    moments = {
        "likelihood": statistics.likelihood,
        "image_similarity": statistics.image_similarity,
        **statistics.evidence,
    }
    return {
        f"{name}_{key}": value
        for name, moment in moments.items()
        if moment is not None
        for key, value in (("mean", moment.mean), ("sd", moment.sd), ("count", moment.count))
    }


def tree_figures(trees: Sequence[ResponseTree]) -> dict[str, float]:
    """How much was sampled."""
    nodes = [node for tree in trees for node in tree.nodes]
    return {
        "num_nodes": len(nodes),
        "num_finished": sum(len(tree.finished()) for tree in trees),
        "num_sampled_tokens": sum(len(node.step.token_ids) for node in nodes),
    }


def pair_figures(result: PairingResult, num_prompts: int) -> dict[str, float]:
    """Counts, and means over the pairs and over all responses."""
    pairs = result.pairs
    counts: dict[str, float] = {
        "num_prompts": num_prompts,
        "num_pairs": len(pairs),
        **_demonstration_counts(result),
        "equal_share": _num_equal(result) / num_prompts,
        **result.figures,
    }
    if not pairs:
        return counts
    return counts | {
        "mean_response_reward": _mean(response.reward for response in result.responses),
        "mean_margin": _mean(pair.margin for pair in pairs),
        "mean_chosen_reward": _mean(pair.chosen.reward for pair in pairs),
        "mean_rejected_reward": _mean(pair.rejected.reward for pair in pairs),
        "mean_chosen_steps": _mean(pair.chosen.num_steps for pair in pairs),
        "mean_rejected_steps": _mean(pair.rejected.num_steps for pair in pairs),
        "mean_chosen_tokens": _mean(pair.chosen.num_tokens for pair in pairs),
        "mean_rejected_tokens": _mean(pair.rejected.num_tokens for pair in pairs),
    }


def _demonstration_counts(result: PairingResult) -> dict[str, float]:
    """How many there are of each kind; nothing where a source makes pairs."""
    kinds = Counter(each.kind for each in result.demonstrations)
    if not kinds:
        return {}
    counts = {f"num_{kind}_demonstrations": float(count) for kind, count in kinds.items()}
    return {"num_demonstrations": float(kinds.total())} | counts


def _num_equal(result: PairingResult) -> int:
    """Prompts whose two responses say the same, left out for that or not."""
    said = [
        [" ".join(side.text.split()).casefold() for side in (pair.chosen, pair.rejected)]
        for pair in result.pairs
    ]
    paired = sum(chosen == rejected for chosen, rejected in said)
    return paired + result.skipped.get(SkipReason.EQUAL_TEXT.value, 0)


def sum_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Counts by name, added up."""
    total: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            total[name] = total.get(name, 0) + count
    return total


def shard_figures(shards: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The figures of a stage's shards as one: counts added up, of any other the mean."""
    figures: dict[str, float] = {}
    for name in dict.fromkeys(name for shard in shards for name in shard):
        values = [shard[name] for shard in shards if name in shard]
        figures[name] = math.fsum(values) if is_count(name) else _mean(values)
    return figures


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed)
