"""What the raw parts of a reward look like on the policy's own captions.

The `centred` calibration measures a sentence against these figures, so that it earns
reward for being better than the policy's usual sentence, not for being there.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from csr.errors import ConfigError, NumericalError
from csr.limits import reaches_limit
from csr.protocols import Progress, Sampler, Similarity, StepSettings
from csr.types import FinishReason, Prompt, StepCandidate, StepGroup, StepRequest
from csr.waves import in_waves
from rewards.likelihood import LikelihoodKind
from rewards.raw import Evidence, RawParts, measure

StatisticsScope = Literal["first", "all"]
"""`first`: over the first sentences only; `all`: over every sentence."""

MAX_CAPTION_STEPS = 12
"""Sentences of a caption that is sampled for the statistics."""
MIN_VALUES = 8
"""Fewer values than this give no standard deviation worth dividing by."""


class Moments(BaseModel):
    """Mean and population standard deviation of `count` values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    sd: float
    count: int


class Statistics(BaseModel):
    """What `centred` needs to know. Plain JSON: stored with the iteration.

    Example: `Statistics(likelihood=Moments(mean=-0.6, sd=0.2, count=150),
    image_similarity=Moments(mean=27.1, sd=3.4, count=480), likelihood_kind="mean_logprob",
    likelihood_scope="first")`
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    likelihood: Moments
    image_similarity: Moments | None
    """100 x cosine; None where no similarity measured it."""
    likelihood_kind: LikelihoodKind
    likelihood_scope: StatisticsScope
    evidence: dict[str, Moments] = {}
    """Of each further part that was measured, by name."""
    evidence_inputs: dict[str, dict[str, Any]] = {}
    """The settings by which each was measured."""


def measure_statistics(
    captions: Sequence[Sequence[RawParts]],
    *,
    likelihood_kind: LikelihoodKind,
    likelihood_scope: StatisticsScope = "first",
) -> Statistics:
    """Statistics of sampled captions, each given as the raw parts of its steps in order.

    Image similarity and evidence are taken over all sentences; the likelihood over first sentences
    unless `likelihood_scope` is "all", since later sentences repeat the form of the first
    and are likelier for that alone. Steps without words do not count.
    ConfigError where there are too few values or they do not vary.
    """
    sentences = [[step for step in caption if step.is_sentence] for caption in captions]
    last = 1 if likelihood_scope == "first" else None
    likelihoods = [step.likelihood for caption in sentences for step in caption[:last]]
    images = [step.image_similarity for caption in sentences for step in caption]
    measured = [value for value in images if value is not None]
    return Statistics(
        likelihood=_moments("likelihood", likelihoods),
        image_similarity=_moments("image_similarity", measured) if measured else None,
        likelihood_kind=likelihood_kind,
        likelihood_scope=likelihood_scope,
        evidence=_evidence_moments([step for caption in sentences for step in caption]),
    )


def sample_statistics(
    prompts: Sequence[Prompt],
    *,
    sampler: Sampler,
    similarity: Similarity | None,
    settings: StepSettings,
    likelihood_kind: LikelihoodKind,
    likelihood_scope: StatisticsScope,
    seed: int,
    progress: Progress,
    num_captions: int = 150,
    max_steps: int = MAX_CAPTION_STEPS,
    num_waves: int = 1,
    evidence: Mapping[str, Evidence] | None = None,
    evidence_inputs: Mapping[str, dict[str, Any]] | None = None,
) -> Statistics:
    """Sample `num_captions` captions of `prompts` (cyclically) at temperature 1 and measure them.

    `settings` are the search's own; one caption a request, all captions of a wave advance one
    sentence a call. Errors as in `measure_statistics`.
    """
    if not prompts:
        raise ConfigError("The calibration statistics need prompts to caption; none were given.")
    alone = replace(settings, num_candidates=1, temperature=1.0, diversity="sample")
    asked = [prompts[i % len(prompts)] for i in range(num_captions)]
    seeds = [_seed(seed, prompt.prompt_id, i // len(prompts)) for i, prompt in enumerate(asked)]
    seeded = list(zip(asked, seeds, strict=True))
    parts: list[list[RawParts]] = []
    for wave, shown in in_waves(seeded, num_waves, progress):
        captions = _sample_captions(wave, sampler, alone, max_steps, shown)
        groups = _groups([prompt for prompt, _ in wave], captions)
        raw = iter(measure(groups, similarity, likelihood_kind, evidence))
        parts += [[next(raw)[0] for _ in caption] for caption in captions]
    found = measure_statistics(
        parts, likelihood_kind=likelihood_kind, likelihood_scope=likelihood_scope
    )
    return found.model_copy(update={"evidence_inputs": dict(evidence_inputs or {})})


def _groups(
    prompts: Sequence[Prompt], captions: Sequence[Sequence[StepCandidate]]
) -> list[StepGroup]:
    """One for each step of each caption."""
    return [
        StepGroup(prompt=prompt, prefix=tuple(caption[:i]), candidates=(step,))
        for prompt, caption in zip(prompts, captions, strict=True)
        for i, step in enumerate(caption)
    ]


def _sample_captions(
    seeded: Sequence[tuple[Prompt, int]],
    sampler: Sampler,
    settings: StepSettings,
    max_steps: int,
    progress: Progress,
) -> list[tuple[StepCandidate, ...]]:
    prompts, seeds = [prompt for prompt, _ in seeded], [seed for _, seed in seeded]
    captions: list[tuple[StepCandidate, ...]] = [() for _ in prompts]
    active = list(range(len(prompts)))
    depth = 0
    while active:
        requests = [
            StepRequest(prompt=prompts[i], prefix=captions[i], seed=_seed(seeds[i], "step", depth))
            for i in active
        ]
        for i, candidates in zip(active, sampler.sample_steps(requests, settings), strict=True):
            captions[i] = (*captions[i], candidates[0])
        active = [i for i in active if _goes_on(captions[i], max_steps)]
        progress(len(prompts) - len(active), len(prompts))
        depth += 1
    return captions


def _goes_on(caption: tuple[StepCandidate, ...], max_steps: int) -> bool:
    ended = caption[-1].finish_reason is FinishReason.EOS
    return not ended and not reaches_limit(caption, max_steps)


def _evidence_moments(steps: Sequence[RawParts]) -> dict[str, Moments]:
    names = steps[0].evidence if steps else {}
    return {name: _moments(name, [step.evidence[name] for step in steps]) for name in names}


def _seed(seed: int, name: str, number: int) -> int:
    digest = hashlib.sha256(f"statistics\x1f{seed}\x1f{name}\x1f{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _moments(name: str, values: Sequence[float]) -> Moments:
    if len(values) < MIN_VALUES:
        raise ConfigError(
            f"The {name} was measured on {len(values)} sentences; the centred calibration needs at "
            f"least {MIN_VALUES}. Raise the recipe's num_statistics_prompts, or choose another "
            "reward.calibration."
        )
    mean = math.fsum(values) / len(values)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    if not math.isfinite(sd):
        raise NumericalError(f"The {name} of the sampled captions is not finite (mean {mean}).")
    # Equal values leave rounding noise, which is no spread.
    if sd <= 1e-9 * max(1.0, abs(mean)):
        raise ConfigError(
            f"The {name} is {mean:.6g} for all {len(values)} sampled sentences: without spread "
            "there is no standard deviation to calibrate by. The policy repeats itself, or the "
            "similarity does not look at its input."
        )
    return Moments(mean=mean, sd=sd, count=len(values))
