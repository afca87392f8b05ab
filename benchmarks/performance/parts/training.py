"""One epoch of DPO with LoRA against plain TRL, the same pairs and steps, to the merged weights."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.inputs import write_pairs
from benchmarks.gpu.shapes import Size
from benchmarks.performance import plain_trl
from benchmarks.performance.measuring import Json, compared, in_turns, peak_bytes
from benchmarks.performance.settings import SIZES, policy_of, prompts_of
from csr import rendering
from csr.trainers import dpo
from csr.types import PolicyRef
from csr.world.tokenizer import EOS_ID

NUM_PAIRS = 64
RESPONSE_TOKENS = {"9-image-tokens": 40, "576-image-tokens": 96}
"""Of each side: the tiny world's captions, and about LLaVA-1.5's."""


def measure(work: Path, rounds: int) -> Json:
    """Both sizes, one after the other. Rates are pairs a CPU second."""
    figures = {size.name: _measured(work, size, rounds) for size in SIZES}
    return {"by_size": figures, "num_pairs": NUM_PAIRS, "peak_bytes": peak_bytes()}


def _measured(work: Path, size: Size, rounds: int) -> Json:
    policy = policy_of(work, size)
    prompts = prompts_of(work, size, f"{size.name}-dpo", NUM_PAIRS)
    config = dpo.Config(
        batch_size=4,
        gradient_accumulation_steps=4,
        lora_rank=size.shape.lora_rank,
        lora_alpha=2 * size.shape.lora_rank,
        device="cpu",
        checkpoint_every_num_steps=0,
    )
    pairs = write_pairs(
        work / f"pairs-{size.name}.parquet",
        prompts,
        num_tokens=RESPONSE_TOKENS[size.name],
        vocabulary=size.shape.vocabulary,
        end_id=EOS_ID,
    )
    texts = _texts(policy, pairs)
    num_steps: dict[str, int] = {}

    def ours(number: int) -> float:
        with tempfile.TemporaryDirectory(dir=work) as folder:
            num_steps["csr"] = _trained(config, policy, pairs, Path(folder))
        return NUM_PAIRS

    def plain(number: int) -> float:
        with tempfile.TemporaryDirectory(dir=work) as folder:
            num_steps["trl"] = plain_trl.train(
                config, policy.model_path, prompts, texts, Path(folder)
            )
        return NUM_PAIRS

    found = in_turns({"csr": ours, "trl": plain}, rounds)
    assert num_steps["csr"] == num_steps["trl"], num_steps
    return compared(found, "csr") | {"num_steps": num_steps["csr"]}


def _trained(config: dpo.Config, policy: PolicyRef, pairs: Path, folder: Path) -> int:
    result = dpo.build(config).train(
        policy=policy,
        data_path=pairs,
        output_dir=folder / "out",
        seed=0,
        progress=lambda done, total: None,
    )
    return int(result.metrics["num_steps"])


def _texts(policy: PolicyRef, pairs: Path) -> list[tuple[str, str]]:
    """Chosen and rejected of each pair as text: what TRL reads."""
    import pyarrow.parquet as pq

    tokenizer = rendering.load_processor(policy.model_path).tokenizer
    rows: Sequence[dict[str, Any]] = pq.read_table(pairs).to_pylist()
    return [
        (
            tokenizer.decode(row["chosen_token_ids"][:-1]),
            tokenizer.decode(row["rejected_token_ids"][:-1]),
        )
        for row in rows
    ]
