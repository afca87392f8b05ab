"""What all ways of training a LoRA adapter share: from the policy's files to the merged policy."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from csr.errors import DataError, NumericalError
from csr.images import load_image
from csr.memory import memory_errors
from csr.protocols import Progress, TrainingResult, TrainingTable
from csr.rendering import load_processor
from csr.trainers._checkpoints import Checkpoints, training_sha256
from csr.trainers._isolation import preserved_globals, staged_output
from csr.trainers._policy_files import load_policy, pick_device, save_adapter, save_merged
from csr.trainers._processes import train_in_processes
from csr.trainers._scoring import response_logprobs
from csr.trainers._shards import keep_sums_exact
from csr.trainers._watch import TrainingWatch, at_train_begin
from csr.types import PolicyRef, Prompt

if TYPE_CHECKING:
    from csr.trainers._settings import TrainingSettings

_FINAL_SHARE = 0.1
"""Reported figures are means over this last share of the steps: one step alone is noisy."""
_MEMORY_ADVICE = (
    "Lower the trainer's batch_size (and raise gradient_accumulation_steps alike), or set "
    "gradient_checkpointing."
)


class AdapterTrainer:
    """Implements `csr.protocols.Trainer`, but for what the objective decides."""

    module: ClassVar[str]
    """Where child processes find the trainer: its `Config` and `build`."""
    reads: ClassVar[TrainingTable]
    num_reference_passes: ClassVar[int]
    """Passes over the data before the first step."""

    def __init__(self, config: Any) -> None:
        self.config: TrainingSettings = config

    def read(self, data_path: Path) -> Sequence[Any]:
        """The rows to train on, each with a `name`."""
        raise NotImplementedError

    def make(
        self, model: Any, processor: Any, rows: Sequence[Any], watch: TrainingWatch, **place: Any
    ) -> Any:
        """transformers' Trainer over the rows, its model `model` with a fresh adapter.

        `place`: `work_dir`, `device`, `seed`, `checkpoints`.
        """
        raise NotImplementedError

    def begin(self, trainer: Any) -> None:
        """What a training does before its first step, its model placed as the steps find it."""

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
        """See the protocol. Writes `output_dir/model` and `output_dir/adapter`.

        `progress` counts rows: the passes before the first step, then the epochs. DataError on
        an empty or broken table, ModelError on a checkpoint that cannot be trained.
        """
        config, checkpoints = self.config, None
        if checkpoint_dir is not None and config.checkpoint_every_num_steps > 0:
            name = training_sha256(policy, data_path, config, seed, pick_device(config.device))
            checkpoints = Checkpoints(directory=checkpoint_dir.absolute(), training_sha256=name)
            checkpoints.remove_unusable()
        here = self._train_in_processes if config.is_launched else self.train_here
        try:
            return here(
                policy=policy,
                data_path=data_path,
                output_dir=output_dir,
                seed=seed,
                progress=progress,
                checkpoints=checkpoints,
            )
        except NumericalError:
            if checkpoints is not None:  # from them the same would come of it
                shutil.rmtree(checkpoints.directory, ignore_errors=True)
            raise

    def train_here(
        self,
        *,
        policy: PolicyRef,
        data_path: Path,
        output_dir: Path,
        seed: int,
        progress: Progress,
        checkpoints: Checkpoints | None = None,
        rank: int = 0,
    ) -> TrainingResult:
        """`train` in this process, which is number `rank` of `num_processes`; 0 alone saves."""
        config, rows = self.config, self.read(data_path)
        num_updates = len(rows) * self.num_reference_passes + config.total_updates(len(rows))
        watch = TrainingWatch(
            [row.name for row in rows], num_updates, progress, config.num_processes
        )
        names = ("model", "adapter") if rank == 0 else ()
        with (
            staged_output(output_dir, names) as work,
            preserved_globals(),
            memory_errors("training", _MEMORY_ADVICE),
        ):
            trainer = self.make(
                load_policy(policy.model_path, config.dtype, "cpu"),  # TRL moves it to its GPU
                load_processor(policy.model_path),
                rows,
                watch,
                work_dir=work,
                device=pick_device(config.device),
                seed=seed,
                checkpoints=checkpoints,
            )
            keep_sums_exact(trainer.accelerator)
            # Every process looks before any can have made a step, so all find the same.
            checkpoint = checkpoints.latest() if checkpoints else None
            if checkpoint is None:
                trainer.add_callback(at_train_begin(partial(self.begin, trainer)))
            trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
            # All processes together: each may hold a part of the weights.
            weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
            if rank == 0:
                save_adapter(trainer.model, work / "adapter", weights)
            del trainer, weights
            if rank == 0:
                save_merged(policy.model_path, work / "adapter", work / "model", config.dtype)
        return TrainingResult(
            model_path=output_dir / "model",
            adapter_path=output_dir / "adapter",
            metrics=_final_metrics(watch.history, watch.seconds)
            | {f"num_{self.reads}": float(len(rows))},
            history=watch.history,
        )

    def _train_in_processes(self, **job: Any) -> TrainingResult:
        return train_in_processes(self.module, self.config, **job)

    def score(
        self, model_path: str, prompts: Sequence[Prompt], token_ids: Sequence[Sequence[int]]
    ) -> list[tuple[float, ...]]:
        """See the protocol. Loads the model, scores in batches of `batch_size`, frees it."""
        if len(prompts) != len(token_ids):
            raise DataError(
                f"{len(prompts)} prompts but {len(token_ids)} responses to score. Give one "
                "response for each prompt."
            )
        config, size = self.config, self.config.batch_size
        with preserved_globals(), memory_errors("scoring", _MEMORY_ADVICE):
            processor = load_processor(model_path)
            model = load_policy(model_path, config.dtype, pick_device(config.device))
            scored: list[tuple[float, ...]] = []
            for start in range(0, len(prompts), size):
                part = prompts[start : start + size]
                scored += response_logprobs(
                    model,
                    processor,
                    [prompt.text for prompt in part],
                    [load_image(prompt.image) for prompt in part],
                    token_ids[start : start + size],
                )
            del model
        return scored


def _final_metrics(history: list[dict[str, float]], seconds: float) -> dict[str, float]:
    """Means over the last steps, and how many there were. `loss_first` is log 2 for plain DPO."""
    last = history[-max(1, round(_FINAL_SHARE * len(history))) :]
    names = [name for name in history[0] if name not in ("step", "epoch", "learning_rate")]
    means = {name: sum(row[name] for row in last) / len(last) for name in names}
    return means | {
        "loss_first": history[0]["loss"],
        "num_steps": float(len(history)),
        "seconds": seconds,
    }
