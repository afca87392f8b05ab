"""The formulas of `csr plan` worked by hand, and against figures that were worked out before.

The reference is LLaVA-1.5-7B on 12,000 prompts of 621 tokens, with 8 sentences of 20 tokens: once
in five chains ("A": 40 requests a prompt), once in CSR's own tree ("B": five first sentences, then
three nodes of five, 110 requests). Its figures are rounded to two digits.
"""

from dataclasses import replace

import pytest

from csr.planning import ExpectedResponse, PlannedCall, PlannedTraining, scoring_call
from csr.sources import csr
from flows.planning.costs import (
    Speaker,
    decode_seconds,
    forward_flops,
    held_tokens,
    image_flops,
    num_decoding,
    prefill_seconds,
    read_call,
    read_calls,
    training_seconds,
)
from flows.planning.devices import DEVICES, EFFICIENCY, Device
from flows.planning.geometry import Geometry
from flows.planning.known_models import KNOWN_MODELS

LLAVA = KNOWN_MODELS["llava-1.5-7b"]
EXPECTED = ExpectedResponse(num_sentences=8, tokens_per_sentence=20)
NUM_PROMPTS = 12_000

CHAINS = tuple(
    PlannedCall(
        name=f"sentence {level + 1}",
        num_contexts=1 if level == 0 else 5,
        num_candidates=5 if level == 0 else 1,
        generated_tokens=20,
        prefix_tokens=20 * level,
        distinct_prefix_tokens=5 * 20 * level,
    )
    for level in range(8)
)
TREE = csr.planned_work(csr.Config(preset="released"), EXPECTED).calls


def speaker(device: Device, capacity_tokens: float) -> Speaker:
    return Speaker(
        geometry=LLAVA,
        device=device,
        num_gpus=1,
        dtype="bfloat16",
        image_tokens=576,
        question_tokens=45,
        max_sequences=256,
        block_tokens=16,
        capacity_tokens=capacity_tokens,
    )


H200 = speaker(DEVICES["H200"], 209_000)
H100 = speaker(DEVICES["H100"], 104_400)


def hours(seconds: float) -> float:
    return seconds / 3600


TOY = Geometry(
    name="toy",
    num_layers=2,
    width=4,
    mlp_width=8,
    num_heads=2,
    num_kv_heads=1,
    head_width=2,
    vocabulary_size=10,
    dtype="float32",
    image_tokens=3,
    vision=None,
)
TOY_DEVICE = Device(
    name="toy", memory_bytes=1e6, bytes_per_second=1e3, flops_16_bit=1e7, flops_32_bit=1e6
)


def toy_speaker(**changes: object) -> Speaker:
    toy = Speaker(
        geometry=TOY,
        device=TOY_DEVICE,
        num_gpus=1,
        dtype="float32",
        image_tokens=3,
        question_tokens=2,
        max_sequences=4,
        block_tokens=3,
        capacity_tokens=100,
    )
    return replace(toy, **changes)


# ---------------------------------------------------------------- by hand


def test_a_forward_pass_by_hand() -> None:
    # A layer: q 4x4, k and v 4x2, o 4x4, three of 4x8: 144 weights; two layers; a head of 4x10.
    assert TOY.matmul_parameters == 2 * 144 + 40
    # Five tokens that see three each: 2 x 328, and 4 x 2 layers x 4 wide x 3 seen, a token.
    assert forward_flops(TOY, 5, 3) == 5 * (656 + 96)
    assert image_flops(TOY) == 0


def test_decoding_by_hand() -> None:
    call = PlannedCall(name="only", num_candidates=2, generated_tokens=4)
    toy = toy_speaker()
    # 3 image, 2 text and on average 2 written tokens; 2 layers x 2 wide x key, value x 4 bytes.
    assert toy.kv_bytes == 32
    # Two prompts make four sequences, of which four may be written at once.
    traffic = 328 * 4 / 4 + 32 * 7
    one_prompt = 8 * traffic / (1e3 * 0.7)
    assert decode_seconds(toy, [call], 10, 2) == pytest.approx(10 * one_prompt)


@pytest.mark.parametrize(
    ("waiting", "capacity", "at_once"), [(3, 100, 3), (9, 100, 4), (9, 20, 2), (9, 1, 1)]
)
def test_as_many_are_written_as_wait_fit_and_may(
    waiting: float, capacity: float, at_once: float
) -> None:
    assert num_decoding(toy_speaker(capacity_tokens=capacity), 10, waiting) == at_once


def test_arithmetic_bounds_decoding_where_it_is_slower() -> None:
    call = PlannedCall(name="only", generated_tokens=4)
    fast = replace(TOY_DEVICE, bytes_per_second=1e12)
    seconds = decode_seconds(toy_speaker(device=fast), [call], 1, 1)
    assert seconds == pytest.approx(4 * forward_flops(TOY, 1, 7) / (1e6 * 0.5))


LEVEL = PlannedCall(
    name="level",
    num_contexts=2,
    num_candidates=3,
    generated_tokens=4,
    prefix_tokens=4,
    distinct_prefix_tokens=6,
)


@pytest.mark.parametrize(
    ("schedule", "tokens"),
    [
        ("none", 6 * 9),  # six sequences of 3 + 2 + 4 tokens
        ("level_by_level", 3 + 2 + 6 + 4 * 2),  # once; four siblings read half a block again
        ("kept", 6 * 2),
    ],
)
def test_what_a_later_level_reads(schedule: str, tokens: float) -> None:
    assert read_call(toy_speaker(), LEVEL, schedule, first=False).num_tokens == tokens


def test_what_is_shared_is_read_once() -> None:
    greedy = PlannedCall(name="greedy", generated_tokens=4)
    critic = PlannedCall(
        name="critic", num_contexts=2, num_questions=2, question_tokens=10, shared="image"
    )
    score = scoring_call("score", 1, 5, shared="nothing")
    read = [read_call(toy_speaker(), c, "kept", first=c is greedy).num_tokens for c in
            (greedy, greedy, critic, score)]  # fmt: skip
    assert read == [5, 5, 20, 10]
    again = read_call(toy_speaker(), greedy, "kept", first=False).num_tokens
    assert again == 2
    # 3 + 2, 4 written; two questions of 10; another image with its question, and what is scored.
    assert held_tokens(toy_speaker(), (greedy, critic, score)) == 5 + 4 + 20 + 5 + 5


def test_training_by_hand() -> None:
    training = PlannedTraining(
        num_updates=10, num_reference_rows=5, sequences=2, reference_sequences=2, batch_size=1,
        lora_rank=1, gradient_checkpointing=False, dtype="float32",
    )  # fmt: skip
    # Inputs and outputs of a layer's matrices: 8 + 6 + 6 + 8 + 3 x 12 = 64; two layers.
    assert TOY.lora_parameters(1) == 128
    tokens, forward, adapter = 6, forward_flops(TOY, 6, 3), 2 * 6 * 128
    attention = 6 * 4 * 2 * 4 * 3
    update = forward + adapter + (forward - attention) + 2 * attention + 2 * adapter
    expected = (10 * 2 * update + 5 * 2 * forward) / (1e6 * 0.4)
    assert training_seconds(TOY, TOY_DEVICE, training, "float32", tokens) == pytest.approx(expected)
    many = replace(training, num_processes=2)
    halved = expected * 0.4 / (2 * 0.35)
    assert training_seconds(TOY, TOY_DEVICE, many, "float32", tokens) == pytest.approx(halved)
    again = replace(training, gradient_checkpointing=True)
    more = 10 * 2 * (forward + adapter) / (1e6 * 0.4)
    found = training_seconds(TOY, TOY_DEVICE, again, "float32", tokens)
    assert found == pytest.approx(expected + more)


# ---------------------------------------------------------------- the reference


def test_the_tree_is_the_reference_s() -> None:
    assert sum(call.num_sequences for call in TREE) == 110
    assert sum(call.all_generated_tokens for call in TREE) * NUM_PROMPTS == 26.4e6
    assert sum(call.num_sequences for call in CHAINS) == 40
    assert sum(call.all_generated_tokens for call in CHAINS) * NUM_PROMPTS == 9.6e6
    assert H200.kv_bytes == 2**19
    assert LLAVA.matmul_parameters == pytest.approx(6.607e9, rel=0.001)
    assert image_flops(LLAVA) == pytest.approx(0.38e12, rel=0.01)
    assert LLAVA.lora_parameters(128) == pytest.approx(320e6, rel=0.001)


@pytest.mark.parametrize(
    ("device", "calls", "share", "expected"),
    [
        (H200, CHAINS, 1, 0.33), (H200, TREE, 1, 0.92),
        (H100, CHAINS, 8, 0.07), (H100, TREE, 8, 0.18),
    ],
)  # fmt: skip
def test_decoding_is_the_reference_s(
    device: Speaker, calls: tuple[PlannedCall, ...], share: int, expected: float
) -> None:
    found = hours(decode_seconds(device, calls, NUM_PROMPTS / share, 512))
    assert found == pytest.approx(expected, rel=0.10)


@pytest.mark.parametrize(
    ("calls", "schedule", "expected"),
    [
        (CHAINS, "none", 2.50), (TREE, "none", 6.87),
        (TREE, "level_by_level", 0.60),
        (CHAINS, "kept", 0.09), (TREE, "kept", 0.15),
    ],
)  # fmt: skip
def test_reading_is_the_reference_s(
    calls: tuple[PlannedCall, ...], schedule: str, expected: float
) -> None:
    reading = read_calls(H200, calls, schedule)
    found = hours(prefill_seconds(H200, reading) * NUM_PROMPTS)
    assert found == pytest.approx(expected, rel=0.15)


def test_chains_that_are_displaced_read_more_than_the_reference_says() -> None:
    """It counts one sentence of each level as read again, and five chains share none."""
    reading = read_calls(H200, CHAINS, "level_by_level")
    found = hours(prefill_seconds(H200, reading) * NUM_PROMPTS)
    assert found == pytest.approx(0.54 * 1.37, rel=0.03)


def test_whole_trees_in_memory_are_the_reference_s() -> None:
    for held, on_h200, on_h100 in (
        (held_tokens(H200, TREE), 74, 37),
        (held_tokens(H200, CHAINS), 147, 73),
    ):
        assert H200.capacity_tokens / held == pytest.approx(on_h200, rel=0.01)
        assert H100.capacity_tokens / held == pytest.approx(on_h100, rel=0.01)


DPO = PlannedTraining(
    num_updates=NUM_PROMPTS, num_reference_rows=NUM_PROMPTS, sequences=2, reference_sequences=2,
    batch_size=4, lora_rank=128, gradient_checkpointing=True, dtype="bfloat16",
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "device", "expected"),
    [
        ({}, "H200", 0.73),
        ({"num_reference_rows": 0}, "H200", 0.56),
        ({"num_reference_rows": 0, "gradient_checkpointing": False}, "H200", 0.37),
        ({"num_updates": 0}, "H200", 0.17),
        ({"num_processes": 8}, "H100", 0.10),
        ({"num_reference_rows": 0, "num_processes": 8}, "H100", 0.08),
    ],
)
def test_training_is_the_reference_s(
    changes: dict[str, object], device: str, expected: float
) -> None:
    training = replace(DPO, **changes)
    seconds = training_seconds(LLAVA, DEVICES[device], training, "bfloat16", 576 + 45 + 160)
    assert hours(seconds) == pytest.approx(expected, rel=0.15)


def test_the_shares_stay_below_what_was_measured() -> None:
    device = DEVICES["H200"]
    reached = device.bytes_per_second * EFFICIENCY.decode_bandwidth
    assert reached < device.measured_bytes_per_second
    assert device.flops_16_bit * EFFICIENCY.prefill_flops < device.measured_flops_16_bit
