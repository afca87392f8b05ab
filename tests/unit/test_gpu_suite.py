"""The GPU suite's arithmetic, refusals and report; no engine, no GPU."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import __main__ as suite
from benchmarks.gpu.budget import (
    CHECKPOINT,
    PARTS,
    Clock,
    limit_seconds,
    measured_parts,
    missing_packages,
    part,
    processes,
    share_seconds,
)
from benchmarks.gpu.checkpoint import _hub_name, _shards
from benchmarks.gpu.parts import memory, plan
from benchmarks.gpu.record import FAILED, LEFT_OUT, MEASURED, Record, with_comparisons
from benchmarks.gpu.report import NO_FIGURE, markdown, merged
from benchmarks.gpu.shapes import LLAVA_7B, TINY
from benchmarks.gpu.timing import in_turns, ratio, spread
from csr.errors import ConfigError


def only(value: float) -> dict[str, float]:
    return spread([value])


# ---------------------------------------------------------------- refusals


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert suite.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


def test_without_a_gpu_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suite, "_has_gpu", lambda: False)
    told = refusal(capsys, "--out", str(tmp_path / "out"))
    assert "torch sees no CUDA device" in told
    assert "--size tiny --device cpu" in told
    assert not (tmp_path / "out").exists()


def test_a_cpu_is_for_the_tiny_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "would take hours" in refusal(capsys, "--out", str(tmp_path), "--device", "cpu")


def test_without_vllm_it_names_what_can_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suite, "_has_gpu", lambda: True)
    monkeypatch.setattr(suite, "missing_packages", lambda parts: {"vllm": ["decode", "waves"]})
    told = refusal(capsys, "--out", str(tmp_path), "--parts", "ceilings", "decode", "waves", "clip")
    assert "not installed here: vllm (for decode, waves)" in told
    assert "--parts ceilings clip" in told


def test_a_full_disk_is_told_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suite, "_has_gpu", lambda: True)
    monkeypatch.setattr(suite, "missing_packages", lambda parts: {})
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(5_000_000_000))
    told = refusal(capsys, "--out", str(tmp_path), "--work", str(tmp_path / "no" / "such"))
    assert "has 5 GB free, and the models take 19 GB" in told


def test_figures_of_two_sizes_are_not_mixed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Record.open(tmp_path / "gpu.json", LLAVA_7B, "cuda")
    told = refusal(capsys, "--out", str(tmp_path), "--size", "tiny", "--device", "cpu")
    assert "Give another --out" in told


def test_figures_of_two_gpus_are_not_mixed(tmp_path: Path) -> None:
    record = Record.open(tmp_path / "gpu.json", LLAVA_7B, "cuda", "NVIDIA H100")
    record.describe({"gpu": {"name": "NVIDIA H100"}}, {})
    Record.open(tmp_path / "gpu.json", LLAVA_7B, "cuda", "NVIDIA H100")
    with pytest.raises(ConfigError, match="Give another --out"):
        Record.open(tmp_path / "gpu.json", LLAVA_7B, "cuda", "NVIDIA H200")


# ---------------------------------------------------------------- budget


def test_a_part_has_its_share_of_the_time_left() -> None:
    # clip wants 50 s and decode 140 s: of 95 s clip has a quarter and a bit.
    assert share_seconds(part("clip"), [part("decode")], 95.0) == pytest.approx(25.0)
    assert share_seconds(part("clip"), [], 95.0) == 95.0
    assert share_seconds(part("clip"), [], -3.0) == 0.0


def test_a_process_is_stopped_well_after_its_share_and_never_after_the_end() -> None:
    clip, decode = part("clip"), part("decode")
    assert limit_seconds([clip], [decode], 190.0) == pytest.approx(75.0)
    assert limit_seconds([decode], [clip], 190.0) == 190.0


def test_the_checkpoint_is_built_only_where_a_part_asks_it() -> None:
    assert measured_parts(["plan", "clip", "ceilings"]) == [part("ceilings"), part("clip")]
    assert measured_parts(["dpo"]) == [CHECKPOINT, part("dpo")]
    assert measured_parts(["lora"]) == [CHECKPOINT, part("reload"), part("lora")]


def test_parts_of_one_engine_share_a_process() -> None:
    grouped = [[each.name for each in group] for group in processes([CHECKPOINT, *PARTS])]
    assert grouped == [
        ["checkpoint", "ceilings", "clip"],
        ["decode", "prefill", "cache", "reload"],
        ["lora"],
        ["waves"],
        ["dpo"],
    ]


def test_packages_are_looked_for_by_part() -> None:
    parts = [part("clip"), part("dpo")]
    found = missing_packages(parts, ["open_clip", "peft", "accelerate", "datasets", "pyarrow"])
    assert found == {"trl": ["dpo"]}


def test_a_clock_notes_what_it_refuses() -> None:
    clock = Clock(ends_at=Clock(0.0).ends_at)  # long over
    assert not clock.allows(0.0, "batch 320")
    assert clock.left_out == ["batch 320"]


def test_turns_alternate_and_end_when_the_time_does() -> None:
    order: list[str] = []
    arms = {name: (lambda name=name: order.append(name)) for name in "ab"}
    long = Clock(ends_at=float("inf"))
    found = in_turns(arms, rounds=2, clock=long, synchronise=lambda: None, what="x")
    assert order == ["a", "b", "a", "b", "b", "a"]  # the first two warm up
    assert [len(runs) for runs in found.values()] == [2, 2]
    over = Clock(ends_at=0.0)
    found = in_turns(arms, rounds=3, clock=over, synchronise=lambda: None, what="x", warm_up=False)
    assert [len(runs) for runs in found.values()] == [1, 1]
    assert over.left_out == ["x: 2 of 3 rounds"]


def test_spread_and_ratio_go_by_rounds() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "low": 1.0, "high": 3.0, "rounds": 3}
    assert ratio([4.0, 9.0], [2.0, 3.0])["median"] == 2.5


# ---------------------------------------------------------------- processes


def run_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endings: list[list[str]], left: float = 1e9
) -> tuple[dict[str, Any], list[tuple[str, ...]]]:
    """Runs cache and reload with children that measure the given parts and then die."""
    record = Record.open(tmp_path / "gpu.json", TINY, "cpu")
    record.begin(CHECKPOINT.name)
    record.put(CHECKPOINT.name, status=MEASURED)
    asked: list[tuple[str, ...]] = []

    def child(task: Any, log: Path, limit: float) -> str:
        asked.append(task.parts)
        for name in endings[len(asked) - 1]:
            record.put(name, status=MEASURED, figures={"seen": True})
        return "its process ended with status -9"

    monkeypatch.setattr(suite, "_run_child", child)
    monkeypatch.setattr(suite.time, "monotonic", lambda: 0.0)
    options = suite._parser().parse_args(["--out", str(tmp_path), "--size", "tiny"])
    suite._run_group(record, options, [part("cache"), part("reload")], [], left)
    return record.read()["parts"], asked


def test_a_part_whose_process_died_is_failed_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, asked = run_group(tmp_path, monkeypatch, [[], ["reload"]])
    assert asked == [("cache", "reload"), ("reload",)]
    assert parts["cache"]["status"] == FAILED
    assert parts["cache"]["error"] == "its process ended with status -9"
    assert parts["reload"]["status"] == MEASURED


def test_all_parts_of_a_process_may_be_measured_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, asked = run_group(tmp_path, monkeypatch, [["cache", "reload"]])
    assert asked == [("cache", "reload")]
    assert {each["status"] for each in parts.values()} == {MEASURED}


def test_parts_without_any_time_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, asked = run_group(tmp_path, monkeypatch, [], left=0.0)
    assert asked == []
    assert parts["cache"]["status"] == parts["reload"]["status"] == LEFT_OUT


def test_figures_of_a_part_that_is_stopped_stay(tmp_path: Path) -> None:
    record = Record.open(tmp_path / "gpu.json", TINY, "cpu")
    record.begin("decode")
    record.put("decode", figures={"rows": [1]})
    record.put("decode", status=FAILED, error="stopped after 60 s")
    assert record.read()["parts"]["decode"] == {
        "status": FAILED, "figures": {"rows": [1]}, "left_out": [], "error": "stopped after 60 s",
    }  # fmt: skip


# ---------------------------------------------------------------- shapes


def test_the_7b_shape_costs_what_llava_costs() -> None:
    shape = LLAVA_7B.shape
    assert shape.num_image_tokens == 576
    assert shape.linear_parameters + shape.head_parameters == 6_607_339_520
    assert shape.kv_bytes_per_token(2) == 2**19
    assert shape.lora_parameters == 319_815_680
    # 2 x 6.476e9 x 621, the output layer once, and half of 4 x 32 x 4096 x 621^2.
    assert shape.prefill_flops(621) == pytest.approx(8.145e12, rel=1e-3)
    assert shape.image_flops() == pytest.approx(0.39e12, rel=0.01)
    assert LLAVA_7B.load.tree.num_sampled_steps == 110


def test_the_waves_fit_and_the_levels_do_not() -> None:
    load = LLAVA_7B.load
    held = load.waves_kv_cache_gib * 2**30 / LLAVA_7B.shape.kv_bytes_per_token(2)
    prompt = LLAVA_7B.shape.num_image_tokens + 42
    wave = -(-load.waves_prompts // load.num_waves)
    assert wave * (prompt + load.tree.num_sampled_tokens) <= held < load.waves_prompts * prompt


def test_weights_have_their_published_names() -> None:
    names = {
        "lm_head.weight": "language_model.lm_head.weight",
        "model.language_model.norm.weight": "language_model.model.norm.weight",
        "model.vision_tower.post_layernorm.bias": "vision_tower.vision_model.post_layernorm.bias",
        "model.vision_tower.vision_model.a": "vision_tower.vision_model.a",
        "model.multi_modal_projector.linear_1.bias": "multi_modal_projector.linear_1.bias",
    }
    assert {name: _hub_name(name) for name in names} == names


def test_shards_are_bounded_and_the_output_layer_stands_alone() -> None:
    head = "language_model.lm_head.weight"
    tensors = {"a": (2, 3), "b": (4,), head: (5, 5), "c": (1,)}
    assert list(_shards(tensors, 2, max_bytes=20)) == [
        {"a": (2, 3), "b": (4,)}, {"c": (1,)}, {head: (5, 5)},
    ]  # fmt: skip


# ---------------------------------------------------------------- plan


MEASURED_ALL = plan.Measured(
    prompt_tokens=621, decode_rate=10_000, prefill_rate=37_000, seconds_per_image=0.001,
    image_rate=1000, text_rate=5000, reference_seconds=0.05, step_seconds=0.1, update_seconds=36,
    waves_rate=5.0, levels_rate=2.0,
)  # fmt: skip


def test_hours_follow_the_formulas() -> None:
    tree = plan.hours(MEASURED_ALL, plan.READINGS["tree"])
    chains = plan.hours(MEASURED_ALL, plan.READINGS["chains"])
    # 12,000 x 110 x 20 tokens at 10,000 a second; 40 sentences in chains.
    assert tree["decode"] == pytest.approx(26.4e6 / 10_000 / 3600)
    assert chains["decode"] == pytest.approx(9.6e6 / 10_000 / 3600)
    image = 12_000 * 0.001 / 3600
    # Half a block of 16 anew for each of 110 sequences; 8 levels with 3 prefixes of 0 to 140.
    assert tree["prefill_waves"] == pytest.approx(12_000 * (621 + 880) / 37_000 / 3600 + image)
    assert tree["prefill_levels"] == pytest.approx(
        12_000 * (8 * 621 + 3 * 560 + 880) / 37_000 / 3600 + image
    )
    # 5 requests of 621 tokens, then 15 of 621 + 20 x level.
    assert tree["prefill_none"] == pytest.approx(
        12_000 * (110 * 621 + 15 * 560) / 37_000 / 3600 + image
    )
    assert tree["similarity"] == pytest.approx((12_000 / 1000 + 12_000 * 110 / 5000) / 3600)
    assert tree["training"] == pytest.approx(1200 / 3600)
    assert tree["update"] == pytest.approx(0.01)
    parts = ("sampling_waves", "similarity", "reference", "training", "update")
    assert tree["total"] == pytest.approx(sum(tree[name] or 0 for name in parts))
    assert tree["search_waves"] == pytest.approx(12_000 / 5 / 3600)
    assert "search_waves" not in chains


def test_what_was_not_measured_is_not_guessed() -> None:
    found = plan.derive({"parts": {}})
    assert found["not_measured"] == sorted(plan.Measured.__slots__)
    assert set(found["hours"]["tree"].values()) == {None}


# ---------------------------------------------------------------- report


def document(**parts: Any) -> dict[str, Any]:
    done = {
        name: {"status": MEASURED, "figures": found, "left_out": []}
        for name, found in parts.items()
    }
    return {
        "size": "llava-1.5-7b",
        "device": "cuda",
        "shape": {},
        "hardware": {
            "num_cpus": 16,
            "memory_bytes": 128 * 2**30,
            "gpu": {
                "name": "NVIDIA H200", "memory_bytes": 139 * 2**30, "driver": "580", "cuda": "13.0",
            },
        },
        "versions": {"torch": "2.11.0", "vllm": "0.26.0"},
        "parts": done,
    }  # fmt: skip


CEILINGS = {
    "bytes_per_second": only(4.0e12), "flops_per_second": only(8.0e14),
    "copy_bytes": 1, "matmul_size": 8192, "dtype": "bfloat16",
}  # fmt: skip
RATES = {
    "tokens_per_second": spread([90.0, 100.0, 120.0]), "decode_tokens_per_second": 110.0,
    "step_seconds": 0.01, "bytes_per_second": 3.0e12,
}  # fmt: skip
DECODE = {
    "engine_start_seconds": 42.0, "prompt_tokens": 618, "num_tokens": 48,
    "rows": [{"batch": 80, "siblings": 5, "bytes_per_step": 1, "bare": RATES, "sampled": RATES}],
}  # fmt: skip


def test_shares_are_of_the_measured_ceiling() -> None:
    found = with_comparisons(document(ceilings=CEILINGS, decode=DECODE))["parts"]["decode"][
        "figures"
    ]
    assert found["rows"][0]["bare"]["share_of_bandwidth"] == 0.75
    without = with_comparisons(document(decode=DECODE))["parts"]["decode"]["figures"]
    assert "share_of_bandwidth" not in without["rows"][0]["bare"]


def test_merged_weights_are_compared_with_an_adapter() -> None:
    speeds = {name: {"tokens_per_second": only(rate)} for name, rate in (("m", 90.0), ("a", 60.0))}
    both = document(reload={"merged": speeds["m"]}, lora={"adapter": speeds["a"]})
    assert with_comparisons(both)["parts"]["lora"]["figures"]["merged_over_adapter"] == 1.5


def test_without_a_gpu_the_report_says_that_no_figure_exists() -> None:
    assert markdown([]) == NO_FIGURE
    tiny = document(ceilings=CEILINGS) | {"device": "cpu", "size": "tiny"}
    text = markdown([tiny])
    assert text.startswith(NO_FIGURE)
    assert "went through 1 parts" in text
    assert "|" not in text


def test_the_report_has_a_row_for_each_figure() -> None:
    text = markdown([document(ceilings=CEILINGS, decode=DECODE)])
    assert "NVIDIA H200, 139 GiB" in text
    assert "| memory, a copy's reads and writes | 4,000 GB/s |" in text
    assert "| 80 | 100 (90 to 120) | 110 | 75% | 100 (90 to 120) | 75% |" in text
    assert "Engine start: 42 s." in text


def test_two_calls_become_one_report_and_its_plan_is_made_anew() -> None:
    first = document(ceilings=CEILINGS, plan=plan.derive({"parts": {}}))
    both = merged([first, document(decode=DECODE)])
    assert both["parts"]["plan"]["figures"]["measured"]["decode_rate"] == 110.0
    assert both["parts"]["decode"]["figures"]["rows"][0]["bare"]["share_of_bandwidth"] == 0.75
    other = document(decode=DECODE)
    other["hardware"]["gpu"]["name"] = "NVIDIA H100"
    with pytest.raises(ConfigError, match="different GPUs"):
        merged([first, other])


def test_a_failed_part_is_reported_with_its_reason_and_what_it_had() -> None:
    failed = document(ceilings=CEILINGS, lora={"rank": 128, "batch": 160})
    failed["parts"]["lora"] |= {"status": FAILED, "error": "ModelError: no\nmore"}
    failed["parts"]["ceilings"]["left_out"] = ["ceilings: 2 of 3 rounds"]
    text = markdown([failed])
    assert "failed: ModelError: no\n" in text
    assert "Not complete" in text
    assert "Left out for lack of time: ceilings: 2 of 3 rounds." in text


def test_memory_is_put_together_from_the_parts() -> None:
    peak = {"torch_bytes": 5, "torch_reserved_bytes": 6, "gpu_bytes": 7, "process_bytes": 8}
    given = document(ceilings=CEILINGS, dpo={"without": {"peak_bytes": 9}})
    given["parts"]["dpo"]["memory"] = peak
    found = memory.derive(given)
    assert found["rows"] == [{"part": "dpo", **peak}]
    assert found["dpo_without_bytes"] == 9
    assert found["dpo_with_checkpointing_bytes"] is None
