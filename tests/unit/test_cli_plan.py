"""`csr plan`: what it says of recipes, and of what it cannot plan."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from csr.planning import ExpectedResponse
from flows.config import load_recipe
from flows.planning.known_models import HUB_IDS
from flows.planning.plan import PlanRequest
from flows.planning.plan import plan as planned
from tests.scripted_run import Csr, files_below, write_recipe
from tests.unit.test_plan_geometry import write_config

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
CSR = RECIPES / "csr_llava15_7b.yaml"
SIMA = RECIPES / "sima_llava15_7b.yaml"
LLAVA = ("--model-geometry", "llava-1.5-7b")


def shape_of(recipe: Path, *settings: str, **asked: Any) -> dict[str, Any]:
    loaded = load_recipe(recipe, settings)
    request: dict[str, Any] = {
        "gpu": "H200",
        "question_tokens": 45,
        "expected": ExpectedResponse(num_sentences=8, tokens_per_sentence=20),
    }
    return planned(loaded, PlanRequest(**(request | asked)))


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("gpu", ["H100", "CPU"])
def test_every_recipe_is_planned_whole(recipe: Path, gpu: str) -> None:
    shape = shape_of(recipe, gpu=gpu, num_evaluation_prompts=7)
    loaded = load_recipe(recipe)
    told = [number for group in shape["iterations"] for number in group["iterations"]]
    assert told == list(range(1, loaded.num_iterations + 1))
    for group in shape["iterations"]:
        assert None not in group["seconds"].values()
        assert group["total_seconds"] == pytest.approx(sum(group["seconds"].values()))
    assert shape["run"]["seconds"] > 0
    assert not [line for line in shape["not_counted"] if "source" in line or "sampler" in line]


NEEDS_80_GB = re.compile(r"\b(one|eight) 80 GB GPUs?\b")


def header_of(recipe: Path) -> str:
    """The comments that a recipe begins with, on one line."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), recipe.read_text().splitlines())
    return " ".join(line.removeprefix("#").strip() for line in lines)


def of_known_models() -> list[Path]:
    recipes = sorted(RECIPES.glob("*.yaml"))
    loaded = {path: load_recipe(path) for path in recipes}
    return [p for p, r in loaded.items() if r.num_iterations and r.policy.model in HUB_IDS]


def unfitting(recipe: Path, *settings: str) -> list[tuple[list[int], str]]:
    """Iterations and stages that do not fit into a GPU of 80 GB."""
    groups = shape_of(recipe, *settings, gpu="A100", num_evaluation_prompts=7)["iterations"]
    return [
        (group["iterations"], stage)
        for group in groups
        for stage, memory in group["memory"].items()
        if memory and not memory["fits"]
    ]


@pytest.mark.parametrize("recipe", of_known_models(), ids=lambda path: path.stem)
def test_a_recipe_fits_the_machine_that_its_header_names(recipe: Path) -> None:
    assert NEEDS_80_GB.search(header_of(recipe))
    assert unfitting(recipe) == []


def test_the_check_of_headers_sees_what_does_not_fit() -> None:
    assert unfitting(CSR, "trainer.dtype=float32") == [([1, 2, 3], "training")]


def test_the_paper_s_run_on_one_h200() -> None:
    """Preset `released` is the tree of the figures that were worked out before."""
    shape = shape_of(
        CSR, "source.preset=released", "sampler.gpu_memory_utilization=0.9",
        "similarity.precision=bf16", num_prompts=12_000, num_evaluation_prompts=0,
    )  # fmt: skip
    [group] = shape["iterations"]
    hours = {stage: seconds / 3600 for stage, seconds in group["seconds"].items()}
    assert group["iterations"] == [1, 2, 3]
    assert hours["sample: decode"] == pytest.approx(0.92, rel=0.05)
    assert hours["sample: prefill"] == pytest.approx(0.15, rel=0.10)
    assert hours["sample: score"] * 3600 == pytest.approx(56, rel=0.05)
    # The reference is computed beside the training; nothing is checkpointed.
    assert hours["train"] == pytest.approx(0.17 + 0.37, rel=0.10)
    assert group["sampling"]["trees_in_kv_cache"] == pytest.approx(74, abs=1)
    assert group["sampling"]["schedule"] == "kept"  # a shard has 512, and 74 grow at once
    by_levels = group["sampling"]["prefill_seconds"]["level_by_level"]
    assert by_levels / 3600 == pytest.approx(0.60, rel=0.10)
    assert group["total_seconds"] == pytest.approx(sum(group["seconds"].values()))
    assert shape["run"]["seconds"] == shape["base_seconds"] + 3 * group["total_seconds"]
    assert not any("shard_size" in line for line in shape["advice"])


def test_a_source_that_asks_in_batches_is_told_how_many_prompts_the_cache_holds() -> None:
    short = "trainer.num_epochs=1"
    [group] = (shape := shape_of(SIMA, "shard_size=4096", short))["iterations"]
    assert group["sampling"]["schedule"] == "level_by_level"
    num = group["sampling"]["trees_in_kv_cache"]
    assert any(f"shard_size={num}" in line for line in shape["advice"])
    [group] = shape_of(SIMA, f"shard_size={num}", short)["iterations"]
    assert group["sampling"]["schedule"] == "kept"


def test_float16_is_trained_in_float32_unless_told_otherwise() -> None:
    stored = "trainer.dtype=auto"
    [wide] = shape_of(CSR, stored)["iterations"]
    [narrow] = shape_of(CSR)["iterations"]
    ratio = wide["seconds"]["train"] / narrow["seconds"]["train"]
    assert ratio == pytest.approx(989 / 67)
    assert wide["memory"]["training"]["dtype"] == "float32"
    assert any("trainer.dtype=bfloat16" in line for line in shape_of(CSR, stored)["advice"])


def test_what_does_not_fit_is_said() -> None:
    shape = shape_of(CSR, gpu="rtx 4090")
    [group] = shape["iterations"]
    assert not group["memory"]["training"]["fits"]
    assert not group["memory"]["sampling"]["fits"]
    assert any("Sampling does not fit" in line for line in shape["advice"])
    [mend] = [line for line in shape["advice"] if "Training does not fit" in line]
    assert "trainer.gradient_checkpointing=true" in mend


def test_gpus_that_are_idle_or_missing_are_named() -> None:
    settings = ("sampler.tensor_parallel_size=4",)
    advice = shape_of(CSR, *settings, num_gpus=2)["advice"]
    assert any("asks for 4 GPUs, and there are 2" in line for line in advice)
    assert any("trainer.num_processes=2" in line for line in advice)
    assert not any("GPUs" in line for line in shape_of(CSR)["advice"])


def test_stages_of_a_method_are_planned_apart() -> None:
    shape = shape_of(RECIPES / "stic_llava16_mistral_7b.yaml")
    first, second = shape["iterations"]
    assert (first["iterations"], second["iterations"]) == ([1], [2])
    assert (first["num_prompts"], second["num_prompts"]) == (6000, 5000)
    assert first["seconds"]["measure"] == first["seconds"]["sample: score"] == 0
    assert any("as many tokens as they may" in line for line in shape["not_counted"])


def test_a_component_that_tells_nothing_is_not_guessed(tmp_path: Path) -> None:
    shape = shape_of(write_recipe(tmp_path / "data"), model_geometry="tiny-world")
    [group] = shape["iterations"]
    assert group["num_prompts"] == 6
    assert group["seconds"]["sample: decode"] is None
    assert group["seconds"]["train"] is None
    assert sum("'scripted'" in line for line in shape["not_counted"]) == 3
    assert group["disk"]["tables_bytes"] > 0


def test_prompts_are_as_many_as_the_file_holds(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "data")
    many = "data.num_prompts_per_iteration=999"
    asked = {"model_geometry": "tiny-world"}
    assert shape_of(recipe, many, **asked)["iterations"][0]["num_prompts"] == 12
    given = shape_of(recipe, many, **asked, num_prompts=50)
    assert given["iterations"][0]["num_prompts"] == 50


# ---------------------------------------------------------------- the command


def test_everything_printed_says_that_it_is_an_estimate(csr: Csr, tmp_path: Path) -> None:
    home = tmp_path / "home"
    answer = csr("plan", CSR, *LLAVA, "--gpu", "h100", "--home", home)
    assert (answer.status, answer.err) == (0, "")
    for words in (
        "ESTIMATE",
        "sample: prefill",
        "whole trees that fit",
        "Assumed:",
        "Not counted:",
    ):
        assert words in answer.out
    shape = csr("plan", CSR, *LLAVA, "--json", "--home", home).json()
    assert shape["estimate"] is True
    assert shape["assumptions"]
    assert files_below(home) == []
    assert not home.exists()


def test_lengths_are_the_user_s_to_say(csr: Csr) -> None:
    short, long = (
        csr("plan", CSR, *LLAVA, "--sentences", number, "--json").json()["iterations"][0]
        for number in (4, 8)
    )
    assert long["sampling"]["tokens_generated_per_prompt"] == (5 + 7 * 25) * 20
    assert short["sampling"]["tokens_generated_per_prompt"] == (5 + 3 * 25) * 20


def test_a_directory_needs_no_weights(csr: Csr, tmp_path: Path) -> None:
    model = write_config(tmp_path / "m", {"model_type": "llava", "dtype": "bfloat16"})
    setting = ("--set", f"policy.model={model}")
    shape = csr("plan", CSR, *setting, "--json").json()
    assert shape["model"]["num_parameters"] == pytest.approx(7.06e9, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--gpu", "H1000"), "Did you mean 'H100'? Known: H100, H200, A100, L40S, RTX4090, CPU."),
        (("--set", "policy.model=lab/own-7b"), "--model-geometry (llava-1.5-7b,"),
        (("--model-geometry", "gpt"), "There is no known geometry 'gpt'"),
        ((*LLAVA, "--set", "trainer.bet=1"), "trainer.bet: unknown setting. Did you mean 'beta'?"),
        ((*LLAVA, "--sentences", "0"), "Must be >= 1"),
        ((*LLAVA, "--tokens-per-sentence", "inf"), "Must be <= 1000000"),
        ((*LLAVA, "--num-prompts", "-3"), "Must be >= 1"),
    ],
)
def test_a_mistake_is_one_message_and_status_2(
    csr: Csr, arguments: tuple[str, ...], message: str
) -> None:
    answer = csr("plan", CSR, *arguments, "--json")
    assert answer.status == 2
    assert message in " ".join(answer.err.replace("│", " ").split())
    assert "Traceback" not in answer.err
    assert answer.out == ""


def test_a_shipped_recipe_is_planned_as_it_stands(csr: Csr) -> None:
    assert csr("plan", CSR, "--json").json() == csr("plan", CSR, *LLAVA, "--json").json()


def test_a_model_that_does_not_tell_its_image_tokens_needs_them(csr: Csr, tmp_path: Path) -> None:
    model = write_config(tmp_path / "m", {"model_type": "qwen2_5_vl", "dtype": "bfloat16"})
    setting = ("--set", f"policy.model={model}")
    assert "--image-tokens N" in csr("plan", CSR, *setting).err
    shape = csr("plan", CSR, *setting, "--image-tokens", 300, "--json").json()
    assert shape["model"]["image_tokens"] == 300
    assert any("image tower" in line for line in shape["not_counted"])


def test_workers_share_the_shards_and_nothing_else() -> None:
    alone = shape_of(CSR, num_prompts=4096, num_evaluation_prompts=7)  # eight shards
    three = shape_of(
        CSR, "ray={num_workers: 3}", num_prompts=4096, num_evaluation_prompts=7, num_gpus=2
    )
    [one], [other] = alone["iterations"], three["iterations"]
    for stage, seconds in one["seconds"].items():
        share = 3 / 8 if stage.startswith("sample") else 1
        assert other["seconds"][stage] == pytest.approx(share * seconds), stage
    advice = three["advice"]
    assert any("sampler asks for 3 GPUs" in line and "ray.num_workers=2" in line for line in advice)


def test_endpoints_share_each_shard_and_run_already() -> None:
    def served(num_endpoints: int, num_prompts: int, shard_size: int) -> dict[str, float | None]:
        urls = ", ".join(f"http://127.0.0.1:{8000 + n}" for n in range(num_endpoints))
        shape = shape_of(
            CSR,
            f"sampler={{name: server, endpoints: [{urls}]}}",
            f"shard_size={shard_size}",
            num_prompts=num_prompts,
            num_evaluation_prompts=64,
        )
        [iteration] = shape["iterations"]
        return iteration["seconds"]

    one, two = served(1, 2048, 256), served(2, 4096, 512)
    assert two["sample: decode"] == pytest.approx(one["sample: decode"])
    assert two["sample: prefill"] == pytest.approx(one["sample: prefill"])
    assert two["sample: score"] == pytest.approx(2 * one["sample: score"])
    assert two["evaluate"] < one["evaluate"]
    [own] = shape_of(CSR, num_prompts=2048, num_evaluation_prompts=64)["iterations"]
    assert one["start-up"] < own["seconds"]["start-up"]


def test_a_model_in_shards_takes_its_share_of_each_gpu() -> None:
    recipe = RECIPES / "csr_llava15_13b_8gpu.yaml"
    whole = shape_of(recipe, "trainer.accelerate_config=null", num_evaluation_prompts=7)
    shards = shape_of(recipe, num_evaluation_prompts=7)
    [one], [other] = whole["iterations"], shards["iterations"]
    parts, all_of_it = other["memory"]["training"], one["memory"]["training"]
    assert parts["weights_bytes"] == pytest.approx(all_of_it["weights_bytes"] / 8)
