"""Bytes that a plan counts: by hand, and against tables that are really written."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from csr.annotations import Evidence
from csr.planning import PlannedCache, PlannedEngine, PlannedTraining
from csr.samplers import vllm
from csr.sources.csr import Config, PairFilter, build
from csr.types import (
    FinishReason,
    ImageRef,
    Prompt,
    ResponseTree,
    StepCandidate,
    StepNode,
    StepScore,
)
from flows.planning.devices import DEVICES
from flows.planning.known_models import KNOWN_MODELS
from flows.planning.memory import (
    LESSON_BYTES,
    LESSON_TOKEN_BYTES,
    NODE_BYTES,
    NODE_TOKEN_BYTES,
    RESPONSE_BYTES,
    RESPONSE_TOKEN_BYTES,
    disk_of,
    engine_memory,
    ram_bytes,
    training_memory,
)
from storage.rows import pairs_to_table, responses_to_table
from storage.tables import write_table
from storage.trees import trees_to_table
from tests.unit.test_plan_costs import TOY

LLAVA = KNOWN_MODELS["llava-1.5-7b"]
DOCS = Path(__file__).resolve().parents[2] / "docs"


# ---------------------------------------------------------------- on a GPU


@pytest.mark.parametrize(("device", "capacity"), [("H200", 209_000), ("H100", 104_400)])
def test_the_cache_holds_what_the_reference_says(device: str, capacity: float) -> None:
    """0.9 of the memory, less the weights and 4 GB; the reference leaves the tower's out."""
    engine = vllm.planned_engine(vllm.Config())
    memory = engine_memory(LLAVA, DEVICES[device], engine, "bfloat16")
    assert memory.weights_bytes == pytest.approx(14.1e9, rel=0.005)
    assert memory.capacity_tokens == pytest.approx(capacity, rel=0.02)


def test_a_cache_of_fixed_size_is_that() -> None:
    engine = PlannedEngine(
        dtype="auto", max_sequences=1, cache=PlannedCache(num_bytes=2**30, block_tokens=16)
    )
    memory = engine_memory(LLAVA, DEVICES["H100"], engine, "bfloat16")
    assert memory.capacity_tokens == 2**30 / 2**19
    assert memory.total_bytes == memory.weights_bytes + 2**30 + 4e9


def test_weights_that_do_not_fit_leave_no_cache() -> None:
    engine = vllm.planned_engine(vllm.Config(gpu_memory_utilization=0.5))
    memory = engine_memory(LLAVA, DEVICES["RTX4090"], engine, "bfloat16")
    assert memory.kv_cache_bytes < 0
    assert memory.capacity_tokens == 0


TRAINING = PlannedTraining(
    num_updates=1, num_reference_rows=0, sequences=2, reference_sequences=0, batch_size=3,
    lora_rank=1, gradient_checkpointing=False, dtype="auto", num_checkpoints=2,
)  # fmt: skip


def test_training_by_hand() -> None:
    memory = training_memory(TOY, TRAINING, "bfloat16", 5)
    # Six sequences of five tokens; a layer keeps 24 x 4 for the norms, and 2 x 2 + 4 x 8 numbers.
    layer = 24 * 4 + 2 * (2 * 2 + 4 * 8)
    assert memory.activation_bytes == memory.activation_bytes_plain == 30 * 2 * layer
    assert memory.activation_bytes_checkpointed == 30 * (2 * 4 * 2 + layer)
    assert memory.adapter_bytes == 16 * 128
    assert memory.weights_bytes == 2 * TOY.num_parameters
    again = training_memory(TOY, replace(TRAINING, gradient_checkpointing=True), "bfloat16", 5)
    assert again.activation_bytes == memory.activation_bytes_checkpointed
    assert again.total_bytes == again.activation_bytes + 16 * 128 + memory.weights_bytes + 4e9


# ---------------------------------------------------------------- in RAM and on disk


NUM_PROMPTS, DEPTH, NUM_KEPT, NUM_CANDIDATES, STEP_TOKENS = 40, 6, 5, 5, 20


def made_up_step(rng: np.random.Generator, text: str, *, last: bool) -> StepCandidate:
    """Log-probabilities as an engine gives them, in 32 bits; common tokens more often."""
    ids = np.minimum(rng.zipf(1.25, STEP_TOKENS), 31_999)
    logprobs = -rng.exponential(0.7, STEP_TOKENS).astype(np.float32)
    return StepCandidate(
        text=text,
        token_ids=tuple(int(token) for token in ids),
        token_logprobs=tuple(float(value) for value in logprobs),
        finish_reason=FinishReason.EOS if last else FinishReason.STEP,
    )


def made_up_tree(number: int, words: list[str], rng: np.random.Generator) -> ResponseTree:
    names = ("likelihood", "image_similarity", "redundancy", "likelihood_calibrated",
             "image_similarity_calibrated")  # fmt: skip
    prompt = Prompt(
        prompt_id=f"{number:012d}",
        text="Describe the image in detail.",
        image=ImageRef(uri=f"/coco/{number:012d}.jpg", sha256=f"{rng.bytes(32).hex()}"),
    )
    nodes: list[StepNode] = []
    opened: list[str | None] = [None]
    for depth in range(1, DEPTH + 1):
        children = []
        for parent in opened:
            for place in range(NUM_CANDIDATES):
                start = int(rng.integers(len(words) - STEP_TOKENS))
                text = f" {' '.join(words[start : start + 15])}."
                node_id = f"{parent}.{place}" if parent else f"{prompt.prompt_id}/{place}"
                children.append(node_id)
                nodes.append(
                    StepNode(
                        node_id=node_id,
                        parent_id=parent,
                        depth=depth,
                        step=made_up_step(rng, text, last=depth == DEPTH),
                        score=StepScore(
                            reward=float(rng.normal()),
                            breakdown={name: float(rng.normal()) for name in names},
                        ),
                        cumulative_reward=float(rng.normal()),
                        kept=True,
                    )
                )
        opened = [str(name) for name in rng.permutation(children)[:NUM_KEPT]]
    return ResponseTree(prompt=prompt, policy="base", origin="csr", nodes=tuple(nodes))


def test_tables_are_as_large_as_is_planned(tmp_path: Path) -> None:
    """What twice as many prompts add: a file's own frame is left out."""
    words = " ".join(path.read_text() for path in sorted(DOCS.glob("*.md"))).split()
    rng = np.random.default_rng(0)
    trees = [made_up_tree(number, words, rng) for number in range(2 * NUM_PROMPTS)]
    keep_all = PairFilter(min_margin_quantile=0.0, max_length_difference=1.0)
    source = build(Config(pair_filter=keep_all))

    def sizes(some: list[ResponseTree]) -> dict[str, tuple[int, int]]:
        result = source.pair(some, Evidence())
        assert len(result.pairs) == len(some)
        tables = {
            "nodes": trees_to_table(some, iteration=1),
            "responses": responses_to_table(result.responses, iteration=1, policy="base"),
            "pairs": pairs_to_table(result.pairs, iteration=1, policy="base"),
        }
        for name, table in tables.items():
            write_table(tmp_path / name, table)
        return {name: ((tmp_path / name).stat().st_size, len(tables[name])) for name in tables}

    few, many = sizes(trees[:NUM_PROMPTS]), sizes(trees)
    row = {name: (many[name][0] - few[name][0]) / (many[name][1] - few[name][1]) for name in many}
    tokens = DEPTH * STEP_TOKENS
    assert row["nodes"] == pytest.approx(NODE_BYTES + NODE_TOKEN_BYTES * STEP_TOKENS, rel=0.15)
    assert row["responses"] == pytest.approx(
        RESPONSE_BYTES + RESPONSE_TOKEN_BYTES * tokens, rel=0.25
    )
    assert row["pairs"] == pytest.approx(LESSON_BYTES + LESSON_TOKEN_BYTES * 2 * tokens, rel=0.25)


def test_disk_and_ram_by_hand() -> None:
    from csr.planning import PlannedWork

    work = PlannedWork(
        calls=(), num_nodes=10, node_tokens=20, num_responses=4, lesson_tokens=50, max_lessons=0.5
    )
    disk = disk_of(TOY, work, TRAINING, 100)
    one = 10 * (150 + 6 * 20) + 4 * (135 + 0.28 * 50) + 0.5 * (780 + 4 * 50)
    assert disk.tables_bytes_per_prompt == pytest.approx(one)
    assert disk.tables_bytes == pytest.approx(100 * one)
    assert disk.policy_bytes == 4 * TOY.num_parameters + 4 * 128
    assert disk.checkpoint_bytes == 2 * 12 * 128
    assert disk_of(TOY, work, None, 100).policy_bytes == 0
    engine = PlannedEngine(dtype="auto", max_sequences=8, max_batch_requests=1000)
    ram = ram_bytes(TOY, work, engine, TRAINING, 100, "float32")
    assert ram["pair"] == 4e9 + 100 * 10 * (4000 + 75 * 20)
    assert ram["sample"] == 4e9 + 1000 * 2.3e6
    assert ram["train"] == 4e9 + 4 * TOY.num_parameters
