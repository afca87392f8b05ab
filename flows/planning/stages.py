"""What one iteration takes, stage by stage, from what its parts tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from csr.planning import PlannedCall, PlannedSimilarity, PlannedWork
from flows.planning import costs
from flows.planning.costs import Schedule, Speaker
from flows.planning.devices import EFFICIENCY, Device
from flows.planning.geometry import BYTES_OF, Geometry
from flows.planning.memory import (
    PAIRING_SECONDS_PER_NODE,
    EngineMemory,
    TrainingMemory,
    cache_of,
    engine_memory,
    training_memory,
)
from flows.planning.parts import Parts

READ_BYTES_PER_SECOND = 1e9
"""Of weights, from disk to an engine. Assumed."""
SCHEDULES: tuple[Schedule, ...] = ("kept", "level_by_level", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What an iteration is planned for, beside its parts."""

    geometry: Geometry
    device: Device
    image_tokens: int
    question_tokens: float
    num_prompts: int
    shard_size: int
    own_processes: bool
    """Whether engine stages run in processes of their own, which start engines anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the trees of one iteration grow."""

    schedule: Schedule
    decode_seconds: float
    prefill_seconds: dict[Schedule, float]
    """What each schedule would take; those that the engine cannot have are left out."""
    num_fitting: int
    """Whole trees that the KV cache holds."""
    held_tokens: float
    """Of a tree, prompt included."""
    generated_tokens: float
    """For a prompt."""
    read_tokens: float
    """For a prompt, by the schedule."""

    @property
    def read_seconds(self) -> float:
        """By the schedule."""
        return self.prefill_seconds[self.schedule]


@dataclass(frozen=True, slots=True, kw_only=True)
class IterationPlan:
    """Seconds are None where a component does not tell."""

    seconds: dict[str, float | None]
    """Stage, or a part of one -> seconds, in the order in which they run."""
    sampling: Sampling | None
    engine_memory: EngineMemory | None
    training_memory: TrainingMemory | None
    training_dtype: str

    @property
    def total_seconds(self) -> float:
        """Of all that is known."""
        return sum(value or 0.0 for value in self.seconds.values())


def plan_iteration(parts: Parts, setting: Setting) -> IterationPlan:
    """One iteration, start-up of its engines included."""
    memory, speaker = _speaker(parts, setting)
    work, training, tokens = parts.work, parts.training, _lesson_tokens(parts, setting)
    sampling = (
        _sampling(work, _of_one_engine(parts, setting), speaker) if speaker and work else None
    )
    dtype = training_dtype(setting.geometry, training.dtype if training else "auto")
    held, trained, share = None, None, _share_of_a_worker(parts, setting)
    if training is not None:
        held = training_memory(setting.geometry, training, dtype, tokens)
        trained = costs.training_seconds(setting.geometry, setting.device, training, dtype, tokens)
    seconds = {
        "start-up": start_seconds(parts, setting),
        "measure": _measure_seconds(parts, setting, speaker),
        "sample: decode": share * sampling.decode_seconds if sampling else None,
        "sample: prefill": share * sampling.prefill_seconds[sampling.schedule]
        if sampling
        else None,
        "sample: score": share * _score_seconds(parts, setting) if work else None,
        "pair": setting.num_prompts * work.num_nodes * PAIRING_SECONDS_PER_NODE if work else None,
        "train": trained,
        "evaluate": evaluate_seconds(parts, setting, speaker),
    }
    return IterationPlan(
        seconds=seconds,
        sampling=sampling,
        engine_memory=memory,
        training_memory=held,
        training_dtype=dtype,
    )


def training_dtype(geometry: Geometry, asked: str) -> str:
    """In which a trainer works; float16 overflows in training, so it is widened."""
    if asked != "auto":
        return asked
    return "float32" if geometry.dtype == "float16" else geometry.dtype


def base_seconds(parts: Parts, setting: Setting) -> float:
    """Before the first iteration: an engine starts, and the base model is evaluated."""
    _, speaker = _speaker(parts, setting)
    return _engine_start_seconds(parts, setting) + (
        evaluate_seconds(parts, setting, speaker) or 0.0
    )


def start_seconds(parts: Parts, setting: Setting) -> float:
    """Engines that start in one iteration, and weights that are read for trainer and probe.

    In processes of their own, an engine starts for the probe after training, and another one for
    the evaluation, which the next iteration goes on with. Else the warm one takes new weights.
    """
    reading = _weights_seconds(setting)
    trainer = 2 * reading if parts.training else 0.0
    anew = 2 * _engine_start_seconds(parts, setting)
    return trainer + (anew if setting.own_processes else reading)


def _weights_seconds(setting: Setting) -> float:
    geometry = setting.geometry
    return geometry.num_parameters * BYTES_OF[geometry.dtype] / READ_BYTES_PER_SECOND


def _engine_start_seconds(parts: Parts, setting: Setting) -> float:
    if parts.engine is not None and parts.engine.is_running:
        return 0.0
    return setting.device.engine_start_seconds + _weights_seconds(setting)


# ---------------------------------------------------------------- the sampler's stages


def _speaker(parts: Parts, setting: Setting) -> tuple[EngineMemory | None, Speaker | None]:
    engine, geometry = parts.engine, setting.geometry
    if engine is None:
        return None, None
    dtype = geometry.dtype if engine.dtype == "auto" else engine.dtype
    memory = engine_memory(geometry, setting.device, engine, dtype)
    cache = cache_of(engine, setting.device)
    return memory, Speaker(
        geometry=geometry,
        device=setting.device,
        num_gpus=engine.num_gpus,
        dtype=dtype,
        image_tokens=setting.image_tokens,
        question_tokens=setting.question_tokens,
        max_sequences=engine.max_sequences,
        block_tokens=cache.block_tokens if cache else None,
        capacity_tokens=memory.capacity_tokens,
        num_views=engine.num_views,
    )


def _sampling(work: PlannedWork, setting: Setting, speaker: Speaker) -> Sampling:
    calls = work.calls
    batch = min(setting.shard_size, setting.num_prompts)
    wave = _wave_prompts(speaker, calls, batch) if work.in_waves else batch
    schedule = schedule_of(speaker, calls, wave)
    possible = SCHEDULES if speaker.block_tokens else SCHEDULES[-1:]
    readings = {each: costs.read_calls(speaker, calls, each) for each in possible}
    held = costs.held_tokens(speaker, calls)
    return Sampling(
        schedule=schedule,
        decode_seconds=costs.decode_seconds(speaker, calls, setting.num_prompts, wave),
        prefill_seconds={
            each: costs.prefill_seconds(speaker, reading) * setting.num_prompts
            for each, reading in readings.items()
        },
        num_fitting=int(speaker.capacity_tokens / held),
        held_tokens=held,
        generated_tokens=sum(call.all_generated_tokens for call in calls),
        read_tokens=readings[schedule].num_tokens,
    )


def _of_one_engine(parts: Parts, setting: Setting) -> Setting:
    """The part of each shard that one of several engines has."""
    num = _num_engines(parts)
    return replace(
        setting,
        num_prompts=math.ceil(setting.num_prompts / num),
        shard_size=math.ceil(setting.shard_size / num),
    )


def _num_engines(parts: Parts) -> int:
    return parts.engine.num_engines if parts.engine else 1


def _share_of_a_worker(parts: Parts, setting: Setting) -> float:
    """Of all shards, those that the busiest worker samples one after another."""
    num_shards = math.ceil(setting.num_prompts / setting.shard_size)
    return math.ceil(num_shards / parts.num_workers) / num_shards


def _wave_prompts(speaker: Speaker, calls: Sequence[PlannedCall], num_prompts: int) -> int:
    """Prompts that grow at once where as many are begun as the cache holds, one at least."""
    if speaker.block_tokens is None:
        return num_prompts
    fitting = int(speaker.capacity_tokens / costs.held_tokens(speaker, calls))
    return max(min(num_prompts, fitting), 1)


def schedule_of(speaker: Speaker, calls: Sequence[PlannedCall], num_prompts: int) -> Schedule:
    """So many prompts take turns, call after call: all fit, or each displaces the next."""
    if speaker.block_tokens is None:
        return "none"
    fitting = speaker.capacity_tokens / costs.held_tokens(speaker, calls)
    return "kept" if num_prompts <= fitting else "level_by_level"


def _asking_seconds(
    speaker: Speaker, calls: Sequence[PlannedCall], num_prompts: int, batch: int
) -> float:
    """Reading and writing of all calls."""
    schedule = schedule_of(speaker, calls, min(batch, num_prompts))
    reading = costs.read_calls(speaker, calls, schedule)
    writing = costs.decode_seconds(speaker, calls, num_prompts, min(batch, num_prompts))
    return writing + costs.prefill_seconds(speaker, reading) * num_prompts


def _measure_seconds(parts: Parts, setting: Setting, speaker: Speaker | None) -> float | None:
    if not parts.captions:
        return 0.0
    if speaker is None:
        return None
    num = parts.num_captions
    texts = _compared_seconds(parts.similarities, setting.device, num, num * len(parts.captions))
    own = math.ceil(num / _num_engines(parts))
    return _asking_seconds(speaker, parts.captions, own, own) + texts


def evaluate_seconds(parts: Parts, setting: Setting, speaker: Speaker | None) -> float | None:
    """All benchmarks whose number of questions is known."""
    if speaker is None:
        return None
    engines = _num_engines(parts)
    return sum(
        _asking_seconds(
            speaker,
            questions.calls,
            math.ceil(num / engines),
            math.ceil(setting.shard_size / engines),
        )
        for questions, num in parts.questions
    )


# ---------------------------------------------------------------- the others


def _lesson_tokens(parts: Parts, setting: Setting) -> float:
    """Of one sequence in training."""
    work = parts.work
    response = work.lesson_tokens + work.lesson_extra_tokens if work else 0.0
    return setting.image_tokens + setting.question_tokens + response


def _score_seconds(parts: Parts, setting: Setting) -> float:
    assert parts.work is not None
    num_texts = setting.num_prompts * parts.work.num_compared_texts
    return _compared_seconds(parts.similarities, setting.device, setting.num_prompts, num_texts)


def _compared_seconds(
    similarities: Sequence[PlannedSimilarity], device: Device, num_images: float, num_texts: float
) -> float:
    """Each image and each text is read once by each model, in full batches."""
    if not num_texts:
        return 0.0
    return sum(
        (num_images * each.flops_per_image + num_texts * each.flops_per_text)
        / (device.flops(each.dtype) * EFFICIENCY.similarity_flops)
        for each in similarities
    )
