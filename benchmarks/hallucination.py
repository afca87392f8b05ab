"""CSR on the embedded world over seeds and bases: the table of docs/results.md.

    python benchmarks/hallucination.py --home runs/results [--configurations csr random ...]

Runs every configuration with every seed of every base model, one after another, resuming
what is already done; then prints what `csr compare` makes of them. To use two cores, start
it with `--part 1/2` and, beside it, with `--part 2/2`, both with OMP_NUM_THREADS=1; then once
more without `--part` to print the table.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from csr.errors import RunFailed
from flows import environment
from flows.cli import DEMO_RECIPE

CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    "csr": (),
    "random": ("source.pairing=random",),
    "lambda-0": ("reward.image_weight=0.0",),
    "lambda-0_5": ("reward.image_weight=0.5",),
    "lambda-1": ("reward.image_weight=1.0",),
    "paper": ("source.preset=paper",),
    "released": ("source.preset=released",),
}
"""Name -> overrides of recipes/tiny.yaml, whose λ is 0.9. `random`: pairs drawn blindly."""

SEEDS_OF_BASE = {0: (11, 12, 13), 1: (21, 22, 23)}
"""World seed (an independently trained base model) -> run seeds."""


def main() -> int:
    """Run what is asked for and print the comparison."""
    options = _parse()
    environment.apply(options.home, offline=True)
    from flows.command import run
    from flows.forms import RunRequest

    part, parts = map(int, options.part.split("/"))
    jobs = _jobs(options.configurations)[part - 1 :: parts]
    failures = 0
    for name, overrides in jobs:
        try:
            request = RunRequest(
                home=str(options.home.absolute()), recipe=str(DEMO_RECIPE), settings=overrides
            )
            print(f"{name}: {run(request).run_id}", flush=True)
        except RunFailed as error:
            failures += 1
            print(f"{name} FAILED: {error}", flush=True)
    if parts == 1 and failures == 0:
        _print_comparison(options.home)
    return 1 if failures else 0


def _jobs(configurations: list[str]) -> list[tuple[str, tuple[str, ...]]]:
    """One seed of everything before the next seed; every other job is of the same base."""
    return [
        (name, (*CONFIGURATIONS[name], *_common(name, seed, base)))
        for seeds in zip(*SEEDS_OF_BASE.values(), strict=True)
        for name in configurations
        for base, seed in zip(SEEDS_OF_BASE, seeds, strict=True)
    ]


def _common(name: str, seed: int, base: int) -> tuple[str, ...]:
    """Gates are off: a control that does harm is to be measured to its end."""
    return (f"name={name}", f"seed={seed}", f"world.seed={base}", "gates=null")


def _print_comparison(home: Path) -> None:
    from flows.comparison import compare
    from flows.comparison_views import to_markdown
    from storage.run_store import RunStore

    run_ids = [record.run_id for record in RunStore(home).runs()]
    print(to_markdown(compare(home, run_ids, control="random")))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path("runs/results"))
    parser.add_argument("--configurations", nargs="+", default=list(CONFIGURATIONS))
    parser.add_argument("--part", default="1/1")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
