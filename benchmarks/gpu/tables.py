"""Each part's figures as rows of Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.gpu.record import Json

_UNKNOWN = "-"


def ceilings(found: Json) -> list[str]:
    """Rates of the device alone."""
    return _table(
        ("ceiling", "measured"),
        [
            ("memory, a copy's reads and writes", _range(found["bytes_per_second"], 1e-9, "GB/s")),
            (
                f"matrix product, {found['matmul_size']}³ {found['dtype']}",
                _range(found["flops_per_second"], 1e-12, "TFLOP/s"),
            ),
        ],
    )


def decode(found: Json) -> list[str]:
    """By batch."""
    rows = []
    for row in found["rows"]:
        bare, sampled = row["bare"], row["sampled"]
        rows.append(
            (
                row["batch"],
                _range(bare["tokens_per_second"]),
                _number(bare["decode_tokens_per_second"]),
                _percent(bare.get("share_of_bandwidth")),
                _range(sampled["tokens_per_second"]),
                _percent(sampled.get("share_of_bandwidth")),
            )
        )
    head = (
        "sequences", "tokens/s", "decoding alone, tokens/s", "of the bandwidth",
        "as the sampler asks, tokens/s", "of the bandwidth",
    )  # fmt: skip
    start = f"Engine start: {found['engine_start_seconds']:.0f} s."
    return [*_table(head, rows), "", f"{start} Prompts of {found['prompt_tokens']} tokens."]


def prefill(found: Json) -> list[str]:
    """Prompts with images, without, and the images apart."""
    rows = [
        (
            label,
            _number(found[name]["tokens_per_second"]) + " tokens/s",
            _percent(found[name].get("share_of_matmul")),
        )
        for name, label in (("with_images", "prompts with images"), ("text", "as long, text alone"))
    ]
    rows.append(("an image more, ms", f"{1e3 * found['seconds_per_image']:.1f}", _UNKNOWN))
    if "tower" in found:
        tower = found["tower"]
        rate = _number(tower["images_per_second"]) + " images/s"
        rows.append(("vision tower alone", rate, _percent(tower.get("share_of_matmul"))))
    if "preparation" in found:
        rate = _range(found["preparation"]["images_per_second"], 1, "images/s")
        rows.append(("decoding and resizing, one CPU thread", rate, _UNKNOWN))
    return _table(("what", "measured", "of the matrix product"), rows)


def cache(found: Json) -> list[str]:
    """Kept against lost."""
    return _searches(
        found, {"kept": "cache kept", "lost": "cache lost at each level"}, "lost_over_kept_seconds"
    )


def waves(found: Json) -> list[str]:
    """Waves against levels."""
    size = f"waves of {found['prompts_per_wave']} prompts"
    return [
        *_searches(
            found,
            {
                "stream": f"as it runs: {found['prompts_in_stream']} prompts, each by itself",
                "waves": size,
                "levels": f"all {found['num_prompts']} level by level",
            },
            "levels_over_waves_seconds",
        ),
        "",
        f"KV cache: {found['kv_cache_tokens']:,} tokens; a wave's whole trees have "
        f"{found['wave_tokens']:,}, the prompts alone {found['all_prompts_tokens']:,}.",
    ]


def _searches(found: Json, names: dict[str, str], compared: str) -> list[str]:
    rows = [
        (
            label,
            _range(found[name]["seconds"], 1, "s", 1),
            _percent(found[name]["hit_rate"]["median"]),
            _number(found[name]["computed_tokens_per_prompt"]["median"]),
            _range(found[name]["tokens_per_second"]),
            _range(found[name]["prompts_per_second"], 1, "", 2),
        )
        for name, label in names.items()
    ]
    head = (
        "search", "time", "prompt tokens from the cache", "computed a prompt", "tokens/s",
        "prompts/s",
    )  # fmt: skip
    return [
        *_table(head, rows),
        "",
        f"Ratio of the times: {_range(found[compared], 1, '', 2)}. "
        f"Equal trees: {_percent(found['equal_trees_share'])}.",
    ]


def reload(found: Json) -> list[str]:
    """Merged weights."""
    rows = [
        (
            "merged weights, plain engine",
            _range(found["merged"]["tokens_per_second"], 1, "tokens/s"),
        ),
        ("until reloaded weights speak", _range(found["seconds"], 1, "s", 2)),
    ]
    return _table((f"{found['batch']} sequences", "measured"), rows)


def lora(found: Json) -> list[str]:
    """An adapter."""
    with_one, without = found["adapter"], found["without_adapter"]
    rows = [
        (f"adapter of rank {found['rank']}", _range(with_one["tokens_per_second"], 1, "tokens/s")),
        ("same engine, no adapter asked", _range(without["tokens_per_second"], 1, "tokens/s")),
        ("ratio of the two", _range(found["without_over_adapter"], 1, "", 2)),
        ("until a loaded adapter can speak", _range(found["load"]["seconds"], 1, "s", 2)),
    ]
    if "merged_over_adapter" in found:
        rows.append(("merged weights over adapter", f"{found['merged_over_adapter']:.2f}"))
    return _table((f"{found['batch']} sequences", "measured"), rows)


def clip(found: Json) -> list[str]:
    """Batched against one by one."""
    rows = [
        (
            what,
            _range(found[what]["batched_per_second"]),
            _range(found[what]["single_per_second"]),
            _range(found[what]["batched_over_single"], 1, "", 1),
            _number(found.get("towers", {}).get(f"{what}_per_second", {}).get("median")),
        )
        for what in ("images", "texts")
    ]
    batches = f"batches of {found['image_batch']} images, {found['text_batch']} texts"
    head = (f"a second, {found['precision']}", batches, "one by one", "ratio", "tower alone")
    return _table(head, rows)


def dpo(found: Json) -> list[str]:
    """With and without gradient checkpointing."""
    rows = [
        (
            label,
            _range(found[name]["step_seconds"], 1, "s", 3),
            f"{found[name]['seconds_per_pair']:.3f}",
            f"{found[name]['reference_seconds_per_pair']:.3f}",
            _gib(found[name]["peak_bytes"]),
        )
        for name, label in (("without", "without"), ("with_checkpointing", "with"))
        if name in found
    ]
    head = (
        "gradient checkpointing", f"step of {found['batch']} pairs", "s a pair",
        "reference, s a pair", "peak memory",
    )  # fmt: skip
    refused = [str(each["batch"]) for each in found["out_of_memory_at_batch"]]
    lines = _table(head, rows)
    return [*lines, "", f"Out of memory at {', '.join(refused)} pairs."] if refused else lines


def memory(found: Json) -> list[str]:
    """By part."""
    rows = [
        (
            row["part"],
            _gib(row["torch_bytes"]),
            _gib(row["torch_reserved_bytes"]),
            _gib(row["gpu_bytes"]),
            _gib(row["process_bytes"]),
        )
        for row in found["rows"]
    ]
    head = ("part", "torch, allocated", "torch, reserved", "GPU in all", "process RAM")
    return _table(head, rows)


def plan(found: Json) -> list[str]:
    """Hours by reading, each with its formula."""
    readings = found["hours"]
    names = list(readings["tree"])
    rows = [
        (
            name,
            *(
                _UNKNOWN if hours.get(name) is None else f"{hours[name]:.2f}"
                for hours in readings.values()
            ),
            found["formulas"].get(name, found["formulas"].get(_pattern(name), "")),
        )
        for name in names
    ]
    missing = found["not_measured"]
    lines = [
        *_table((f"hours for {found['num_prompts']:,} prompts", *readings, "formula"), rows),
        "",
        "P prompts, N candidates a prompt (40 in chains, 110 in the tree), "
        f"T = {found['step_tokens']} tokens a sentence, {found['num_levels']} levels, L tokens of "
        "a prompt with its image, K open nodes a level (5, 3), prefix = T·(level - 1), "
        f"b = {found['block_tokens']} tokens a cache block; d sampled and f prompt tokens a "
        "second, i seconds an image, c similarities a second, r and s seconds a pair. All over "
        "3,600.",
    ]
    return [*lines, "", f"Not measured: {', '.join(missing)}."] if missing else lines


def _pattern(name: str) -> str:
    return "sampling_…" if name.startswith("sampling_") else name


# ---------------------------------------------------------------- cells


def _table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]


def _range(value: Json, scale: float = 1.0, unit: str = "", digits: int = 0) -> str:
    """A spread: the median, and the extremes where there is more than one round."""
    middle, low, high = (f"{value[n] * scale:,.{digits}f}" for n in ("median", "low", "high"))
    told = middle if value["rounds"] == 1 else f"{middle} ({low} to {high})"
    return f"{told} {unit}".rstrip()


def _number(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:,.0f}"


def _percent(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.0%}"


def _gib(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value / 2**30:.1f} GiB"
