"""All methods on the embedded world under one budget: the second table of docs/results.md.

    python benchmarks/methods.py --home runs/methods [--configurations csr sima ...]

Every configuration has the same two base models, as many prompts and optimiser steps an iteration,
and the same held-out scenes; three seeds a base. Runs go on where they stopped. To use two cores,
start it with `--part 1/2` and, beside it, with `--part 2/2`, both with OMP_NUM_THREADS=1; then once
more without `--part` to print the table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from csr.errors import RunFailed
from csr.world.clip import ClipSettings
from csr.world.parts import build_part
from csr.world.settings import Config as WorldConfig
from flows import environment
from flows.cli import DEMO_RECIPE
from rewards.settings import Config as RewardConfig

RECIPES = DEMO_RECIPE.parent
NUM_ITERATIONS = 2
NUM_PROMPTS = 256
NUM_STEPS = 32
"""Optimiser steps an iteration, of 16 pairs or demonstrations each."""
SEEDS_OF_BASE = {0: (11, 12, 13), 1: (21, 22, 23)}
"""World seed (an independently trained base model) -> run seeds."""
ABILITIES = ("look", "imagine", "verify", "explain", "judge")
CONTROL = "random"
CLIP_LOW = RewardConfig.model_fields["clip_low"].default


@dataclass(frozen=True)
class Configuration:
    """A recipe, and what departs from it."""

    recipe: str
    overrides: tuple[str, ...] = ()


def _benchmarks(**of_pope: str) -> list[dict[str, object]]:
    more: dict[str, dict[str, object]] = {
        "captions": {"max_response_tokens": 96, "vocabulary": "${world}/data/vocabulary.json"},
        "pope": {"max_response_tokens": 8, **of_pope},
        "rationales": {"max_response_tokens": 24},
    }
    return [
        {
            "name": name,
            "prompts": f"${{world}}/data/heldout_{name}.jsonl",
            "images": "${world}/data/images",
            **settings,
        }
        for name, settings in more.items()
    ]


_PMI = ("reward.image_weight=0.45", "reward.pmi_weight=0.45")
_SELF_CHECK = (
    "reward.image_weight=0.45",
    "reward.self_check_weight=0.45",
    'reward.self_check.template="{claim} Is it so?"',
)
_SECOND_CLIP = "{second_clip}"
_ENSEMBLE = (
    f'second_similarity={{name: clip, model: "{_SECOND_CLIP}"}}',
    "reward.image_weight=0.45",
    "reward.second_similarity_weight=0.45",
)
_TWO_STAGES = (
    'per_iteration={2: {trainer: {image_terms: {corruption: "diffusion_noise:500", '
    "distortion: released, distortion_weight: 0.25}}}}"
)

_STIC_STEPS = f"per_iteration.2.trainer.num_steps={NUM_STEPS}"
_DESCRIBED = f"evaluation={json.dumps(_benchmarks(describe_first='Describe the image.'))}"


def _same_pay(image_weight: float) -> tuple[str, ...]:
    """Another λ that pays as much for a usual sentence, within bounds as far from it.

    Only the image part has an offset, so a smaller λ alone also means shorter captions.
    """
    reward = yaml.safe_load((RECIPES / "tiny.yaml").read_text())["reward"]
    offset = reward["offset"] * reward["image_weight"] / image_weight
    shift = offset - reward["offset"]
    bounds = {"clip_low": CLIP_LOW + shift, "clip_high": reward["clip_high"] + shift}
    changes = {"image_weight": image_weight, "offset": offset, **bounds}
    return tuple(f"reward.{name}={value:g}" for name, value in changes.items())


CONFIGURATIONS = {
    "csr": Configuration("tiny"),
    CONTROL: Configuration("tiny", ("source.pairing=random",)),
    "csr-pmi": Configuration("tiny", _PMI),
    "csr-self-check": Configuration("tiny", _SELF_CHECK),
    "csr-ensemble": Configuration("tiny", _ENSEMBLE),
    "csr-siblings": Configuration("tiny", ("source.pairing=extremes_and_siblings",)),
    "csr-ld": Configuration("tiny", ("trainer.ld_alpha=0.5",)),
    "csr-norm": Configuration("tiny", ("trainer.loss_type=[sigmoid_norm]",)),
    "csr-mdpo": Configuration("mdpo_tiny"),
    "lambda-0": Configuration("tiny", ("reward.image_weight=0.0",)),
    "lambda-0_5": Configuration("tiny", ("reward.image_weight=0.5",)),
    "lambda-0_5-paid": Configuration("tiny", _same_pay(0.5)),
    "lambda-1-paid": Configuration("tiny", _same_pay(1.0)),
    "povid": Configuration("povid_tiny"),
    "povid-image": Configuration("povid_tiny", (_TWO_STAGES,)),
    "sima": Configuration("sima_tiny"),
    "sima-likelier": Configuration("sima_tiny", ("source.verdict=likelier",)),
    "stic": Configuration("stic_tiny", (_STIC_STEPS,)),
    "stic-described": Configuration("stic_tiny", (_STIC_STEPS, _DESCRIBED)),
    "illume": Configuration("illume_tiny", ("stop=null",)),
}
"""Name -> what is run. `random`: CSR's trees, pairs drawn blindly; `lambda`: recipes/tiny.yaml,
whose own is 0.9; `stic-described`: STIC whose closed questions stand behind a description."""


def main() -> int:
    """Run what is asked for and print the comparison."""
    options = _parse()
    environment.apply(options.home, offline=True)
    from flows.command import run
    from flows.forms import RunRequest

    part, parts = map(int, options.part.split("/"))
    failures = 0
    for name, seed, base in _jobs(options.configurations)[part - 1 :: parts]:
        request = RunRequest(
            home=str(options.home.absolute()),
            recipe=str(RECIPES / f"{CONFIGURATIONS[name].recipe}.yaml"),
            settings=(*_common(name, seed, base), *_overrides(name, options.home.absolute())),
        )
        try:
            print(f"{name}: {run(request).run_id}", flush=True)
        except RunFailed as error:
            failures += 1
            print(f"{name} FAILED: {error}", flush=True)
    if parts == 1 and failures == 0:
        _print_comparison(options.home)
    return 1 if failures else 0


def _jobs(configurations: list[str]) -> list[tuple[str, int, int]]:
    """One seed of everything before the next seed; every other job is of the same base."""
    return [
        (name, seed, base)
        for seeds in zip(*SEEDS_OF_BASE.values(), strict=True)
        for name in configurations
        for base, seed in zip(SEEDS_OF_BASE, seeds, strict=True)
    ]


def _overrides(name: str, home: Path) -> tuple[str, ...]:
    overrides = CONFIGURATIONS[name].overrides
    if not any(_SECOND_CLIP in each for each in overrides):
        return overrides
    return tuple(each.replace(_SECOND_CLIP, str(_second_clip(home))) for each in overrides)


def _second_clip(home: Path) -> Path:
    """A reward model like the world's own, from other data and other weights; built once."""
    final = home / ".second-clip"
    if not final.exists():
        config = WorldConfig(clip=ClipSettings(seed=1)).model_dump(mode="json")
        home.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=".second-clip-", dir=home))
        build_part("clip", config, building, lambda done, total: None)
        with contextlib.suppress(OSError):  # who builds it beside us may be first
            building.rename(final)
    return final / "clip"


def _common(name: str, seed: int, base: int) -> tuple[str, ...]:
    """One budget and one set of questions. Gates are off: harm is to be measured to its end."""
    return (
        f"name={name}",
        f"seed={seed}",
        f"world.seed={base}",
        f"world.policy.abilities={json.dumps(ABILITIES)}",
        f"num_iterations={NUM_ITERATIONS}",
        f"data.num_prompts_per_iteration={NUM_PROMPTS}",
        f"trainer.num_steps={NUM_STEPS}",
        "gates=null",
        f"evaluation={json.dumps(_benchmarks())}",
    )


def _print_comparison(home: Path) -> None:
    from flows.comparison import compare
    from flows.comparison_views import to_markdown
    from storage.run_store import RunStore

    run_ids = [record.run_id for record in RunStore(home).runs()]
    print(to_markdown(compare(home, run_ids, control=CONTROL)))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path("runs/methods"))
    parser.add_argument("--configurations", nargs="+", default=list(CONFIGURATIONS))
    parser.add_argument("--part", default="1/1")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
