"""The formulas of `csr plan`: sizes and calls in; tokens, FLOPs, bytes and seconds out. All pure.

docs/planning.md derives each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from csr.planning import PlannedCall, PlannedTraining
from flows.planning.devices import EFFICIENCY, Device
from flows.planning.geometry import BYTES_OF, Geometry

Schedule = Literal["kept", "level_by_level", "none"]
"""What a call finds in the prefix cache: all that the calls before it read for the prompt; what it
read itself, since other prompts have displaced the rest; or nothing, where there is no cache."""

WORKSPACE_BYTES = 4e9
"""Of GPU memory, for activations, graphs and the libraries themselves. Assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """A policy on its engine: all that decides how fast it speaks."""

    geometry: Geometry
    device: Device
    num_gpus: int
    dtype: str
    image_tokens: int
    question_tokens: float
    """Of a prompt, beside its image."""
    max_sequences: int
    block_tokens: int | None
    """None where nothing read for one call is kept for the next."""
    capacity_tokens: float
    """That the KV cache holds."""
    num_views: int = 1

    @property
    def kv_bytes(self) -> int:
        """Of one token."""
        return self.geometry.kv_bytes_per_token(self.dtype)

    @property
    def flops(self) -> float:
        """A second, of all its GPUs, by the datasheet."""
        return self.device.flops(self.dtype) * self.num_gpus

    def prompt_tokens(self, call: PlannedCall) -> float:
        """Of one context's prompt, image included."""
        question = call.question_tokens
        own = self.question_tokens if question is None else question
        return own + (self.image_tokens if call.with_image else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the engine reads for one prompt in one call, or in several."""

    num_tokens: float = 0.0
    flops: float = 0.0
    """Of the language model on these tokens, and of the tower on these images."""

    def __add__(self, other: Reading) -> Reading:
        return Reading(
            num_tokens=self.num_tokens + other.num_tokens, flops=self.flops + other.flops
        )


# ---------------------------------------------------------------- the language model


def forward_flops(geometry: Geometry, num_tokens: float, context_tokens: float) -> float:
    """FLOPs of one forward pass over `num_tokens`, each seeing `context_tokens` in the mean."""
    matrices = 2.0 * geometry.matmul_parameters
    attention = 4.0 * geometry.num_layers * geometry.attention_width * context_tokens
    return num_tokens * (matrices + attention)


def image_flops(geometry: Geometry) -> float:
    """FLOPs of the tower on one image; 0 where its kind is not known."""
    return geometry.vision.flops_per_image if geometry.vision else 0.0


# ---------------------------------------------------------------- reading


def read_call(speaker: Speaker, call: PlannedCall, schedule: Schedule, *, first: bool) -> Reading:
    """What one call reads for one prompt. `first`: nothing was asked of this prompt before.

    A prefix that was sampled is in the cache as it was written. Of a sequence that is found there
    the last block, which is not full, is read again: half a block in the mean.
    """
    prompt = speaker.prompt_tokens(call)
    image = speaker.image_tokens if call.with_image else 0
    whole = prompt + call.prefix_tokens
    if schedule == "none":
        return _reading(speaker, call.num_sequences * whole, whole / 2, _images(call))
    reads_image = first or schedule == "level_by_level" or call.shared == "nothing"
    reads_question = reads_image or call.shared == "image"
    reads_prefix = reads_image or not call.prefix_known
    asked = min(call.num_questions, 1.0)
    new_tokens = (
        reads_image * asked * image
        + reads_question * call.num_questions * (prompt - image)
        + reads_prefix * call.distinct_prefix_tokens
    )
    new_sequences = reads_question * call.num_questions
    if reads_prefix and call.prefix_tokens:
        new_sequences = call.num_contexts
    half_block = min(((speaker.block_tokens or 1) + 1) / 2, whole)
    again = max(call.num_sequences - new_sequences, 0.0) * half_block
    num_images = asked if reads_image and call.with_image else 0.0
    return _reading(speaker, new_tokens, whole / 2, num_images) + _reading(
        speaker, again, whole, 0.0
    )


def read_calls(speaker: Speaker, calls: Sequence[PlannedCall], schedule: Schedule) -> Reading:
    """What all calls read for one prompt."""
    total = Reading()
    for place, call in enumerate(calls):
        total += read_call(speaker, call, schedule, first=place == 0)
    return total


def _images(call: PlannedCall) -> float:
    return call.num_sequences if call.with_image else 0.0


def _reading(
    speaker: Speaker, num_tokens: float, context_tokens: float, num_images: float
) -> Reading:
    flops = forward_flops(speaker.geometry, num_tokens, context_tokens)
    flops += num_images * image_flops(speaker.geometry)
    return Reading(num_tokens=num_tokens * speaker.num_views, flops=flops * speaker.num_views)


def prefill_seconds(speaker: Speaker, reading: Reading) -> float:
    """Of one prompt."""
    return reading.flops / (speaker.flops * EFFICIENCY.prefill_flops)


# ---------------------------------------------------------------- writing


def decode_seconds(
    speaker: Speaker, calls: Sequence[PlannedCall], num_prompts: float, wave_prompts: int
) -> float:
    """Seconds to write what all calls write for `num_prompts`, `wave_prompts` of them at a time."""
    return sum(_decode_call(speaker, call, wave_prompts) for call in calls) * num_prompts


def num_decoding(speaker: Speaker, context_tokens: float, num_waiting: float) -> float:
    """Sequences that are written at once: as many as are allowed, fit and wait.

    Each is counted with its whole context, as if siblings shared none: a lower bound.
    """
    fitting = speaker.capacity_tokens / context_tokens
    return max(min(speaker.max_sequences, fitting, num_waiting), 1.0)


def _decode_call(speaker: Speaker, call: PlannedCall, wave_prompts: int) -> float:
    """Seconds for one prompt: the slower of memory traffic and arithmetic.

    For each token the sequence's own keys and values are read, and for each step of the whole
    batch the weights.
    """
    num_tokens = call.all_generated_tokens * speaker.num_views
    if not num_tokens:
        return 0.0
    context = speaker.prompt_tokens(call) + call.prefix_tokens + call.generated_tokens / 2
    batch = num_decoding(speaker, context, wave_prompts * call.num_sequences)
    weights = speaker.geometry.matmul_parameters * BYTES_OF[speaker.dtype]
    traffic = weights / batch + speaker.kv_bytes * context
    bandwidth = speaker.device.bytes_per_second * speaker.num_gpus * EFFICIENCY.decode_bandwidth
    arithmetic = forward_flops(speaker.geometry, 1.0, context)
    rate = speaker.flops * EFFICIENCY.prefill_flops
    return num_tokens * max(traffic / bandwidth, arithmetic / rate)


def held_tokens(speaker: Speaker, calls: Sequence[PlannedCall]) -> float:
    """Tokens of KV cache that one prompt takes when all its calls are kept: its whole tree."""
    total = 0.0
    for place, call in enumerate(calls):
        image = speaker.image_tokens if call.with_image else 0
        reads_image = place == 0 or call.shared == "nothing"
        if reads_image and call.with_image:
            total += image * min(call.num_questions, 1.0)
        if reads_image or call.shared == "image":
            total += call.num_questions * (speaker.prompt_tokens(call) - image)
        if not call.prefix_known:
            total += call.distinct_prefix_tokens
        total += call.all_generated_tokens
    return total


# ---------------------------------------------------------------- training


def training_seconds(
    geometry: Geometry, device: Device, training: PlannedTraining, dtype: str, num_tokens: float
) -> float:
    """Seconds for all updates and the pass before them; a sequence has `num_tokens`.

    The frozen weights have no gradient of their own, so the backward pass costs one forward, plus
    attention and the adapter twice. Checkpointing repeats the forward pass. The tower is frozen,
    and read once a pass.
    """
    forward = forward_flops(geometry, num_tokens, num_tokens / 2)
    matrices = forward_flops(geometry, num_tokens, 0.0)
    attention = forward - matrices
    adapter = 2.0 * num_tokens * geometry.lora_parameters(training.lora_rank)
    tower = image_flops(geometry)
    num_forwards = 2 if training.gradient_checkpointing else 1
    update = num_forwards * (forward + adapter) + matrices + 2 * attention + 2 * adapter + tower
    updates = training.num_updates * training.sequences * update
    before = training.num_reference_rows * training.reference_sequences * (forward + tower)
    alone = training.num_processes == 1
    share = EFFICIENCY.training_flops if alone else EFFICIENCY.parallel_training_flops
    return (updates + before) / (device.flops(dtype) * share * training.num_processes)
