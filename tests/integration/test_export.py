"""What `csr export` writes, in the libraries it is for: transformers, PEFT, datasets and TRL.

A run of two iterations whose adapters the real DPO trainer made, on a tiny random LLaVA. Its other
stages' records are written by hand: they are not what is looked at here.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import load_dataset
from huggingface_hub import ModelCard
from peft import PeftConfig, PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from csr.checkpoints import base_policy, weights_sha256
from csr.images import load_image
from csr.rendering import load_processor, render_prompt
from csr.types import PolicyRef, Prompt
from flows.exporting.export import export
from flows.exporting.formats import trl
from flows.exporting.lessons import Lessons
from flows.exporting.request import ExportRequest
from storage.atomic import write_json
from storage.attempt import AttemptDir
from storage.manifest import StageRecord
from storage.run_store import RunStore
from tests.dpo_runs import train
from tests.export_samples import demonstration, pictures_in
from tests.preference_pairs import make_pairs, write_pairs
from tests.tiny_models import make_llava

pytestmark = pytest.mark.slow

RUN = "tiny"
METRICS = {"chair_s": 0.25, "chair_s_se": 0.05, "recall": 0.5, "mean_response_tokens": 9.0}


@dataclass(frozen=True)
class Made:
    """The run, its base and a prompt of it."""

    home: Path
    base: Path
    prompt: Prompt

    def export(self, output: Path, name: str, iteration: int = 2, **options: Any) -> Path:
        request = ExportRequest(
            home=self.home,
            iteration_id=f"{RUN}/{iteration:02d}",
            format=name,
            output=output,
            **options,
        )  # type: ignore[arg-type]
        export(request)
        return output


def record(attempt: AttemptDir, stage: str, *files: Path, **facts: Any) -> None:
    now = "2026-01-01T00:00:00+00:00"
    attempt.manifest.record(
        StageRecord(stage=stage, status="done", fingerprint="", started_at=now, finished_at=now,
                    seconds=0.0, **facts),
        files,
    )  # fmt: skip


def iterate(store: RunStore, number: int, before: PolicyRef, pairs: list[Any]) -> PolicyRef:
    """One iteration as a run leaves it, trained for real."""
    attempt = store.new_attempt(RUN, number, policy_in=dataclasses.asdict(before))
    write_pairs(attempt.pairs, pairs)
    record(attempt, "pair", attempt.pairs, metrics={"num_prompts": 6.0, "num_pairs": 6.0})
    train(before.model_path, attempt.pairs, attempt.policy, seed=number)
    model = attempt.policy / "model"
    after = PolicyRef(
        name=str(attempt.id), model_path=str(model), sha256=weights_sha256(model),
        iteration=number, adapter_path=str(attempt.policy / "adapter"),
    )  # fmt: skip
    record(attempt, "train", attempt.policy)
    gates = attempt.evaluation / "gates.json"
    write_json(gates, {"gates": []})
    record(attempt, "evaluate")
    record(attempt, "gate", gates)
    attempt.manifest.update(
        status="done", policy_out=dataclasses.asdict(after), metrics={**METRICS, "chair_s": 0.125}
    )
    return after


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("exported")
    base = make_llava(root / "llava")
    store = RunStore(root / "home")
    config = {
        "policy": {"model": str(base)}, "source": {"name": "csr"}, "trainer": {"name": "dpo"},
        "data": {"images": str(root / "images"), "prompts": str(root / "train.jsonl")},
        "evaluation": [],
    }  # fmt: skip
    store.create_run(RUN, recipe="tiny", config=config, seed=1, code_version="0.1.0")
    policy = base_policy(str(base))
    zero = store.new_attempt(RUN, 0, policy_in=dataclasses.asdict(policy))
    zero.manifest.update(status="done", policy_out=dataclasses.asdict(policy), metrics=METRICS)
    pairs = make_pairs(root / "images", load_processor(str(base)))
    for number in (1, 2):
        policy = iterate(store, number, policy, pairs)
    return Made(store.home, base, pairs[0].prompt)


def logits(model: Any, made: Made) -> torch.Tensor:
    processor = AutoProcessor.from_pretrained(made.base)
    inputs = processor(
        text=[render_prompt(processor, made.prompt.text) + " A red circle."],
        images=[load_image(made.prompt.image)],
        return_tensors="pt",
        add_special_tokens=False,
    )
    with torch.no_grad():
        found: torch.Tensor = model.eval()(**inputs).logits
    return found


def plain(path: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(path)


def test_the_merged_model_is_the_policy(made: Made, tmp_path: Path) -> None:
    output = made.export(tmp_path / "out", "model")
    policy = RunStore(made.home).attempt(RUN, 2).policy / "model"
    assert weights_sha256(output) == weights_sha256(policy)
    AutoProcessor.from_pretrained(output)
    assert torch.equal(logits(plain(output), made), logits(plain(policy), made))
    card = ModelCard.load(output / "README.md")
    assert [e.metric_type for e in card.data.eval_results or []] == []  # no benchmark in the recipe
    assert "| `chair_s` (lower is better) | 0.250 ± 0.050 | 0.125 ± 0.050 | -0.125 |" in card.text
    rows = [line for line in card.text.splitlines() if line.startswith("| `tiny/")]
    assert [row.split(" | ")[1] for row in rows] == ["`base`", "`tiny/01.1`"]


def test_the_adapter_takes_the_base_to_the_policy(made: Made, tmp_path: Path) -> None:
    policy = RunStore(made.home).attempt(RUN, 2).policy / "model"
    base, wanted = logits(plain(made.base), made), logits(plain(policy), made)
    assert (base - wanted).abs().max() > 1e-2, "training changed nothing"
    output = made.export(tmp_path / "two", "model", what="adapter")
    found = logits(PeftModel.from_pretrained(plain(made.base), output), made)
    assert torch.allclose(found, wanted, atol=1e-4)
    first = made.export(tmp_path / "one", "model", iteration=1, what="adapter")
    policy = RunStore(made.home).attempt(RUN, 1).policy / "model"
    known = PeftConfig.from_pretrained(first).base_model_name_or_path
    found = logits(PeftModel.from_pretrained(plain(known), first), made)
    assert torch.allclose(found, logits(plain(policy), made), atol=1e-4)
    assert (
        "The LoRA adapters of 2 iterations side by side, as one of rank 8"
        in (output / "README.md").read_text()
    )


def test_trl_trains_on_the_pairs(made: Made, tmp_path: Path) -> None:
    output = made.export(tmp_path / "out", "trl")
    rows = load_dataset(str(output), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.num_rows == 6
    trainer = DPOTrainer(
        model=plain(made.base),
        args=DPOConfig(**one_step(tmp_path)),
        train_dataset=rows,
        processing_class=AutoProcessor.from_pretrained(made.base),
    )
    # Before any update both policies agree: the loss of a pair is log 2.
    assert trainer.train().training_loss == pytest.approx(0.6931, abs=1e-3)


def test_trl_trains_on_the_demonstrations(made: Made, tmp_path: Path) -> None:
    shown = tuple(demonstration(made.prompt.image, f"It is {n}.") for n in range(2))
    lessons = Lessons(pairs=(), demonstrations=shown)
    [file] = trl.write(lessons, pictures_in(tmp_path), tmp_path, "unused")
    rows = load_dataset(
        "parquet", data_files=str(file.path), split="train", cache_dir=str(tmp_path / "cache")
    )
    trainer = SFTTrainer(
        model=plain(made.base),
        args=SFTConfig(**one_step(tmp_path)),
        train_dataset=rows,
        processing_class=AutoProcessor.from_pretrained(made.base),
    )
    assert 0 < trainer.train().training_loss < 100


def one_step(folder: Path) -> dict[str, Any]:
    """A trainer's settings."""
    return {
        "output_dir": str(folder / "trained"), "max_steps": 1, "per_device_train_batch_size": 2,
        "max_length": None, "report_to": [], "use_cpu": True, "bf16": False, "save_strategy": "no",
    }  # fmt: skip
