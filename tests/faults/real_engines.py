"""vLLM, TRL and open_clip on the smallest embedded world, killed at chosen events.

Each start is a process of its own, which takes half a minute for the engines alone: so the
events are chosen, not all.

    python -m tests.faults.real_engines RECIPE HOME LOG KIND AT
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from csr.world.settings import Config
from flows.environment import OFFLINE, TELEMETRY
from tests.faults.cases import Case, Result, Undisturbed, attempt
from tests.faults.command import ROOT, RUN, Ended
from tests.faults.events import NO_FAULT, Fault, Owner, Watch
from tests.faults.results import made

CALLS: tuple[Owner, ...] = (
    ("csr.samplers.vllm", "VllmSampler", "load_policy"),
    ("csr.samplers.vllm", "VllmSampler", "sample_steps"),
    ("csr.samplers.vllm", "VllmSampler", "generate"),
    ("csr.samplers.vllm", "VllmSampler", "score"),
    ("rewards.similarity.clip", "ClipSimilarity", "image_text"),
    ("csr.trainers.dpo", "DPO", "train"),
    ("csr.trainers.dpo", "DPO", "score"),
    ("csr.trainers._watch", "TrainingWatch", "reference"),
    ("csr.trainers._watch", "TrainingWatch", "batch"),
    ("csr.evaluation.captions", "CaptionBenchmark", "evaluate"),
)
INSIDE = (
    "call sample_steps",
    "call image_text",
    "write mine/iterations/01/attempts/1/pairs/.00000.parquet.*.tmp",
    "call reference",
    "call batch",
    "fsync mine/iterations/01/attempts/1/.policy.*.tmp/model",
    "call generate",
    "call evaluate",
)
"""Where a stage is killed inside: at the middle one of the events of each name."""

TIMEOUT_SECONDS = 600


def undisturbed(folder: Path) -> Undisturbed:
    """One iteration of eight prompts in two shards, run once; its world is built first."""
    recipe = yaml.safe_load((ROOT / "recipes" / "tiny.yaml").read_text())
    recipe |= {
        "num_iterations": 1,
        "shard_size": 4,
        "num_statistics_prompts": 8,
        "world": Config.micro().model_dump(mode="json"),
    }
    recipe["data"]["num_prompts_per_iteration"] = 8
    recipe["source"] |= {
        "max_steps": 2,
        "max_step_tokens": 8,
        "max_response_tokens": 16,
        "pair_filter": {"min_margin_quantile": 0.0, "max_length_difference": 1.0},
    }
    recipe["evaluation"] = [recipe["evaluation"][0] | {"max_response_tokens": 16}]
    path = folder / "micro.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    home = folder / "undisturbed"
    ended = run(path, home, folder / "undisturbed_log")
    assert ended.status == 0, ended.err
    return Undisturbed(path, folder, ended.events, made(home, RUN))


def run(recipe: Path, home: Path, log: Path, fault: Fault = NO_FAULT) -> Ended:
    """As `tests.faults.command.run`, in a new interpreter."""
    arguments = [recipe, home, log.with_suffix(".events"), fault.kind, fault.at]
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")},
        **{setting.name: setting.value for setting in (*OFFLINE, *TELEMETRY)},
        "CSR_CACHE": str(recipe.parent / "cache"),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.real_engines", *map(str, arguments)],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_SECONDS,
        check=False,
    )  # fmt: skip
    return Ended(done.returncode, done.stderr, log.with_suffix(".events").read_text().splitlines())


def border_kills(peace: Undisturbed) -> list[Case]:
    """SIGKILL where each stage begins, and where it is recorded."""
    names = ("call run_stage", "call record", "end record")
    return [(Fault("kill", n),) for n, e in enumerate(peace.events, 1) if e.startswith(names)]


def inner_kills(peace: Undisturbed) -> list[Case]:
    """SIGKILL while the engines work."""
    chosen = []
    for name in INSIDE:
        places = [n for n, event in enumerate(peace.events, 1) if event == name]
        chosen.append(places[len(places) // 2])
    return [(Fault("kill", place),) for place in chosen]


def all_results(folder: Path, show: Callable[[Result], None]) -> list[Result]:
    """Every case, one after another: the engines want the machine for themselves."""
    peace = undisturbed(folder)
    results = []
    for case in (*inner_kills(peace), *border_kills(peace)):
        results.append(attempt(peace, case, run))
        show(results[-1])
    return results


def main() -> None:
    """The command, watched."""
    from flows import cli
    from tests.scripted_run import without_prefect

    recipe, home, log, kind, at = sys.argv[1:]
    sys.argv = ["csr", "run", recipe, "--home", home, "--run-id", RUN]
    sys.modules.update(without_prefect())
    Watch(Path(home), Path(log), Fault(kind, int(at))).start(CALLS)
    cli.main()


if __name__ == "__main__":
    main()
