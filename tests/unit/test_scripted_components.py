"""The scripted trainer and similarity keep the contracts that real ones keep."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from csr.checkpoints import base_policy, weights_sha256
from csr.protocols import TrainingResult
from csr.samplers.scripted import Config as SamplerConfig
from csr.samplers.scripted import ScriptedSampler
from csr.scripted_language import EOS_ID, encode
from csr.trainers import scripted as trainers
from csr.types import PolicyRef, PreferencePair
from rewards.similarity import scripted as similarities
from storage.rows import pairs_to_table
from storage.tables import write_table
from tests.sample_data import IMAGE, pair, prompt
from tests.scripted_run import write_policy


@pytest.fixture
def policy(tmp_path: Path) -> PolicyRef:
    write_policy(tmp_path / "policy")
    return base_policy(str(tmp_path / "policy"))


def train(
    policy: PolicyRef, folder: Path, pairs: Sequence[PreferencePair], seed: int = 0, **config: float
) -> TrainingResult:
    write_table(folder / "pairs.parquet", pairs_to_table(pairs, iteration=1, policy="base"))
    calls: list[tuple[int, int]] = []
    result = trainers.build(trainers.Config.model_validate(config)).train(
        policy=policy,
        data_path=folder / "pairs.parquet",
        output_dir=folder / "out",
        seed=seed,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls[-1] == (len(calls), len(calls))
    return result


def test_weights_follow_from_pairs_seed_and_policy_alone(policy: PolicyRef, tmp_path: Path) -> None:
    def digest(name: str, pairs: Sequence[PreferencePair], **config: float) -> str:
        return weights_sha256(train(policy, tmp_path / name, pairs, **config).model_path)

    first = digest("a", [pair("1"), pair("2")])
    assert digest("b", [pair("2"), pair("1")]) == first
    others = [digest("c", [pair("1")]), digest("d", [pair("1"), pair("2")], seed=1)]
    assert len({first, *others, policy.sha256}) == 4
    assert digest("e", [pair("1")], learning_rate=0) == policy.sha256


def test_history_has_a_row_for_each_epoch(policy: PolicyRef, tmp_path: Path) -> None:
    result = train(policy, tmp_path, [pair()], num_epochs=2)
    assert result.history == [{"step": 1.0, "loss": 0.7}, {"step": 2.0, "loss": 0.35}]
    assert result.metrics == {"loss": 0.35, "num_pairs": 1.0}
    assert (result.adapter_path / "adapter_model.safetensors").is_file()


def test_the_trainer_scores_as_the_sampler_speaks(policy: PolicyRef, tmp_path: Path) -> None:
    path = train(policy, tmp_path, [pair()]).model_path
    ids = (*encode(" A red circle is at the top left."), EOS_ID)
    sampler = ScriptedSampler(SamplerConfig())
    trained = PolicyRef(name="x", model_path=str(path), sha256=weights_sha256(path), iteration=1)
    sampler.load_policy(trained)
    [spoken] = sampler.score([prompt()], [ids])
    [scored] = trainers.build(trainers.Config()).score(str(path), [prompt()], [ids])
    assert scored == spoken
    assert len(scored) == len(ids)


def test_similarities_are_fixed_and_in_range() -> None:
    similarity = similarities.build(similarities.Config())
    texts = [f"text {number}" for number in range(50)]
    cosines = similarity.image_text([IMAGE] * 50, texts)
    assert cosines == similarity.image_text([IMAGE] * 50, texts)
    assert len(set(cosines)) == 50
    assert min(cosines) >= 0.15
    assert max(cosines) < 0.35
    assert similarity.text_text(["A red ring.", "", "a"], ["a RED square", "", "b"]) == [0.5, 1, 0]
