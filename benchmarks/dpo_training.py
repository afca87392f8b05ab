"""Training on one iteration's pairs: the project's DPO against plain TRL, the same steps of each.

    OMP_NUM_THREADS=1 python benchmarks/dpo_training.py ATTEMPT [--rounds 3] [--epochs 2]

`ATTEMPT` is a finished one (`runs/<run>/iterations/01/attempts/1`). Both train the same adapter of
the same policy on the same pairs, in turns, by the recipe's settings. Plain TRL computes the
reference in every step and encodes each image for either response; here the reference is computed
once, and an image is encoded once for both. What counts is CPU time of this process, so that other
load on the machine does not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from csr.checkpoints import base_policy
from csr.trainers import dpo
from flows import environment
from storage.attempt import AttemptDir, IterationId


def main() -> None:
    """Measure in turns; print both medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attempt", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    environment.apply(Path("runs"), offline=True)
    attempt = AttemptDir(IterationId("measured", 1, 1), options.attempt)
    config, model_path, seed = _settings(attempt, options.epochs)
    ways: dict[str, Callable[[Path], int]] = {
        "csr": lambda folder: _ours(attempt, config, model_path, seed, folder),
        "trl": lambda folder: _plain(attempt, config, model_path, seed, folder),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    num_steps: dict[str, int] = {}
    for number in range(options.rounds + 1):
        for name, train in ways.items():
            started = time.process_time()
            with tempfile.TemporaryDirectory(dir=options.attempt) as folder:
                num_steps[name] = train(Path(folder))
            if number > 0:  # the first round warms up
                seconds[name].append(time.process_time() - started)
    assert len(set(num_steps.values())) == 1, num_steps
    _tell(seconds, num_steps["csr"], options)


def _settings(attempt: AttemptDir, num_epochs: int) -> tuple[dpo.Config, str, int]:
    manifest = attempt.manifest.read()
    settings = {key: value for key, value in manifest.config["trainer"].items() if key != "name"}
    changes = {"num_epochs": num_epochs, "num_steps": None, "checkpoint_every_num_steps": 0}
    assert manifest.policy_in is not None
    return dpo.Config(**settings | changes), manifest.policy_in["model_path"], manifest.seed


def _ours(attempt: AttemptDir, config: dpo.Config, model_path: str, seed: int, folder: Path) -> int:
    result = dpo.build(config).train(
        policy=base_policy(model_path),
        data_path=attempt.pairs,
        output_dir=folder / "out",
        seed=seed,
        progress=lambda done, total: None,
    )
    return int(result.metrics["num_steps"])


def _plain(
    attempt: AttemptDir, config: dpo.Config, model_path: str, seed: int, folder: Path
) -> int:
    """As TRL's own documentation trains a vision-language model, to the merged weights."""
    from transformers import AutoModelForImageTextToText, AutoProcessor, PrinterCallback
    from trl import DPOConfig, DPOTrainer

    from csr.trainers._arguments import common_arguments, new_adapter

    model = AutoModelForImageTextToText.from_pretrained(model_path, dtype="auto")
    dataset = _dataset(attempt)
    arguments = common_arguments(config, folder, "cpu", seed, model.dtype, len(dataset))
    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(beta=config.beta, **arguments),
        train_dataset=dataset,
        processing_class=AutoProcessor.from_pretrained(model_path),
        peft_config=new_adapter(config, model),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.model.merge_and_unload().save_pretrained(folder / "model")
    return int(trainer.state.global_step)


def _dataset(attempt: AttemptDir) -> Any:
    from datasets import Dataset, Image, List

    files = [str(file) for file in sorted(attempt.pairs.glob("*.parquet"))]
    columns = ["images", "prompt", "chosen", "rejected"]
    return Dataset.from_parquet(files, columns=columns).cast_column("images", List(Image()))


def _tell(seconds: dict[str, list[float]], num_steps: int, options: argparse.Namespace) -> None:
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        spread = f"{min(values):.2f} to {max(values):.2f}"
        print(f"{name}: {medians[name]:.2f} CPU-s for {num_steps} steps ({spread})")
    ratio = medians["trl"] / medians["csr"]
    print(f"plain TRL takes {ratio:.2f} times as long over {options.epochs} epochs")
    if options.json:
        told = {"cpu_seconds": seconds, "num_steps": num_steps, "epochs": options.epochs}
        options.json.write_text(json.dumps(told | {"ratio": ratio}))


if __name__ == "__main__":
    main()
