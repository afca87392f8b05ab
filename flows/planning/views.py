"""A plan as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from csr.protocols import Json
from flows.tables import plain

GB = 1e9
_SHORTEST_IN_HOURS = 36.0
"""Seconds: a hundredth of an hour."""
_SCHEDULES = {
    "kept": "in waves that fit into the cache",
    "level_by_level": "level by level, the cache too small",
    "none": "without a prefix cache",
}


def render(shape: Json) -> Any:
    """Everything, the estimate's nature first."""
    from rich.console import Group

    device, model, run = shape["device"], shape["model"], shape["run"]
    head = (
        f"{shape['recipe']} on {device['name']}: an ESTIMATE by arithmetic, not a measurement.\n"
        f"Policy {model['name']}: {model['num_parameters'] / 1e6:,.1f} million weights stored in "
        f"{model['stored_dtype']}, {model['image_tokens']} tokens an image.\n"
        f"The whole run, {run['num_iterations']} iterations and the base's evaluation: "
        f"{run['seconds'] / 3600:.2f} h, of them {_hours(shape['base_seconds'])} before the first "
        f"iteration, and {_gb(run['disk_bytes'])} GB of disk."
    )
    parts: list[Any] = [head, ""]
    if shape["iterations"]:
        parts += [_time_table(shape), _size_table(shape)]
    for title, lines in (
        ("Advice", shape["advice"]),
        ("Assumed", shape["assumptions"]),
        ("Not counted", shape["not_counted"]),
    ):
        if lines:
            parts += [f"{title}:", *(f"  - {line}" for line in lines)]
    return Group(*(plain(part) if isinstance(part, str) else part for part in parts))


def _time_table(shape: Json) -> Any:
    groups = shape["iterations"]
    table = _table("Estimated hours of one iteration", groups)
    for stage in groups[0]["seconds"]:
        table.add_row(stage, *(_hours(group["seconds"][stage]) for group in groups))
        if stage == "sample: prefill":
            for name, words in _SCHEDULES.items():
                table.add_row(f"  {words}", *(_prefill(group, name) for group in groups))
    table.add_section()
    table.add_row("one iteration", *(_hours(group["total_seconds"]) for group in groups))
    return table


def _prefill(group: Json, schedule: str) -> str:
    """What it would take by that schedule; a star marks the one that is taken."""
    sampling = group["sampling"]
    if sampling is None or schedule not in sampling["prefill_seconds"]:
        return ""
    star = " *" if sampling["schedule"] == schedule else ""
    return f"({_hours(sampling['prefill_seconds'][schedule])}){star}"


def _size_table(shape: Json) -> Any:
    groups = shape["iterations"]
    table = _table("Estimated sizes", groups)
    rows: list[tuple[str, Any]] = [
        ("prompts, in shards of", lambda g: f"{g['num_prompts']:,} / {g['shard_size']:,}"),
        ("GPU, sampling: weights, GB", _of("memory.sampling.weights_bytes", _gb)),
        ("  KV cache, GB", _of("memory.sampling.kv_cache_bytes", _gb)),
        ("  KV cache, kB a token", _of("memory.sampling.kv_bytes_per_token", _kb)),
        ("  tokens of a whole tree", _of("sampling.tokens_held_per_tree", _whole)),
        ("  whole trees that fit", _of("sampling.trees_in_kv_cache", _whole)),
        ("  similarity, GB", _of("memory.sampling.similarity_bytes", _gb)),
        ("  fits", _of("memory.sampling.fits", _yes)),
        ("GPU, training: weights, GB", _of("memory.training.weights_bytes", _gb)),
        ("  in", _of("memory.training.dtype", str)),
        ("  adapter and optimiser, GB", _of("memory.training.adapter_and_optimizer_bytes", _gb)),
        ("  activations, GB", _of("memory.training.activations_bytes_plain", _gb)),
        ("  with checkpointing, GB", _of("memory.training.activations_bytes_checkpointed", _gb)),
        ("  total as configured, GB", _of("memory.training.total_bytes", _gb)),
        ("  fits", _of("memory.training.fits", _yes)),
        ("disk: tables, kB a prompt", _of("disk.tables_bytes_per_prompt", _kb)),
        ("  tables, GB", _of("disk.tables_bytes", _gb)),
        ("  policy, GB", _of("disk.policy_bytes", _gb)),
        ("  checkpoints while it trains, GB", _of("disk.training_checkpoints_bytes", _gb)),
        ("RAM: sample, GB", _of("ram_bytes.sample", _gb)),
        ("  pair, GB", _of("ram_bytes.pair", _gb)),
        ("  train, GB", _of("ram_bytes.train", _gb)),
    ]
    for name, cell in rows:
        table.add_row(name, *(cell(group) for group in groups))
    return table


def _table(title: str, groups: Iterable[Json]) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("", overflow="fold")
    for group in groups:
        first, last = group["iterations"][0], group["iterations"][-1]
        name = f"iteration {first}" if first == last else f"iterations {first} to {last}"
        table.add_column(name, justify="right", overflow="fold")
    return table


def _of(path: str, show: Any) -> Any:
    """A cell: the value at a dotted path, or a dash where there is none."""

    def cell(group: Json) -> str:
        value: Any = group
        for key in path.split("."):
            value = None if value is None else value.get(key)
        return "-" if value is None else str(show(value))

    return cell


def _hours(seconds: float | None) -> str:
    """In hours; what would round to nothing, in seconds."""
    if seconds is None:
        return "not known"
    return f"{seconds / 3600:.2f}" if seconds >= _SHORTEST_IN_HOURS else f"{seconds:.1f} s"


def _gb(value: float) -> str:
    return f"{value / GB:.1f}" if value >= GB else f"{value / GB:.3f}"


def _kb(value: float) -> str:
    return f"{value / 1000:,.1f}"


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _yes(value: bool) -> str:
    return "yes" if value else "NO"
