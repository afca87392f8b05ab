"""One whole iteration of the demo's recipe: against prompts, candidates, beams and workers.

Each run is a process of its own, so that its memory is its own. A stage's seconds are from the
start of its first shard to the end of its last, by the manifest; engines start in the first stage.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

from benchmarks.performance.measuring import Json, growth

PROMPTS = (64, 128, 256)
CANDIDATES = (3, 5, 8)
BEAMS = (2, 5, 8)
"""Nodes that a level keeps; both ways of varying a tree are at the fewest prompts."""
WORKERS = (1, 2)
"""Of Ray on this machine, one core each, at the fewest prompts in eight shards."""
_RECIPE = Path(__file__).parents[3] / "recipes" / "tiny.yaml"


def measure(work: Path, rounds: int) -> Json:
    """`rounds` has no say: a line through several sizes shows its own spread."""
    by_prompts = [_run(work, f"data.num_prompts_per_iteration={n}") for n in PROMPTS]
    fewest = f"data.num_prompts_per_iteration={PROMPTS[0]}"
    by_candidates = [_run(work, fewest, f"source.num_candidates={n}") for n in CANDIDATES]
    by_beams = [
        _run(work, fewest, f"source.keep_top={n - 1}", "source.keep_bottom=1") for n in BEAMS
    ]
    by_workers = [_run(work, fewest, f"shard_size={PROMPTS[0] // 8}", _on_ray(n)) for n in WORKERS]
    return {
        "prompts": _line(PROMPTS, by_prompts),
        "candidates": _line(CANDIDATES, by_candidates),
        "beams": _line(BEAMS, by_beams),
        "workers": {"sizes": list(WORKERS), "runs": by_workers},
    }


def _on_ray(num_workers: int) -> str:
    settings = {"num_workers": num_workers, "gpus_per_worker": 0, "address": "local"}
    return f"ray={json.dumps(settings)}"


def _line(sizes: tuple[int, ...], runs: list[Json]) -> Json:
    seconds = [run["seconds"]["sample"] + run["seconds"]["train"] for run in runs]
    return {
        "sizes": list(sizes),
        "runs": runs,
        "sample_and_train_seconds": growth(sizes, seconds),
        "peak_bytes": growth(sizes, [run["peak_bytes"] for run in runs]),
    }


def _run(work: Path, *settings: str) -> Json:
    home = work / "iteration"
    shutil.rmtree(home, ignore_errors=True)
    common = ("num_iterations=1", "shard_size=64", "evaluation=[]", "gates=null")
    overrides = [word for each in (*common, *settings) for word in ("--set", each)]
    csr = Path(sys.executable).with_name("csr")
    command = [str(csr), "run", str(_RECIPE), "--home", str(home)]
    subprocess.run([*command, "--run-id", "measured", *overrides], check=True)
    file = home / "measured" / "iterations" / "01" / "attempts" / "1" / "manifest.json"
    stages = json.loads(file.read_text())["stages"]
    seconds = {name: _seconds(stages, name) for name in {stage["stage"] for stage in stages}}
    figures = next(stage["metrics"] for stage in stages if stage["stage"] == "train")
    tokens = sum(stage["metrics"].get("num_generated_tokens", 0) for stage in stages)
    return {
        "settings": list(settings),
        "seconds": seconds,
        "peak_bytes": max(stage["peak_memory_bytes"] or 0 for stage in stages),
        "sampled_tokens": tokens,
        "optimizer_steps": figures.get("num_steps"),
    }


def _seconds(stages: list[Json], name: str) -> float:
    times = [
        [datetime.fromisoformat(stage[when]) for when in ("started_at", "finished_at")]
        for stage in stages
        if stage["stage"] == name
    ]
    return (max(end for _, end in times) - min(start for start, _ in times)).total_seconds()
