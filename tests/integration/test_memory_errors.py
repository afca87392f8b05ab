"""Each component tells memory that runs out as a lost engine, with its own settings to lower."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from csr.checkpoints import base_policy
from csr.errors import EngineLost
from csr.protocols import GenerateSettings
from csr.rendering import load_processor
from csr.samplers import _transformers_batch, transformers
from csr.trainers import _adapter_trainer, dpo
from csr.trainers._processes import _raise_own_error
from csr.types import StepRequest
from rewards.similarity.clip import ClipSimilarity
from rewards.similarity.clip import Config as ClipConfig
from tests.preference_pairs import make_pairs, write_pairs
from tests.tiny_models import make_llava
from tests.trees import no_progress

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llava(tmp_path_factory.mktemp("model") / "llava")


def run_out(*unused: Any, **also_unused: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_sampler(llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = transformers.build(transformers.Config())
    sampler.load_policy(base_policy(str(llava)))
    prompt = make_pairs(tmp_path, load_processor(str(llava)), num_pairs=1)[0].prompt
    settings = GenerateSettings(temperature=0.0, top_p=1.0, max_response_tokens=4)
    monkeypatch.setattr(_transformers_batch, "grow", run_out)
    with pytest.raises(EngineLost, match=r"while sampling .*2\.00 GiB.* the sampler's batch_size"):
        sampler.generate([StepRequest(prompt=prompt, seed=0)], settings)
    monkeypatch.setattr(_transformers_batch, "score", run_out)
    with pytest.raises(EngineLost, match="while scoring"):
        sampler.score([prompt], [(5, 6)])


def test_trainer(llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = make_pairs(tmp_path / "images", load_processor(str(llava)), num_pairs=2)
    trainer = dpo.build(dpo.Config(lora_rank=2))
    monkeypatch.setattr(dpo, "cache_reference", run_out)
    with pytest.raises(EngineLost, match=r"while training .* the trainer's batch_size"):
        trainer.train(
            policy=base_policy(str(llava)),
            data_path=write_pairs(tmp_path / "pairs", pairs),
            output_dir=tmp_path / "out",
            seed=0,
            progress=no_progress,
        )
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(_adapter_trainer, "response_logprobs", run_out)
    with pytest.raises(EngineLost, match="while scoring"):
        trainer.score(str(llava), [pairs[0].prompt], [(5, 6)])


def test_a_training_process_of_many(tmp_path: Path) -> None:
    (tmp_path / "error-1.json").write_text(json.dumps({"type": "EngineLost", "message": "full"}))
    with pytest.raises(EngineLost, match="full"):
        _raise_own_error(tmp_path)


def test_similarity() -> None:
    similarity = ClipSimilarity(ClipConfig(model="any"), None, run_out, run_out, "cpu")
    with pytest.raises(EngineLost, match="the similarity's image_batch_size"):
        similarity.text_text(["a"], ["b"])
