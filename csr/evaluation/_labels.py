"""What closed-question benchmarks ask of a policy's probabilities, and how they read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from csr.label_calibration import (
    ContentFree,
    calibrated,
    content_free_prompts,
    log_sum_exp,
    probabilities,
    summed,
    surface_forms,
)
from csr.planning import PlannedCall, scoring_call
from csr.types import LabelQuery, Prompt

_FORM_TOKENS = 2
Calibration = Literal["none", "content_free"]
CalibrationScope = Literal["question", "dataset"]
"""`question`: by what the policy answers to this question without content; `dataset`: by the mean
of that over all questions with as many labels."""


def refuse_idle_calibration(
    calibration: Calibration, content_free: ContentFree, scope: CalibrationScope
) -> None:
    """ValueError where a benchmark's settings say how to calibrate, and it does not."""
    if calibration != "none":
        return
    for name, value, default in (
        ("content_free", content_free, "none"),
        ("calibration_scope", scope, "question"),
    ):
        if value != default:
            raise ValueError(
                f"{name} is {value}, which has no effect without calibration: content_free. Set "
                "that too, or leave it out."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelReading:
    """What a policy's probabilities say about one question. Labels by their place."""

    plain: tuple[float, ...]
    """Probabilities with the image, normalised over the labels."""
    calibrated: tuple[float, ...]
    """Without the habit that a content-free input shows; as `plain` where none was asked."""
    mass: float
    """Probability that a response begins with any label at all."""


def label_queries(
    prompts: Sequence[Prompt],
    forms: Sequence[Sequence[tuple[str, ...]]],
    content_free: ContentFree | None,
) -> list[LabelQuery]:
    """Of each prompt (its labels' forms stand in `forms`): with its image, then content-free."""
    queries = []
    for prompt, labels in zip(prompts, forms, strict=True):
        free = content_free_prompts(prompt, content_free) if content_free else []
        for asked, with_image in [(prompt, True), *free]:
            queries.append(LabelQuery(prompt=asked, forms=tuple(labels), with_image=with_image))
    return queries


def planned_label_calls(
    num_labels: int, content_free: ContentFree | None
) -> tuple[PlannedCall, ...]:
    """The `label_queries` of one prompt: every form of each label is scored, a token or two."""
    num_texts = num_labels * len(surface_forms("label"))
    calls = [scoring_call("labels", num_texts, _FORM_TOKENS)]
    if content_free in ("none", "both"):
        blind = {"with_image": False, "shared": "nothing"}
        calls.append(scoring_call("labels, no image", num_texts, _FORM_TOKENS, **blind))
    if content_free in ("blank", "both"):
        calls.append(scoring_call("labels, grey", num_texts, _FORM_TOKENS, shared="nothing"))
    return tuple(calls)


def read_labels(
    logprobs: Sequence[tuple[float, ...]], num_prompts: int, scope: CalibrationScope
) -> list[LabelReading]:
    """The readings of `num_prompts` prompts from the answers to their `label_queries`."""
    width = len(logprobs) // num_prompts
    assert width * num_prompts == len(logprobs), "each prompt has as many queries"
    groups = [logprobs[i : i + width] for i in range(0, len(logprobs), width)]
    seeing = [probabilities(group[0]) for group in groups]
    if width == 1:
        free = [(1 / len(plain),) * len(plain) for plain in seeing]  # no habit is known
    else:
        free = [summed([probabilities(each) for each in group[1:]]) for group in groups]
    if scope == "dataset":
        means = {n: summed([p for p in free if len(p) == n]) for n in set(map(len, free))}
        free = [means[len(p)] for p in free]
    return [
        LabelReading(
            plain=plain,
            calibrated=calibrated(plain, without),
            mass=min(math.exp(log_sum_exp(group[0])), 1.0),
        )
        for group, plain, without in zip(groups, seeing, free, strict=True)
    ]


def likeliest(values: Sequence[float]) -> int:
    """The place of the largest value, the first of equals."""
    return max(range(len(values)), key=lambda place: (values[place], -place))


def mean_mass(readings: Sequence[LabelReading]) -> float:
    """Where it is small, the policy would rather say something else than any label."""
    return sum(reading.mass for reading in readings) / len(readings)
