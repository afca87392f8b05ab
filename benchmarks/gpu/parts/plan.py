"""Hours of one iteration over 12,000 prompts, from what was measured.

Two readings of CSR's sampling: `chains`, five responses that grow on their own, and `tree`, five
first sentences and five more for each of three kept ones. Every result names its formula; what
cannot be told for lack of a figure is None.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.gpu.record import Json, figures

NUM_PROMPTS = 12_000
NUM_LEVELS = 8
STEP_TOKENS = 20
CANDIDATES = 5
_BLOCK_TOKENS = 16
"""Of vLLM's KV cache on a GPU. On average half a block of a known prompt is read anew."""
_HOUR = 3600.0

FORMULAS = {
    "decode": "P·N·T / d",
    "prefill_waves": "P·(L + N·b/2) / f + P·i",
    "prefill_levels": "P·(Σ_levels (L + K·prefix) + N·b/2) / f + P·i",
    "prefill_none": "P·Σ_requests (L + prefix) / f + P·i",
    "sampling_…": "decode + prefill_…",
    "similarity": "P / c_images + P·N / c_texts",
    "reference": "P·r",
    "training": "P·s",
    "update": "reload + engine start",
    "total": "sampling_waves + similarity + reference + training + update",
    "search_waves": "P / prompts a second of the whole search, as it was measured",
    "search_levels": "the same, level by level",
}
"""P prompts, N candidates a prompt, T tokens a sentence, L tokens of a prompt with its image,
K open nodes a level, prefix = T·(level - 1), b tokens a cache block; measured: d sampled tokens a
second, f prompt tokens a second, i seconds an image, c similarities a second, r and s seconds a
pair for the reference and for a step. All divided by 3,600."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the arithmetic needs; None where it was not measured."""

    prompt_tokens: float | None
    decode_rate: float | None
    prefill_rate: float | None
    seconds_per_image: float | None
    image_rate: float | None
    text_rate: float | None
    reference_seconds: float | None
    step_seconds: float | None
    update_seconds: float | None
    waves_rate: float | None
    levels_rate: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How many sentences a prompt's sampling takes."""

    num_open: int
    """Nodes of a level that are continued."""
    children: int
    """Candidates of each."""

    @property
    def candidates(self) -> int:
        """Sampled sentences of a prompt."""
        return CANDIDATES + (NUM_LEVELS - 1) * self.num_open * self.children


READINGS = {
    "chains": Reading(num_open=CANDIDATES, children=1),
    "tree": Reading(num_open=3, children=CANDIDATES),
}


def derive(document: Json) -> Json:
    """Hours by reading, with the inputs that they were made of."""
    measured = _measured(document)
    inputs = {name: getattr(measured, name) for name in Measured.__slots__}
    return {
        "num_prompts": NUM_PROMPTS,
        "num_levels": NUM_LEVELS,
        "step_tokens": STEP_TOKENS,
        "block_tokens": _BLOCK_TOKENS,
        "formulas": FORMULAS,
        "measured": inputs,
        "not_measured": sorted(name for name, value in inputs.items() if value is None),
        "hours": {name: hours(measured, reading) for name, reading in READINGS.items()},
    }


def hours(measured: Measured, reading: Reading) -> dict[str, float | None]:
    """One iteration's parts by `FORMULAS`."""
    prompts, num = NUM_PROMPTS, reading.candidates
    prefixes = [STEP_TOKENS * level for level in range(NUM_LEVELS)]
    length = measured.prompt_tokens
    tail = num * _BLOCK_TOKENS / 2
    found: dict[str, float | None] = {
        "decode": _over(prompts * num * STEP_TOKENS, measured.decode_rate)
    }
    tokens: dict[str, float | None] = dict.fromkeys(("waves", "levels", "none"))
    if length is not None:
        opened = reading.num_open
        sampled = [CANDIDATES, *[opened * reading.children] * (NUM_LEVELS - 1)]
        tokens["waves"] = length + tail
        tokens["levels"] = sum(length + opened * prefix for prefix in prefixes) + tail
        tokens["none"] = sum(
            count * (length + prefix) for count, prefix in zip(sampled, prefixes, strict=True)
        )
    images = _times(prompts, measured.seconds_per_image)
    for name, each in tokens.items():
        reading_prompts = None if each is None else _over(prompts * each, measured.prefill_rate)
        found[f"prefill_{name}"] = _sum(reading_prompts, images)
        found[f"sampling_{name}"] = _sum(found["decode"], found[f"prefill_{name}"])
    found["similarity"] = _sum(
        _over(prompts, measured.image_rate), _over(prompts * num, measured.text_rate)
    )
    found["reference"] = _times(prompts, measured.reference_seconds)
    found["training"] = _times(prompts, measured.step_seconds)
    found["update"] = _times(1, measured.update_seconds)
    names = ("sampling_waves", "similarity", "reference", "training", "update")
    found["total"] = _sum(*(found[name] for name in names))
    if num == READINGS["tree"].candidates:  # the shape that the search itself was measured with
        found["search_waves"] = _over(prompts, measured.waves_rate)
        found["search_levels"] = _over(prompts, measured.levels_rate)
    return found


def _measured(document: Json) -> Measured:
    decode, prefill, clip = (figures(document, name) for name in ("decode", "prefill", "clip"))
    dpo, waves = (figures(document, name) for name in ("dpo", "waves"))
    # The largest batch that was reached, as the sampler asks.
    rows: list[Json] = decode.get("rows", [])
    best = max(rows, key=lambda row: row["batch"])["sampled"] if rows else {}
    image = prefill.get("seconds_per_image")
    reload = _middle(figures(document, "reload"), "seconds")
    start = decode.get("engine_start_seconds")
    training = dpo.get("without") or {}
    return Measured(
        prompt_tokens=decode.get("prompt_tokens") or prefill.get("prompt_tokens"),
        decode_rate=best.get("decode_tokens_per_second") or _middle(best, "tokens_per_second"),
        prefill_rate=prefill.get("text", {}).get("tokens_per_second"),
        seconds_per_image=None if image is None else max(image, 0.0),
        image_rate=_middle(clip.get("images", {}), "batched_per_second"),
        text_rate=_middle(clip.get("texts", {}), "batched_per_second"),
        reference_seconds=training.get("reference_seconds_per_pair"),
        step_seconds=training.get("seconds_per_pair"),
        update_seconds=None if reload is None or start is None else reload + start,
        waves_rate=_middle(waves.get("stream", {}), "prompts_per_second"),
        levels_rate=_middle(waves.get("levels", {}), "prompts_per_second"),
    )


def _middle(where: Json, name: str) -> float | None:
    value = where.get(name, {}).get("median")
    return None if value is None else float(value)


def _over(amount: float, rate: float | None) -> float | None:
    """Hours."""
    return None if not rate else amount / rate / _HOUR


def _times(number: float, seconds: float | None) -> float | None:
    """Hours."""
    return None if seconds is None else number * seconds / _HOUR


def _sum(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
