"""The peak memory of everything that was measured, put together from the parts."""

from __future__ import annotations

from benchmarks.gpu.record import Json


def derive(document: Json) -> Json:
    """Rows by part: what torch held, what the whole GPU showed, what the process had of RAM."""
    gpu = document["hardware"].get("gpu") or {}
    rows = [
        {"part": name, **part["memory"]}
        for name, part in document["parts"].items()
        if part.get("memory")
    ]
    figures: Json = {"gpu_bytes": gpu.get("memory_bytes"), "rows": rows}
    dpo = document["parts"].get("dpo", {}).get("figures", {})
    for name in ("without", "with_checkpointing"):
        figures[f"dpo_{name}_bytes"] = dpo.get(name, {}).get("peak_bytes")
    return figures
