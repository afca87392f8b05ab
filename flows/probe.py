"""Proof that the sampler speaks with the weights that were just trained."""

from __future__ import annotations

import math
from collections.abc import Sequence

from csr.errors import ModelError
from csr.protocols import Trainer
from csr.types import PolicyRef, Prompt
from flows.engines import Engines

ProbeText = tuple[Prompt, tuple[int, ...]]
"""What was asked, and a response's token ids."""

NUM_PROBE_TEXTS = 8
SMALLEST_POLICY_CHANGE = 1e-6
"""Nats per token. Below this the new weights cannot be told from the old ones."""
LARGEST_ERROR_SHARE = 0.5
"""Mean error over mean change. Stale weights have 1, half-arrived ones about a half, and rounding
in bf16 (1e-3 nats in the mean) far less, wherever training changed anything."""


def probe_policy(
    engines: Engines,
    trainer: Trainer,
    *,
    before: PolicyRef,
    after: PolicyRef,
    texts: Sequence[ProbeText],
    tolerance: float,
) -> dict[str, float]:
    """Score the first texts by both policies; leaves `after` in the sampler.

    ModelError where the sampler still speaks with the old weights, where it disagrees
    with the trainer's own forward pass by more than `tolerance` nats on a token, or where it
    is not clearly nearer to the new policy than to the old one.
    """
    prompts = [prompt for prompt, _ in texts[:NUM_PROBE_TEXTS]]
    token_ids = [ids for _, ids in texts[:NUM_PROBE_TEXTS]]
    # The trainer frees its model when it has scored; a sampler that starts only then finds room.
    expected = trainer.score(after.model_path, prompts, token_ids)
    old = engines.sampler(before).score(prompts, token_ids)
    new = engines.sampler(after).score(prompts, token_ids)
    changes, errors = _differences(old, new), _differences(new, expected)
    change, error = max(changes), max(errors)
    # Written so that NaN, which compares false with everything, is refused too.
    if not change > SMALLEST_POLICY_CHANGE:
        raise ModelError(
            f"After training, the sampler's log-probabilities moved by {change:.2g} nats at most: "
            "either training changed nothing (learning rate too small?) or the sampler still "
            "speaks with the old weights. The previous policy stays current."
        )
    if not error <= tolerance:
        raise ModelError(
            f"The sampler and the trainer disagree on the new policy by {error:.2g} nats per token "
            f"(probe_tolerance is {tolerance:.2g}). The weights did not arrive as trained; in "
            "bf16 raise probe_tolerance to about 0.1. The previous policy stays current."
        )
    missed, moved = math.fsum(errors), math.fsum(_differences(old, expected))
    if not missed < LARGEST_ERROR_SHARE * moved:
        raise ModelError(
            f"The sampler's log-probabilities differ from the new policy's by {missed:.2g} nats "
            f"over all probed tokens, where training changed {moved:.2g}: the new weights did not "
            "reach it whole, or training changed less than this dtype can hold (raise the learning "
            "rate, or use float32). The previous policy stays current."
        )
    return {
        "probe_largest_change": change,
        "probe_largest_error": error,
        "probe_error_share": missed / moved,
    }


def _differences(left: Sequence[Sequence[float]], right: Sequence[Sequence[float]]) -> list[float]:
    """Of each token, without sign; all NaN where one is, since max() may drop a NaN."""
    differences = [
        abs(a - b)
        for one, other in zip(left, right, strict=True)
        for a, b in zip(one, other, strict=True)
    ]
    return [math.nan] if any(map(math.isnan, differences)) else differences
