"""Trees to Parquet and back, against JSON lines: time, its growth, and bytes.

Both ways write every field of every node; Parquet's is the `nodes` table of a shard.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.performance.measuring import Json, compared, growth, in_turns, once, peak_bytes
from benchmarks.performance.settings import TREE
from csr.types import (
    FinishReason,
    ImageRef,
    Prompt,
    ResponseTree,
    StepCandidate,
    StepNode,
    StepScore,
)
from storage.tables import read_table, write_table
from storage.trees import trees_from_table, trees_to_table

NUM_PROMPTS = 64
SIZES = (16, 64, 256)
"""Prompts of a shard, for the growth."""
_WORDS = "a red blue ring circle square is at the top left below beside and it".split()  # noqa: SIM905


def measure(work: Path, rounds: int) -> Json:
    """Rates are nodes a CPU second, written or read."""
    trees = made_up_trees(NUM_PROMPTS)
    num_nodes = sum(len(tree.nodes) for tree in trees)
    table, lines = work / "trees" / "nodes.parquet", work / "trees" / "nodes.jsonl"
    table.parent.mkdir(parents=True, exist_ok=True)
    prompts = [tree.prompt for tree in trees]

    def write(number: int) -> float:
        write_table(table, trees_to_table(trees, iteration=1))
        return num_nodes

    def write_lines(number: int) -> float:
        rows = (json.dumps(asdict(node)) for tree in trees for node in tree.nodes)
        lines.write_text("\n".join(rows))
        return num_nodes

    def read(number: int) -> float:
        assert trees_from_table(read_table(table, "nodes"), prompts) == trees
        return num_nodes

    def read_lines(number: int) -> float:
        return len([json.loads(line) for line in lines.read_text().splitlines()])

    return {
        "write": compared(in_turns({"parquet": write, "json": write_lines}, rounds), "parquet"),
        "read": compared(in_turns({"parquet": read, "json": read_lines}, rounds), "parquet"),
        "nodes_of_a_prompt": num_nodes / NUM_PROMPTS,
        "bytes_of_a_prompt": table.stat().st_size / NUM_PROMPTS,
        "json_bytes_of_a_prompt": lines.stat().st_size / NUM_PROMPTS,
        "growth": _growth(table),
        "peak_bytes": peak_bytes(),
    }


def _growth(table: Path) -> Json:
    """CPU seconds to write and read a shard again, against its number of prompts."""
    seconds = []
    for number in SIZES:
        trees = made_up_trees(number)

        def arm(_: int, trees: Sequence[ResponseTree] = trees) -> float:
            write_table(table, trees_to_table(trees, iteration=1))
            read = trees_from_table(read_table(table, "nodes"), [tree.prompt for tree in trees])
            return len(read)

        seconds.append(min(once(arm, 0).cpu_seconds for _ in range(2)))
    return {"prompts": list(SIZES), "cpu_seconds": seconds, **growth(SIZES, seconds)}


def made_up_trees(num_prompts: int) -> list[ResponseTree]:
    """Whole trees of the shape that is measured, with texts and figures drawn at random."""
    rng = random.Random(0)
    return [_tree(f"prompt-{number}", rng) for number in range(num_prompts)]


def _tree(prompt_id: str, rng: random.Random) -> ResponseTree:
    image = ImageRef(uri=f"/data/images/{prompt_id}.jpg", sha256=rng.randbytes(32).hex())
    opened: list[str | None] = [None]
    nodes: list[StepNode] = []
    for depth in range(1, TREE.max_steps + 1):
        level = [
            _node(parent, f"{parent or prompt_id + '/'}.{place}".replace("/.", "/"), depth, rng)
            for parent in opened
            for place in range(TREE.num_candidates)
        ]
        opened = [node.node_id for node in level[: TREE.num_open]]
        nodes += level
    prompt = Prompt(prompt_id=prompt_id, text="Describe the image.", image=image)
    return ResponseTree(prompt=prompt, policy="base", origin="csr", nodes=tuple(nodes))


def _node(parent: str | None, node_id: str, depth: int, rng: random.Random) -> StepNode:
    num_tokens = rng.randint(8, TREE.max_step_tokens)
    step = StepCandidate(
        text=" " + " ".join(rng.choices(_WORDS, k=num_tokens)) + ".",
        token_ids=tuple(rng.randrange(32000) for _ in range(num_tokens)),
        token_logprobs=tuple(-rng.random() for _ in range(num_tokens)),
        finish_reason=FinishReason.STEP,
    )
    parts = ("likelihood", "image_similarity", "likelihood_calibrated")
    score = StepScore(reward=rng.random(), breakdown={name: rng.random() for name in parts})
    return StepNode(
        node_id=node_id, parent_id=parent, depth=depth, step=step, score=score,
        cumulative_reward=rng.random(), kept=rng.random() < 0.3,
    )  # fmt: skip
