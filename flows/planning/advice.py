"""What a plan shows that its user may want to change."""

from __future__ import annotations

from collections.abc import Iterator

from csr.planning import PlannedTraining
from flows.planning.devices import EFFICIENCY
from flows.planning.memory import similarity_bytes
from flows.planning.parts import Parts
from flows.planning.stages import IterationPlan, Setting

_WORTH_TELLING = 0.05
"""Share of an iteration's time that something can save."""


def gpu_advice(parts: Parts, num_gpus: int | None) -> Iterator[str]:
    """Where the recipe uses other than the GPUs that are there."""
    engine, training, told = parts.engine, parts.training, []
    if engine is not None:
        one = parts.num_workers == 1
        setting = f"sampler.{engine.num_gpus_setting}" if one else "ray.num_workers"
        known = engine.num_gpus_setting or not one
        used = engine.num_gpus * engine.num_engines * parts.num_workers
        told.append((used, "sampler", setting if known else ""))
    if training is not None:
        name = training.num_processes_setting
        told.append((training.num_processes, "trainer", f"trainer.{name}" if name else ""))
    for used, section, setting in told:
        if num_gpus is None or used == num_gpus:
            continue
        mend = f" (--set {setting}={num_gpus})" if setting else ""
        if used > num_gpus:
            yield f"The {section} asks for {used} GPUs, and there are {num_gpus}{mend}."
        else:
            yield f"The {section} uses {used} of {num_gpus} GPUs, the others are idle{mend}."


def memory_advice(parts: Parts, plan: IterationPlan, setting: Setting) -> Iterator[str]:
    """Where something does not fit."""
    if not sampling_fits(parts, plan, setting):
        yield (
            "Sampling does not fit into the GPU's memory: the times of decoding mean nothing. Take "
            "a larger GPU, or more of them."
        )
    training = parts.training
    if training is None or training_fits(parts, plan, setting):
        return
    mends = []
    if not setting.own_processes:
        mends.append("isolation: process, so that the sampler is gone while it trains")
    if plan.training_dtype == "float32" and training.dtype == "auto" and training.dtype_setting:
        mends.append(f"trainer.{training.dtype_setting}=bfloat16")
    if not training.gradient_checkpointing and training.checkpointing_setting:
        mends.append(f"trainer.{training.checkpointing_setting}=true")
    mends.append("a smaller batch of the trainer")
    yield f"Training does not fit into the GPU's memory. What helps: {'; '.join(mends)}."


def time_advice(parts: Parts, plan: IterationPlan, setting: Setting) -> Iterator[str]:
    """What would save a share of the time that is worth telling."""
    worth = _WORTH_TELLING * plan.total_seconds
    sampling = plan.sampling
    if sampling and sampling.schedule == "level_by_level" and sampling.num_fitting >= 1:
        kept = sampling.prefill_seconds["kept"]
        if sampling.prefill_seconds["level_by_level"] - kept > worth:
            yield (
                f"A shard of {setting.shard_size} prompts does not fit into the KV cache, which "
                f"holds {sampling.num_fitting} whole trees: at --set "
                f"shard_size={sampling.num_fitting} reading takes {_hours(kept)} h an iteration "
                f"in place of {_hours(sampling.prefill_seconds['level_by_level'])}."
            )
    if setting.device.is_cpu:
        return
    yield from _widening_advice(parts.training, plan, setting, worth)
    slow = [each for each in parts.similarities if each.dtype == "float32" and each.dtype_setting]
    scoring = plan.seconds["sample: score"] or 0.0
    if slow and scoring > worth:
        yield (
            f"The similarity computes in float32, which takes {_hours(scoring)} h an iteration: at "
            f"16 bits (similarity.{slow[0].dtype_setting}) it would be about "
            f"{setting.device.flops_16_bit / setting.device.flops_32_bit:.0f} times as fast."
        )


def _widening_advice(
    training: PlannedTraining | None, plan: IterationPlan, setting: Setting, worth: float
) -> Iterator[str]:
    """float16 weights are trained in float32, which few GPUs are fast at."""
    seconds = plan.seconds["train"] or 0.0
    if training is None or training.dtype != "auto" or not training.dtype_setting:
        return
    if plan.training_dtype == "float32" and setting.geometry.dtype == "float16" and seconds > worth:
        faster = setting.device.flops_16_bit / setting.device.flops_32_bit
        yield (
            "The checkpoint is stored in float16, which training widens to float32. With --set "
            f"trainer.{training.dtype_setting}=bfloat16 it would be about {faster:.0f} times as "
            "fast and take half the memory; the frozen weights are then rounded to bfloat16's "
            "eight bits."
        )


def sampling_fits(parts: Parts, plan: IterationPlan, setting: Setting) -> bool:
    """Whether engine and similarities fit beside each other, with room for one tree at least."""
    memory, engine = plan.engine_memory, parts.engine
    if memory is None or engine is None:
        return True
    similar = sum(similarity_bytes(each) for each in parts.similarities)
    beside = memory.total_bytes / engine.num_gpus + similar <= setting.device.memory_bytes
    return beside and (plan.sampling is None or plan.sampling.num_fitting >= 1)


def training_fits(parts: Parts, plan: IterationPlan, setting: Setting) -> bool:
    """Whether training fits, beside a warm engine where that stays."""
    if plan.training_memory is None:
        return True
    beside = 0.0
    engine = parts.engine
    stays = not setting.own_processes and engine is not None and not engine.is_running
    if stays and plan.engine_memory is not None and engine is not None:
        beside = plan.engine_memory.total_bytes / engine.num_gpus
    return plan.training_memory.total_bytes + beside <= setting.device.memory_bytes


def _hours(seconds: float | None) -> str:
    return f"{(seconds or 0.0) / 3600:.2f}"


def assumptions(setting: Setting) -> list[str]:
    """What every plan takes for granted, one sentence each."""
    share = EFFICIENCY
    device = setting.device
    lines = [
        f"Decoding gets {share.decode_bandwidth:.0%} of the datasheet's memory bandwidth, reading "
        f"{share.prefill_flops:.0%} of its arithmetic, training {share.training_flops:.0%} on one "
        f"GPU and {share.parallel_training_flops:.0%} on each of several, a similarity "
        f"{share.similarity_flops:.0%}: usual shares, not measured by this project.",
        f"A prompt has {setting.image_tokens} tokens of image and {setting.question_tokens:g} of "
        "text.",
        f"An engine takes {device.engine_start_seconds:.0f} s to start beside reading its weights "
        "at 1 GB/s, and 4 GB of workspace.",
        "Several GPUs share a model without loss.",
    ]
    if device.is_cpu:
        lines.append(
            "The CPU is one of two cores with AVX2, 16 GB and two channels of DDR4-3200; what the "
            "libraries do beside arithmetic, which decides for tiny models, is not counted."
        )
    return lines
