"""A user's own photographs, prompts, model and CLIP through `csr run`: real engines, no fakes.

Checkpoints are tiny and random, of three families; the photographs are real and large. One run
a family serves all tests here.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from csr.checkpoints import weights_sha256
from csr.images import image_ref, load_image
from csr.rendering import expanded_inputs, load_processor
from storage.rows import prompts_from_table
from storage.tables import read_table
from tests.cli_batch import Answer, run_batch, run_console_script
from tests.data_formats import Sample, write_parquet
from tests.logprobs import NATS
from tests.photographs import (
    HELD_OUT,
    INPUT,
    TRAIN,
    copy_photographs,
    write_csr_json,
    write_jsonl,
)
from tests.tiny_models import make_llava, make_open_clip, make_qwen2_5_vl, make_smolvlm

pytestmark = pytest.mark.slow

FAMILIES = ("llava", "qwen2_5_vl", "smolvlm")


@dataclass(frozen=True)
class Run:
    """A finished run, and what its command answered."""

    answer: Answer
    recipe: dict[str, Any]
    home: Path

    @property
    def path(self) -> Path:
        return self.home / self.answer.json["run_id"]

    @property
    def attempt(self) -> Path:
        return self.path / "iterations/01/attempts/1"

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.attempt / "manifest.json").read_text())

    def stage(self, name: str) -> dict[str, Any]:
        (record,) = [stage for stage in self.manifest["stages"] if stage["stage"] == name]
        return record


def write_recipe(folder: Path, family: str, prompts: str, similarity: dict[str, str]) -> Path:
    """One iteration over all photographs, with pairs wherever two responses end."""
    recipe = {
        "name": f"own-{family}".replace("_", "-"),
        "num_iterations": 1,
        "gates": None,  # an untrained model says anything
        "shard_size": 4,
        "num_statistics_prompts": 16,
        "data": {"prompts": str(folder / prompts), "images": str(folder / "images")},
        "policy": {"model": str(folder / family)},
        "sampler": {"name": "vllm", "kv_cache_gib": 0.25},
        "source": {
            "name": "csr",
            "max_steps": 3,
            "max_step_tokens": 12,
            "max_response_tokens": 36,
            "pair_filter": {
                "min_margin_quantile": 0.0,
                "max_length_difference": 1.0,
                "max_repetition": 1.0,
            },
        },
        "similarity": {"name": "clip", **similarity},
        "trainer": {
            "name": "dpo",
            "learning_rate": 1e-3,
            "batch_size": 2,
            "gradient_accumulation_steps": 1,
            "warmup_ratio": 0.0,
            "lora_rank": 8,
            "lora_alpha": 16,
        },
        "evaluation": [
            {
                "name": "captions",
                "prompts": str(folder / "heldout.jsonl"),
                "images": str(folder / "images"),
                "max_response_tokens": 24,
            }
        ],
    }
    path = folder / f"{family}.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, prompts in three forms, three policies, a CLIP, and a recipe for each."""
    root = tmp_path_factory.mktemp("own_data")
    copy_photographs(root / "images")
    write_jsonl(root / "train.jsonl", TRAIN)
    write_csr_json(root / "train.json", TRAIN)
    photographs = [(root / "images" / name).read_bytes() for name in TRAIN]
    write_parquet(
        root / "train.parquet",
        [Sample(str(n), image, INPUT) for n, image in enumerate(photographs)],
    )
    write_jsonl(root / "heldout.jsonl", HELD_OUT)
    make_llava(root / "llava")
    make_qwen2_5_vl(root / "qwen2_5_vl")
    make_smolvlm(root / "smolvlm")
    clip = make_open_clip(root / "clip")
    document = json.loads((clip / "open_clip_config.json").read_text())
    (root / "tiny-clip.json").write_text(json.dumps(document["model_cfg"]))
    by_directory = {"model": str(clip)}
    by_name = {"model": "tiny-clip", "pretrained": str(clip / "open_clip_model.safetensors")}
    write_recipe(root, "llava", "train.json", by_directory)
    write_recipe(root, "qwen2_5_vl", "train.jsonl", by_name)
    write_recipe(root, "smolvlm", "train.parquet", by_directory)
    return root


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, Run]:
    """LLaVA by the console script; the others in one process, Qwen's command given twice."""
    home = folder / "runs"

    def command(family: str) -> list[str]:
        return ["run", str(folder / f"{family}.yaml"), "--home", str(home), "--json"]

    answers = {"llava": run_console_script(command("llava"))}
    rest = {"qwen2_5_vl": "qwen2_5_vl", "smolvlm": "smolvlm", "again": "qwen2_5_vl"}
    answers |= run_batch(
        {name: command(family) for name, family in rest.items()},
        open_clip_config=folder / "tiny-clip.json",
    )
    failed = {name: answer.stderr[-2000:] for name, answer in answers.items() if answer.status}
    assert failed == {}
    return {
        name: Run(
            answer, yaml.safe_load((folder / f"{rest.get(name, name)}.yaml").read_text()), home
        )
        for name, answer in answers.items()
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_improves_a_users_model_on_photographs(runs: dict[str, Run], family: str) -> None:
    run = runs[family]
    assert run.answer.json["status"] == "done"
    assert run.answer.json["prompts"] == {"used": len(TRAIN), "skipped": {}}
    pair, train = run.stage("pair"), run.stage("train")
    assert pair["metrics"]["num_pairs"] >= 2
    assert pair["metrics"]["num_pairs"] + sum(pair["skipped"].values()) == len(TRAIN)
    # DPO starts where policy and reference agree: the loss is log 2 there.
    assert train["metrics"]["loss_first"] == pytest.approx(math.log(2), abs=1e-5)
    assert train["metrics"]["probe_largest_change"] > 1e-4
    assert train["metrics"]["probe_largest_error"] < NATS
    trained = run.manifest["policy_out"]
    assert trained["sha256"] == weights_sha256(run.attempt / "policy/model")
    assert trained["sha256"] != run.manifest["policy_in"]["sha256"]
    assert (run.path / "report.html").is_file()


@pytest.mark.parametrize("family", FAMILIES)
def test_without_ground_truth_lengths_and_diversity_alone_are_told(
    runs: dict[str, Run], family: str
) -> None:
    listed = runs[family].answer.json
    for metrics in (listed["base"]["metrics"], listed["iterations"][0]["metrics"]):
        assert metrics["num_captions"] == len(HELD_OUT)
        assert {"mean_response_tokens", "mean_response_sentences", "distinct_2"} <= metrics.keys()
        assert not {"chair_s", "chair_i", "recall"} & metrics.keys()


@pytest.mark.parametrize(("family", "prefix"), [("llava", "coco_"), ("qwen2_5_vl", "")])
def test_prompts_of_both_forms_arrive_without_marker(
    runs: dict[str, Run], folder: Path, family: str, prefix: str
) -> None:
    prompts = prompts_from_table(read_table(runs[family].path / "prompts.parquet", "prompts"))
    assert [prompt.prompt_id for prompt in prompts] == [f"{prefix}{n}" for n in range(len(TRAIN))]
    assert {prompt.text for prompt in prompts} == {INPUT}
    root = (folder / "images").resolve()
    assert [str(Path(prompt.image.uri).relative_to(root)) for prompt in prompts] == list(TRAIN)


def test_photographs_within_parquet_are_those_of_the_folder(
    runs: dict[str, Run], folder: Path
) -> None:
    """Engines read them where the run keeps them."""
    prompts = prompts_from_table(read_table(runs["smolvlm"].path / "prompts.parquet", "prompts"))
    assert [Path(prompt.image.uri).parents[1] for prompt in prompts] == (
        [runs["smolvlm"].home.resolve() / "_images"] * len(TRAIN)
    )
    assert [prompt.image.sha256 for prompt in prompts] == [
        image_ref(name, root=folder / "images").sha256 for name in TRAIN
    ]


def test_clip_sees_the_photographs(runs: dict[str, Run]) -> None:
    """By directory and by name with a file it is the same CLIP; photographs differ to it."""
    for family in ("llava", "qwen2_5_vl"):
        nodes = read_table(runs[family].attempt / "nodes", "nodes").to_pylist()
        similarity = {row["prompt_id"]: row["image_similarity"] for row in nodes}
        known = [value for value in similarity.values() if value is not None]
        assert len(known) == len(TRAIN)
        assert max(known) - min(known) > 1.0  # 100 x cosine
    sha = [run.recipe["similarity"] for run in runs.values()]
    assert {frozenset(choice) for choice in sha} == {
        frozenset({"name", "model"}),
        frozenset({"name", "model", "pretrained"}),
    }


def test_photographs_differ_in_size_and_for_qwen_in_tokens(folder: Path) -> None:
    refs = [image_ref(name, root=folder / "images") for name in TRAIN]
    images = [load_image(ref) for ref in refs]
    assert {image.mode for image in images} == {"RGB"}
    assert max(max(image.size) for image in images) == 1411
    tokens = {
        family: {
            len(expanded_inputs(processor, [INPUT], [image])["input_ids"][0]) for image in images
        }
        for family in FAMILIES
        for processor in [load_processor(str(folder / family))]
    }
    assert len(tokens["qwen2_5_vl"]) > 1
    assert len(tokens["llava"]) == len(tokens["smolvlm"]) == 1


def test_the_same_command_again_changes_nothing(runs: dict[str, Run]) -> None:
    assert runs["again"].answer.json == runs["qwen2_5_vl"].answer.json
    assert "finished already" in runs["again"].answer.stderr


def test_the_terminal_shows_no_noise_of_vllm(runs: dict[str, Run]) -> None:
    for family in ("llava", "smolvlm"):
        assert "FutureWarning" not in runs[family].answer.stderr
        assert "Traceback" not in runs[family].answer.stderr


# ------------------------------------------------------------- tables in other tools' hands


def test_nodes_responses_and_pairs_join_in_duckdb(runs: dict[str, Run]) -> None:
    attempt = runs["llava"].attempt
    views = {name: f"'{attempt}/{name}/*.parquet'" for name in ("nodes", "responses", "pairs")}
    views["prompts"] = f"'{runs['llava'].path}/prompts.parquet'"
    with duckdb.connect() as base:
        for name, files in views.items():
            base.execute(f"create view {name} as select * from read_parquet({files})")
        # A response is the path to its leaf: the nodes whose ids begin its own.
        steps = base.execute(
            """
            select r.response_id, any_value(r.num_tokens), sum(n.num_tokens)::int,
                   any_value(r.sum_logprob), sum(n.sum_logprob)
            from responses r join nodes n
              on n.node_id = r.response_id or starts_with(r.response_id, n.node_id || '.')
            group by r.response_id
            """
        ).fetchall()
        (num_responses,) = base.execute("select count(*) from responses").fetchone()
        pairs = base.execute(
            """
            select p.pair_id, p.chosen_text = c.text, p.rejected_text = r.text,
                   p.margin, c.reward - r.reward, p.image_sha256 = q.image_sha256
            from pairs p
            join responses c on c.response_id = p.chosen_response_id
            join responses r on r.response_id = p.rejected_response_id
            join prompts q on q.prompt_id = p.prompt_id
            """
        ).fetchall()
    assert len(steps) == num_responses > len(pairs)
    for _, tokens, step_tokens, logprob, step_logprobs in steps:
        assert tokens == step_tokens
        assert logprob == pytest.approx(step_logprobs, abs=1e-9)
    assert len(pairs) == runs["llava"].stage("pair")["metrics"]["num_pairs"]
    for _, same_chosen, same_rejected, margin, difference, same_image in pairs:
        assert same_chosen and same_rejected and same_image  # noqa: PT018
        assert margin == pytest.approx(difference)
        assert margin > 0


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_the_pairs_train_a_step_in_plain_trl(
    runs: dict[str, Run], family: str, tmp_path: Path
) -> None:
    from datasets import load_dataset
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from trl import DPOConfig, DPOTrainer

    run = runs[family]
    files = [str(file) for file in sorted((run.attempt / "pairs").glob("*.parquet"))]
    pairs = load_dataset("parquet", data_files=files, split="train", cache_dir=tmp_path / "cache")
    assert pairs.num_rows == run.stage("pair")["metrics"]["num_pairs"]
    model = AutoModelForImageTextToText.from_pretrained(run.recipe["policy"]["model"])
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    arguments = DPOConfig(
        output_dir=str(tmp_path / "trl"),
        max_steps=1,
        per_device_train_batch_size=2,
        learning_rate=1e-3,
        max_length=None,
        use_cpu=True,
        bf16=False,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
    )
    trainer = DPOTrainer(
        model=model,
        args=arguments,
        train_dataset=pairs.select_columns(["images", "prompt", "chosen", "rejected"]),
        processing_class=AutoProcessor.from_pretrained(run.recipe["policy"]["model"]),
    )
    trainer.train()
    (logged,) = [row for row in trainer.state.log_history if "loss" in row]
    assert logged["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert logged["grad_norm"] > 0
    assert any(
        not weight.detach().cpu().equal(before[name]) for name, weight in model.named_parameters()
    )
