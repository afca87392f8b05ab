"""Each model family through a whole iteration: real engines on tiny random checkpoints.

What vLLM sampled is scored again by transformers, so that both are shown to be one policy.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file

from csr import rendering
from csr.checkpoints import base_policy, weights_sha256
from csr.errors import ModelError
from csr.images import image_ref, load_image
from csr.samplers import transformers, vllm
from csr.samplers._shared import eos_token_ids
from csr.types import Prompt
from flows.forms import RunRequest
from storage.manifest import IterationManifest
from storage.run_store import RunStore
from storage.tables import read_table
from tests.logprobs import NATS, largest_difference
from tests.scripted_run import run_plainly, write_prompts
from tests.tiny_families import (
    make_gemma3,
    make_idefics3,
    make_internvl,
    make_llava_next,
    make_llava_onevision,
    make_qwen3_vl,
)
from tests.tiny_models import make_open_clip

pytestmark = pytest.mark.slow

SIZES = ((40, 36), (64, 96), (200, 50), (333, 217), (32, 32), (97, 40), (64, 64), (48, 50))
"""Widths and heights: small, tall, wide, larger than any tile."""
TEXT = "Describe the image."
ADAPTER = "policy/adapter/adapter_model.safetensors"
NUM_PROMPTS = 2 * len(SIZES)


def image_of(number: int) -> str:
    """Prompts that share an image are sampled with seeds of their own."""
    return f"{number % len(SIZES)}.png"


@dataclass(frozen=True)
class Family:
    """A tiny checkpoint's maker, and what carries it."""

    make: Callable[[Path], Path]
    sampler: str = "vllm"
    image_tokens_vary: bool = True
    """Whether an image's size decides how many tokens it becomes."""


FAMILIES = {
    "llava_onevision": Family(make_llava_onevision),
    "llava_next": Family(make_llava_next),
    "qwen3_vl": Family(make_qwen3_vl),
    "idefics3": Family(make_idefics3),
    "internvl": Family(make_internvl),
    "gemma3": Family(make_gemma3, sampler="transformers", image_tokens_vary=False),
}


@dataclass(frozen=True)
class Run:
    """A finished run of one iteration."""

    family: Family
    model: Path
    images: Path
    attempt: Path
    manifest: IterationManifest

    def metrics(self, stage: str) -> dict[str, float]:
        (record,) = [record for record in self.manifest.stages if record.stage == stage]
        return dict(record.metrics)

    def rows(self, table: str) -> list[dict[str, Any]]:
        return read_table(self.attempt / table, table).to_pylist()

    @property
    def prompts(self) -> list[Prompt]:
        refs = [image_ref(image_of(n), root=self.images) for n in range(NUM_PROMPTS)]
        return [Prompt(prompt_id=str(n), text=TEXT, image=ref) for n, ref in enumerate(refs)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, prompts and a CLIP for all families."""
    root = tmp_path_factory.mktemp("families")
    (root / "images").mkdir()
    for n, size in enumerate(SIZES):
        noise = np.random.default_rng(n).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"images/{n}.png")
    write_prompts(root / "prompts.jsonl", range(NUM_PROMPTS), image_of)
    make_open_clip(root / "clip")
    return root


def write_recipe(folder: Path, name: str, sampler: dict[str, Any]) -> Path:
    """One iteration with as many pairs as there can be, trained on in one step."""
    recipe = {
        "name": name.replace("_", "-"),
        "num_iterations": 1,
        "gates": None,  # an untrained model says anything
        "num_statistics_prompts": NUM_PROMPTS,
        "data": {"prompts": str(folder / "prompts.jsonl"), "images": str(folder / "images")},
        "policy": {"model": str(folder / name)},
        "sampler": sampler,
        "source": {
            "name": "csr",
            "num_candidates": 4,
            "keep_top": 2,
            "keep_bottom": 1,
            "max_steps": 2,
            "max_step_tokens": 12,
            "max_response_tokens": 24,
            "pair_filter": {
                "min_margin_quantile": 0.0,
                "max_length_difference": 1.0,
                "max_repetition": 1.0,
            },
        },
        "similarity": {"name": "clip", "model": str(folder / "clip")},
        "trainer": {
            "name": "dpo",
            "learning_rate": 1e-3,
            "num_epochs": 1,
            "batch_size": NUM_PROMPTS,
            "gradient_accumulation_steps": 1,
            "warmup_ratio": 0.0,
            "lora_rank": 4,
            "lora_alpha": 8,
        },
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


@pytest.fixture(scope="module", params=FAMILIES)
def run(request: pytest.FixtureRequest, folder: Path) -> Run:
    name, family = request.param, FAMILIES[request.param]
    model = family.make(folder / name)
    options = {"kv_cache_gib": 0.25} if family.sampler == "vllm" else {}
    recipe = write_recipe(folder, name, {"name": family.sampler, **options})
    run_plainly(RunRequest(recipe=str(recipe), run_id=name, home=str(folder / "home")))
    attempt = RunStore(folder / "home").attempt(name, 1)
    return Run(family, model, folder / "images", attempt.path, attempt.manifest.read())


def test_an_iteration_samples_pairs_trains_and_proves_the_new_policy(run: Run) -> None:
    pairs, train = run.metrics("pair"), run.metrics("train")
    assert pairs["num_pairs"] >= 2
    # DPO starts where policy and reference agree: the loss is log 2 there.
    assert train["loss_first"] == pytest.approx(math.log(2), abs=1e-5)
    assert train["probe_largest_change"] > 1e-4
    assert train["probe_largest_error"] < NATS
    trained = run.manifest.policy_out
    assert trained is not None
    assert trained["sha256"] == weights_sha256(run.attempt / "policy/model")
    assert trained["sha256"] != run.manifest.policy_in["sha256"]


def test_sampler_trainer_and_transformers_are_one_policy(run: Run) -> None:
    """And all of them look at the image."""
    responses = {row["response_id"]: row for row in run.rows("responses")}
    prompts = {prompt.prompt_id: prompt for prompt in run.prompts}
    other = transformers.build(transformers.Config())
    other.load_policy(base_policy(str(run.model)))
    nodes = [row for row in run.rows("nodes") if row["depth"] == 1]
    asked, ids = [prompts[row["prompt_id"]] for row in nodes], [row["token_ids"] for row in nodes]
    sampled = [row["token_logprobs"] for row in nodes]
    assert largest_difference(other.score(asked, ids), sampled) < NATS
    elsewhere = [
        replace(p, image=prompts[str((int(p.prompt_id) + 1) % len(SIZES))].image) for p in asked
    ]
    assert largest_difference(other.score(elsewhere, ids), sampled) > 0.1
    other.close()
    # One step over all pairs: its figures are the policy's before it learned anything.
    pairs = run.rows("pairs")
    for side in ("chosen", "rejected"):
        logprobs = [responses[pair[f"{side}_response_id"]]["sum_logprob"] for pair in pairs]
        mean = math.fsum(logprobs) / len(logprobs)
        assert run.metrics("train")[f"{side}_logprob"] == pytest.approx(mean, abs=1e-3)


def test_the_language_model_alone_has_learned(run: Run) -> None:
    files = (run.model, run.attempt / "policy/model")
    before, after = (load_file(directory / "model.safetensors") for directory in files)
    assert before.keys() == after.keys()
    changed = {name for name, weight in before.items() if not weight.equal(after[name])}
    # Attention's four projections and the MLP's three, in each of two layers.
    assert len(changed) == 14
    assert all("language_model." in name or "text_model." in name for name in changed)
    adapted = {name.split(".lora_")[0] for name in load_file(run.attempt / ADAPTER)}
    assert len(adapted) == 14
    assert not any("vis" in name or "proj." in name.partition("layers.")[0] for name in adapted)


def test_a_prompt_becomes_the_tokens_that_the_processor_itself_makes_of_it(run: Run) -> None:
    processor = rendering.load_processor(str(run.model))
    images = [load_image(prompt.image) for prompt in run.prompts[: len(SIZES)]]
    ours = rendering.expanded_inputs(processor, [TEXT] * len(SIZES), images)["input_ids"]
    for image, token_ids in zip(images, ours, strict=True):
        said = [{"type": "image", "image": image}, {"type": "text", "text": TEXT}]
        turn = {"role": "user", "content": said}
        theirs = processor.apply_chat_template(
            [turn], add_generation_prompt=True, tokenize=True, return_dict=True
        )
        assert list(theirs["input_ids"][0]) == token_ids
    assert (len({len(token_ids) for token_ids in ours}) > 1) == run.family.image_tokens_vary


def test_a_reference_ends_as_sampled_responses_do(run: Run) -> None:
    processor, answer = rendering.load_processor(str(run.model)), "A red circle."
    ids = rendering.response_token_ids(processor, TEXT, answer)
    ended = {row["token_ids"][-1] for row in run.rows("nodes") if row["finish_reason"] == "eos"}
    assert ids[-1] in ended <= eos_token_ids(run.model, processor)
    assert processor.tokenizer.decode(ids[:-1]).strip() == answer
    spoken = {token for row in run.rows("nodes") for token in row["token_ids"]}
    assert not spoken & set(rendering.media_token_ids(processor))


def test_vllm_on_a_cpu_is_refused_where_image_tokens_see_each_other_both_ways(
    tmp_path: Path,
) -> None:
    vllm.check_model(make_llava_onevision(tmp_path / "one-way"))
    model = make_gemma3(tmp_path / "gemma")
    with pytest.raises(ModelError, match=r"both directions.*Set the sampler to 'transformers'"):
        vllm.check_model(model)
    sampler = vllm.build(vllm.Config(kv_cache_gib=0.25))
    with pytest.raises(ModelError, match=r"is a gemma3 model"):
        sampler.load_policy(base_policy(str(model)))
