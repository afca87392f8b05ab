"""A deterministic trainer without a model: for tests, and to try a recipe's flow in milliseconds.

Its weights are one small tensor made by hashing the old weights, the pairs and the seed:
other pairs give other weights, and equal inputs equal bytes. It scores in the language of
`csr.scripted_language`, as the sampler "scripted" does; give both the same settings.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from csr.checkpoints import resolve_model, weights_sha256
from csr.protocols import Progress, TrainingResult, TrainingTable
from csr.protocols import Trainer as TrainerProtocol
from csr.scripted_language import Language, LanguageConfig
from csr.trainers._pairs import TrainingPair, read_pairs
from csr.types import PolicyRef, Prompt

_NUM_PARAMETERS = 8


READS: TrainingTable = "pairs"


class Config(LanguageConfig):
    """Settings of the scripted trainer."""

    learning_rate: float = Field(default=1.0, ge=0)
    """0 leaves the weights as they were."""
    num_epochs: int = Field(default=1, ge=1)
    """Passes over the pairs; each is one row of the history."""


def build(config: Config) -> TrainerProtocol:
    """The trainer."""
    return ScriptedTrainer(config)


class ScriptedTrainer:
    """Implements `csr.protocols.Trainer` without torch."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def train(
        self,
        *,
        policy: PolicyRef,
        data_path: Path,
        output_dir: Path,
        seed: int,
        progress: Progress,
        checkpoint_dir: Path | None = None,
    ) -> TrainingResult:
        """See `Trainer.train`. Writes `output_dir/model` and `output_dir/adapter`.

        It is done in milliseconds, so it keeps no checkpoint.
        """
        pairs = read_pairs(data_path)
        total = len(pairs) * self._config.num_epochs
        for done in range(1, total + 1):
            progress(done, total)
        model, adapter = output_dir / "model", output_dir / "adapter"
        digest = self._digest(policy, pairs, seed)
        _write_weights(adapter / "adapter_model.safetensors", digest)
        _write_json(adapter / "adapter_config.json", {"peft_type": "SCRIPTED"})
        if self._config.learning_rate > 0:
            _write_weights(model / "model.safetensors", digest)
            _write_json(model / "config.json", {"model_type": "scripted"})
        else:
            shutil.copytree(resolve_model(policy.model_path), model)
        history = [
            {"step": float(epoch), "loss": 0.7 / epoch}
            for epoch in range(1, self._config.num_epochs + 1)
        ]
        return TrainingResult(
            model_path=model,
            adapter_path=adapter,
            metrics={"loss": history[-1]["loss"], "num_pairs": float(len(pairs))},
            history=history,
        )

    def score(
        self, model_path: str, prompts: Sequence[Prompt], token_ids: Sequence[Sequence[int]]
    ) -> list[tuple[float, ...]]:
        """See `Trainer.score`."""
        language, policy = Language(self._config), weights_sha256(resolve_model(model_path))
        return [
            language.score(policy, prompt, tuple(ids))
            for prompt, ids in zip(prompts, token_ids, strict=True)
        ]

    def _digest(self, policy: PolicyRef, pairs: Sequence[TrainingPair], seed: int) -> bytes:
        responses = [(p.pair_id, p.chosen_token_ids, p.rejected_token_ids) for p in pairs]
        settings = (self._config.learning_rate, self._config.num_epochs)
        return hashlib.sha256(repr((policy.sha256, responses, seed, settings)).encode()).digest()


def _write_weights(file: Path, digest: bytes) -> None:
    """A tensor of a few values in [0, 1), made of the digest."""
    import numpy as np
    from safetensors.numpy import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    values = np.frombuffer(digest, dtype="<u4")[:_NUM_PARAMETERS] / np.float64(2**32)
    save_file({"weight": values.astype(np.float32)}, file)


def _write_json(file: Path, value: dict[str, str]) -> None:
    file.write_text(json.dumps(value) + "\n")
