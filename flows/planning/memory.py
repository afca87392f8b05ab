"""Bytes that `csr plan` counts: on a GPU, in RAM and on disk. All pure."""

from __future__ import annotations

from dataclasses import dataclass

from csr.planning import (
    PlannedCache,
    PlannedEngine,
    PlannedSimilarity,
    PlannedTraining,
    PlannedWork,
)
from flows.planning.costs import WORKSPACE_BYTES
from flows.planning.devices import Device
from flows.planning.geometry import BYTES_OF, Geometry

NODE_BYTES, NODE_TOKEN_BYTES = 150.0, 6.0
"""Of the table `nodes`: a row, and each of its tokens, compressed."""
RESPONSE_BYTES, RESPONSE_TOKEN_BYTES = 135.0, 0.28
"""Of `responses`, whose paths repeat each other's beginnings."""
LESSON_BYTES, LESSON_TOKEN_BYTES = 780.0, 2.0
"""Of `pairs`, with the tokens of both sides, and of `demonstrations`."""
PAIRING_NODE_BYTES, PAIRING_TOKEN_BYTES = 4000.0, 75.0
"""RAM while all trees of an iteration are read to be paired: of a node, and of each token."""
PAIRING_SECONDS_PER_NODE = 5e-5
"""The four constants before and this one: measured on one core with made-up trees."""

ADAPTER_BYTES = 4
"""Of an adapter's weight: float32, whatever the policy's type."""
_TRAINED_BYTES = 16
"""Of an adapter's weight in training: itself, its gradient and two moments, in float32."""
_CHECKPOINT_BYTES = 12
"""Of an adapter's weight in a checkpoint: itself and two moments."""
_NORM_BYTES = 24
"""Of a layer's activations, for each unit of width: see docs/planning.md."""

LIBRARY_RAM_BYTES = 4e9
"""Of one process with torch and an engine in it. Assumed."""
IMAGE_RAM_BYTES = 2.3e6
"""A decoded image of 640 x 480 pixels, and a tower's input of 336 x 336 in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineMemory:
    """One sampler on its GPUs; bytes over all of them."""

    total_bytes: float
    """That it may use."""
    weights_bytes: float
    kv_bytes_per_token: int
    kv_cache_bytes: float
    """What is left for keys and values; below 0 where weights alone do not fit."""

    @property
    def capacity_tokens(self) -> float:
        """That the KV cache holds."""
        return max(self.kv_cache_bytes, 0.0) / self.kv_bytes_per_token


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingMemory:
    """One process on its GPU, in bytes."""

    weights_bytes: float
    adapter_bytes: float
    """Adapter, gradients and optimiser."""
    activation_bytes: float
    """As configured."""
    activation_bytes_checkpointed: float
    """With gradient checkpointing."""
    activation_bytes_plain: float
    """Without it."""

    @property
    def total_bytes(self) -> float:
        """With what the libraries take."""
        return self.weights_bytes + self.adapter_bytes + self.activation_bytes + WORKSPACE_BYTES


def cache_of(engine: PlannedEngine, device: Device) -> PlannedCache | None:
    """The prefix cache that the engine has there."""
    return engine.cpu_cache if device.is_cpu else engine.cache


def engine_memory(
    geometry: Geometry, device: Device, engine: PlannedEngine, dtype: str
) -> EngineMemory:
    """Weights and KV cache of an engine."""
    weights = float(geometry.num_parameters * BYTES_OF[dtype])
    total = device.memory_bytes * engine.num_gpus * engine.memory_share
    cache = cache_of(engine, device)
    left = total - weights - WORKSPACE_BYTES * engine.num_gpus
    fixed = cache.num_bytes if cache else None
    if fixed is not None:
        total = weights + fixed + WORKSPACE_BYTES * engine.num_gpus
    return EngineMemory(
        total_bytes=total,
        weights_bytes=weights,
        kv_bytes_per_token=geometry.kv_bytes_per_token(dtype),
        kv_cache_bytes=left if fixed is None else fixed,
    )


def similarity_bytes(similarity: PlannedSimilarity | None) -> float:
    """Weights of an image-text model; 0 where its size is not known."""
    return similarity.num_parameters * BYTES_OF[similarity.dtype] if similarity else 0.0


def training_memory(
    geometry: Geometry, training: PlannedTraining, dtype: str, num_tokens: float
) -> TrainingMemory:
    """What one process holds; a sequence has `num_tokens`."""
    sequences = training.batch_size * training.sequences
    per_layer = _layer_bytes(geometry, dtype)
    inputs = geometry.width * BYTES_OF[dtype]
    plain = sequences * num_tokens * geometry.num_layers * per_layer
    checkpointed = sequences * num_tokens * (geometry.num_layers * inputs + per_layer)
    num_parts = training.num_processes if training.is_sharded else 1
    adapter = _TRAINED_BYTES * geometry.lora_parameters(training.lora_rank)
    return TrainingMemory(
        weights_bytes=geometry.num_parameters * BYTES_OF[dtype] / num_parts,
        adapter_bytes=adapter / num_parts,
        activation_bytes=checkpointed if training.gradient_checkpointing else plain,
        activation_bytes_checkpointed=checkpointed,
        activation_bytes_plain=plain,
    )


def _layer_bytes(geometry: Geometry, dtype: str) -> float:
    """What one decoder layer keeps of one token for its backward pass."""
    kept = 2 * geometry.kv_width + 4 * geometry.mlp_width
    return _NORM_BYTES * geometry.width + kept * BYTES_OF[dtype]


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """Bytes that one iteration leaves, and what it needs for a while."""

    tables_bytes_per_prompt: float
    tables_bytes: float
    policy_bytes: float
    """The merged policy and its adapter."""
    checkpoint_bytes: float
    """While it trains."""


def disk_of(
    geometry: Geometry, work: PlannedWork, training: PlannedTraining | None, num_prompts: int
) -> Disk:
    """Tables by constants that were measured; weights in the type in which they are stored."""
    response_tokens = work.lesson_tokens
    per_prompt = (
        work.num_nodes * (NODE_BYTES + NODE_TOKEN_BYTES * work.node_tokens)
        + work.num_responses * (RESPONSE_BYTES + RESPONSE_TOKEN_BYTES * response_tokens)
        + work.max_lessons * (LESSON_BYTES + 2 * LESSON_TOKEN_BYTES * response_tokens)
    )
    adapter = geometry.lora_parameters(training.lora_rank) if training else 0
    policy = geometry.num_parameters * BYTES_OF[geometry.dtype] + ADAPTER_BYTES * adapter
    return Disk(
        tables_bytes_per_prompt=per_prompt,
        tables_bytes=per_prompt * num_prompts,
        policy_bytes=float(policy if training else 0),
        checkpoint_bytes=float(
            _CHECKPOINT_BYTES * adapter * training.num_checkpoints if training else 0
        ),
    )


def ram_bytes(
    geometry: Geometry,
    work: PlannedWork,
    engine: PlannedEngine | None,
    training: PlannedTraining | None,
    num_prompts: int,
    training_dtype: str,
) -> dict[str, float]:
    """Stage -> bytes of RAM, about. On their way to a trainer's GPU weights are in RAM whole."""
    node = PAIRING_NODE_BYTES + PAIRING_TOKEN_BYTES * work.node_tokens
    found = {"pair": LIBRARY_RAM_BYTES + num_prompts * work.num_nodes * node}
    if engine is not None:
        images = (engine.max_batch_requests or engine.max_sequences) * IMAGE_RAM_BYTES
        found["sample"] = LIBRARY_RAM_BYTES + images
    if training is not None:
        weights = geometry.num_parameters * BYTES_OF[training_dtype]
        found["train"] = training.num_processes * (LIBRARY_RAM_BYTES + weights)
    return found
