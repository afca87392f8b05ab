"""How likely each label of a closed question is, and what of that is the policy's own habit.

A policy that says "yes" whatever it is shown says it without an image too. Its probabilities are
divided by those that it has for a content-free input, and normalised
(the post-hoc debias of arXiv:2403.05262: q = W p, W = diag(p_cf)^-1; after Zhao et al. 2021,
"Calibrate Before Use", arXiv:2102.09690). Read from raw logits, at temperature 1.

A label is said in several ways (" Yes", "Yes", "yes"): their probabilities are summed. A way to
say it that takes several tokens has the product of their probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from csr.errors import DataError
from csr.protocols import Sampler
from csr.types import LabelQuery, Prompt

ContentFree = Literal["none", "blank", "both"]
"""`none`: the prompt without its image; `blank`: with a grey one; `both`: the two summed."""

SMOOTHING = 1e-4
"""Added to each content-free probability, as the paper's released code does: a label that the
policy never says without an image would else be divided by nothing."""


def probabilities(logprobs: Sequence[float]) -> tuple[float, ...]:
    """The labels' probabilities among themselves, from their log-probabilities in nats."""
    total = log_sum_exp(logprobs)
    return tuple(math.exp(value - total) for value in logprobs)


def calibrated(
    seeing: Sequence[float], content_free: Sequence[float], smoothing: float = SMOOTHING
) -> tuple[float, ...]:
    """q = p / (p_cf + smoothing), normalised. Both are probabilities of the same labels."""
    ratios = [p / (free + smoothing) for p, free in zip(seeing, content_free, strict=True)]
    total = math.fsum(ratios)
    return tuple(ratio / total for ratio in ratios)


def summed(distributions: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Label by label over several distributions, normalised: their mean."""
    sums = [math.fsum(values) for values in zip(*distributions, strict=True)]
    total = math.fsum(sums)
    return tuple(value / total for value in sums)


def surface_forms(label: str) -> tuple[str, ...]:
    """How a response may begin that gives this label: with and without a space or a capital."""
    cases = (label[:1].upper() + label[1:], label[:1].lower() + label[1:])
    return tuple(dict.fromkeys(space + each for each in cases for space in (" ", "")))


def content_free_prompts(prompt: Prompt, kind: ContentFree) -> list[tuple[Prompt, bool]]:
    """The content-free inputs of a prompt, each with whether it has an image."""
    blank = replace(prompt, image=replace(prompt.image, corruption="blank"))
    inputs = {"none": (prompt, False), "blank": (blank, True)}
    return list(inputs.values()) if kind == "both" else [inputs[kind]]


def label_logprobs(queries: Sequence[LabelQuery], sampler: Sampler) -> list[tuple[float, ...]]:
    """Log-probability of each label of each query, in nats: at most two `score` calls.

    DataError where no response could begin with any form of a label.
    """
    rows = [
        (place, label, token_ids)
        for place, query in enumerate(queries)
        for label, forms in enumerate(query.forms)
        for token_ids in _beginnings(query, forms, sampler)
    ]
    found: list[list[list[float]]] = [[[] for _ in query.forms] for query in queries]
    for with_image in (True, False):
        asked = [row for row in rows if queries[row[0]].with_image is with_image]
        if not asked:
            continue
        prompts = [queries[place].prompt for place, _, _ in asked]
        scores = sampler.score(prompts, [ids for _, _, ids in asked], with_image=with_image)
        for (place, label, _), values in zip(asked, scores, strict=True):
            found[place][label].append(math.fsum(values))
    return [tuple(log_sum_exp(values) for values in labels) for labels in found]


def log_sum_exp(values: Sequence[float]) -> float:
    """log of the sum of the exponentials, without overflow."""
    largest = max(values)
    if largest == -math.inf:
        return largest
    return largest + math.log(math.fsum(math.exp(value - largest) for value in values))


def _beginnings(query: LabelQuery, forms: Sequence[str], sampler: Sampler) -> list[tuple[int, ...]]:
    """Token ids of the forms, none of which begins with another: each response counts once."""
    ids = {sampler.encode_beginning(query.prompt, form) for form in forms} - {()}
    if not ids:
        raise DataError(
            f"Prompt {query.prompt.prompt_id!r}: no response of this policy could begin with "
            f"{' or '.join(map(repr, forms))}, so its probability cannot be read. Word the label "
            "otherwise."
        )
    shortest: list[tuple[int, ...]] = []
    for each in sorted(ids, key=lambda each: (len(each), each)):
        if not any(each[: len(known)] == known for known in shortest):
            shortest.append(each)
    return shortest
