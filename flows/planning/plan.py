"""`csr plan`: what an iteration and the whole run will take, told before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from csr.errors import ConfigError
from csr.planning import ExpectedResponse
from csr.protocols import Json
from flows.config import WORLD_MARK, Recipe, of_iteration
from flows.planning import advice
from flows.planning.devices import Device, device_named
from flows.planning.geometry import Geometry, geometry_of
from flows.planning.memory import disk_of, ram_bytes, similarity_bytes
from flows.planning.parts import Parts, count_prompts, parts_of
from flows.planning.stages import IterationPlan, Setting, base_seconds, plan_iteration

WORLD_GEOMETRY = "tiny-world"
"""Of the embedded world's policy, which need not be built yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What a user may say beside the recipe. None leaves it to what the recipe and model tell."""

    gpu: str
    num_gpus: int | None = None
    num_prompts: int | None = None
    num_evaluation_prompts: int | None = None
    model_geometry: str | None = None
    image_tokens: int | None = None
    lessons_per_prompt: float | None = None
    question_tokens: int
    expected: ExpectedResponse


@dataclass(frozen=True, slots=True)
class _Planned:
    """Iterations that are alike, and their plan."""

    numbers: list[int]
    recipe: Recipe
    parts: Parts
    setting: Setting
    plan: IterationPlan


def plan(recipe: Recipe, request: PlanRequest) -> Json:
    """The shape that `docs/planning.md` tells: bytes and seconds, all of them estimates.

    ConfigError or ModelError where device, model or a size is not known.
    """
    device = device_named(request.gpu)
    geometry = geometry_of(recipe.policy.model, _known_geometry(recipe, request.model_geometry))
    image_tokens = _image_tokens(geometry, request.image_tokens)
    groups = [
        _planned(numbers, each, request, device, geometry, image_tokens)
        for numbers, each in _alike(recipe)
    ]
    first = groups[0]
    base = base_seconds(first.parts, first.setting)
    iterations = [_iteration_shape(group) for group in groups]
    num_rounds = recipe.num_iterations
    times = [len(group.numbers) * group.plan.total_seconds for group in groups]
    return {
        "estimate": True,
        "recipe": recipe.name,
        "device": {"name": device.name, "num_gpus": request.num_gpus, **_measured(device)},
        "model": _model_shape(geometry, image_tokens),
        "base_seconds": base,
        "iterations": iterations if num_rounds else [],
        "run": {
            "num_iterations": num_rounds,
            "seconds": base + (sum(times) if num_rounds else 0.0),
            "disk_bytes": sum(_disk_bytes(shape) for shape in iterations) if num_rounds else 0.0,
        },
        "advice": _distinct(
            line for group in groups if num_rounds for line in _advice(group, request)
        ),
        "assumptions": _assumptions(groups, request),
        "not_counted": _not_counted(recipe, geometry, groups),
    }


# ---------------------------------------------------------------- what is planned


def _alike(recipe: Recipe) -> list[tuple[list[int], Recipe]]:
    """Iterations by the settings that they follow; iteration 1 stands for a run of none."""
    groups: list[tuple[list[int], Recipe]] = []
    for number in range(1, max(recipe.num_iterations, 1) + 1):
        own = of_iteration(recipe, number)
        if groups and groups[-1][1] == own:
            groups[-1][0].append(number)
        else:
            groups.append(([number], own))
    return groups


def _planned(
    numbers: list[int],
    recipe: Recipe,
    request: PlanRequest,
    device: Device,
    geometry: Geometry,
    image_tokens: int,
) -> _Planned:
    num_prompts = count_prompts(recipe, request.num_prompts)
    parts = parts_of(
        recipe,
        request.expected,
        num_prompts,
        num_questions=request.num_evaluation_prompts,
        num_lessons=request.lessons_per_prompt,
    )
    setting = Setting(
        geometry=geometry,
        device=device,
        image_tokens=image_tokens,
        question_tokens=request.question_tokens,
        num_prompts=num_prompts,
        shard_size=recipe.shard_size,
        own_processes=recipe.isolation == "process",
    )
    return _Planned(numbers, recipe, parts, setting, plan_iteration(parts, setting))


def _known_geometry(recipe: Recipe, given: str | None) -> str | None:
    in_world = recipe.world is not None and recipe.policy.model.startswith(WORLD_MARK)
    return WORLD_GEOMETRY if given is None and in_world else given


def _image_tokens(geometry: Geometry, given: int | None) -> int:
    tokens = geometry.image_tokens if given is None else given
    if tokens is None:
        raise ConfigError(
            f"The configuration of {geometry.name} does not tell how many tokens an image takes "
            "in a prompt; in its family that depends on the image's size. Say it with "
            "--image-tokens N."
        )
    return tokens


# ---------------------------------------------------------------- how it is told


def _iteration_shape(group: _Planned) -> Json:
    plan, setting, parts = group.plan, group.setting, group.parts
    shape: Json = {
        "iterations": group.numbers,
        "num_prompts": setting.num_prompts,
        "shard_size": setting.shard_size,
        "seconds": plan.seconds,
        "total_seconds": plan.total_seconds,
        "sampling": None,
        "memory": {"sampling": _sampling_memory(group), "training": _training_memory(group)},
        "disk": None,
        "ram_bytes": None,
    }
    if (sampling := plan.sampling) is not None:
        shape["sampling"] = {
            "schedule": sampling.schedule,
            "prefill_seconds": sampling.prefill_seconds,
            "trees_in_kv_cache": sampling.num_fitting,
            "tokens_held_per_tree": sampling.held_tokens,
            "tokens_generated_per_prompt": sampling.generated_tokens,
            "tokens_read_per_prompt": sampling.read_tokens,
        }
    if (work := parts.work) is not None:
        disk = disk_of(setting.geometry, work, parts.training, setting.num_prompts)
        shape["disk"] = {
            "tables_bytes_per_prompt": disk.tables_bytes_per_prompt,
            "tables_bytes": disk.tables_bytes,
            "policy_bytes": disk.policy_bytes,
            "training_checkpoints_bytes": disk.checkpoint_bytes,
        }
        shape["ram_bytes"] = ram_bytes(
            setting.geometry,
            work,
            parts.engine,
            parts.training,
            setting.num_prompts,
            plan.training_dtype,
        )
    return shape


def _sampling_memory(group: _Planned) -> Json | None:
    memory = group.plan.engine_memory
    if memory is None:
        return None
    return {
        "weights_bytes": memory.weights_bytes,
        "kv_cache_bytes": memory.kv_cache_bytes,
        "kv_bytes_per_token": memory.kv_bytes_per_token,
        "capacity_tokens": memory.capacity_tokens,
        "similarity_bytes": sum(similarity_bytes(each) for each in group.parts.similarities),
        "total_bytes": memory.total_bytes,
        "fits": advice.sampling_fits(group.parts, group.plan, group.setting),
    }


def _training_memory(group: _Planned) -> Json | None:
    memory = group.plan.training_memory
    if memory is None:
        return None
    return {
        "dtype": group.plan.training_dtype,
        "weights_bytes": memory.weights_bytes,
        "adapter_and_optimizer_bytes": memory.adapter_bytes,
        "activations_bytes": memory.activation_bytes,
        "activations_bytes_plain": memory.activation_bytes_plain,
        "activations_bytes_checkpointed": memory.activation_bytes_checkpointed,
        "total_bytes": memory.total_bytes,
        "fits": advice.training_fits(group.parts, group.plan, group.setting),
    }


def _model_shape(geometry: Geometry, image_tokens: int) -> Json:
    return {
        "name": geometry.name,
        "num_parameters": geometry.num_parameters,
        "matmul_parameters": geometry.matmul_parameters,
        "stored_dtype": geometry.dtype,
        "image_tokens": image_tokens,
    }


def _measured(device: Device) -> Json:
    return {
        "memory_bytes": device.memory_bytes,
        "bytes_per_second": device.bytes_per_second,
        "flops_16_bit": device.flops_16_bit,
        "flops_32_bit": device.flops_32_bit,
        "measured_bytes_per_second": device.measured_bytes_per_second,
        "measured_flops_16_bit": device.measured_flops_16_bit,
    }


def _disk_bytes(shape: Json) -> float:
    """Of all iterations that the shape tells."""
    disk = shape["disk"]
    if disk is None:
        return 0.0
    return float(len(shape["iterations"]) * (disk["tables_bytes"] + disk["policy_bytes"]))


def _advice(group: _Planned, request: PlanRequest) -> list[str]:
    return [
        *advice.memory_advice(group.parts, group.plan, group.setting),
        *advice.time_advice(group.parts, group.plan, group.setting),
        *advice.gpu_advice(group.parts, request.num_gpus),
    ]


def _assumptions(groups: list[_Planned], request: PlanRequest) -> list[str]:
    expected = request.expected
    length = (
        f"A response has {expected.num_sentences} sentences of {expected.tokens_per_sentence:g} "
        "tokens, or as many as its limits allow."
    )
    notes = _distinct(
        note for group in groups if group.parts.work for note in group.parts.work.notes
    )
    return [length, *advice.assumptions(groups[0].setting), *notes]


def _not_counted(recipe: Recipe, geometry: Geometry, groups: list[_Planned]) -> list[str]:
    lines = _distinct(line for group in groups for line in group.parts.not_counted)
    if geometry.vision is None:
        lines.append("The image tower is of a kind that is not known here: its work and weights.")
    if geometry.image_tokens_are_most:
        lines.append("Images have as many tokens as they may: most have fewer (--image-tokens).")
    if recipe.world is not None:
        lines.append("Building the embedded world, once a machine.")
    lines.append("Decoding and hashing images, writing tables, reviewing by people, the gates.")
    return lines


def _distinct(lines: Any) -> list[str]:
    return list(dict.fromkeys(lines))
