"""POVID from prompts to policy, with vLLM, open_clip, TRL and PEFT on the smallest tiny world.

The same world's policy then writes by a JSON schema, and rewrites references itself.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from csr.checkpoints import base_policy
from csr.errors import ConfigError
from csr.images import image_ref
from csr.protocols import GenerateSettings, Sampler, SourceTools
from csr.samplers import vllm
from csr.sources import povid
from csr.sources._policy_rewrites import PolicyRewriteSettings
from csr.types import FinishReason, Prompt, SkipReason, StepRequest
from csr.world.build import world_path
from csr.world.settings import Config as WorldConfig
from storage.run_store import RunStore
from storage.tables import read_table
from tests.logprobs import assert_same_responses
from tests.prefect_service import ROOT, command
from tests.trees import no_progress

pytestmark = pytest.mark.slow

RUN = "mine"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiny recipe, on a world whose models know nothing."""
    folder = tmp_path_factory.mktemp("povid")
    recipe = yaml.safe_load((ROOT / "recipes/povid_tiny.yaml").read_text())
    recipe["world"] = json.loads(WorldConfig.micro().model_dump_json())
    recipe["data"]["num_prompts_per_iteration"] = 16
    recipe |= {"shard_size": 8, "gates": None, "evaluation": recipe["evaluation"][:1]}
    recipe["source"]["num_rewrites"] = 8
    (folder / "povid.yaml").write_text(yaml.safe_dump(recipe))
    done = csr(folder, "run", folder / "povid.yaml", "--run-id", RUN)
    assert done.returncode == 0, done.stderr
    return folder / "home"


def csr(folder: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "CSR_"))}
    return subprocess.run(
        command(*arguments, "--home", folder / "home"),
        env=plain | {"PYTHONPATH": str(ROOT), "CSR_CACHE": str(folder / "cache")},
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip


def rows(home: Path, attempt: int, table: str) -> list[dict[str, Any]]:
    found = RunStore(home).attempt(RUN, 1, attempt)
    return read_table(getattr(found, table), table).to_pylist()


def test_references_are_preferred_to_their_rewrites(home: Path) -> None:
    attempt = RunStore(home).attempt(RUN, 1)
    manifest = attempt.manifest.read()
    assert {stage.stage for stage in manifest.stages} == {
        "sample", "pair", "train", "evaluate", "gate",
    }  # fmt: skip
    pairs = rows(home, 1, "pairs")
    pairing = next(stage for stage in manifest.stages if stage.stage == "pair")
    assert pairs
    assert len(pairs) + sum(pairing.skipped.values()) == 16
    for pair in pairs:
        assert pair["chosen_text"] == pair["reference"]
        assert pair["rejected_text"] != pair["reference"]
        assert pair["margin"] in (1.0, 2.0)
    assert (Path(manifest.policy_out["model_path"]) / "model.safetensors").exists()


def test_a_given_text_is_scored_as_the_policy_would_say_it(home: Path) -> None:
    """Its tokens end with the end token, and the trainer found the same probabilities."""
    manifest = RunStore(home).attempt(RUN, 1).manifest.read()
    train = next(stage for stage in manifest.stages if stage.stage == "train")
    assert train.metrics["probe_largest_error"] < 1e-3
    nodes = rows(home, 1, "nodes")
    ends = {row["token_ids"][-1] for row in nodes}
    assert len(ends) == 1
    assert all(row["token_ids"].count(next(iter(ends))) == 1 for row in nodes)
    assert all(row["sum_logprob"] < 0 for row in nodes)


def test_pairs_are_made_anew_from_what_is_stored(home: Path) -> None:
    done = csr(home.parent, "rerun", f"{RUN}/01", "--from", "pair", "--until", "pair")
    assert done.returncode == 0, done.stderr
    assert rows(home, 2, "pairs") == rows(home, 1, "pairs")


# ------------------------------------------------------------ what the policy writes itself

FREE = GenerateSettings(temperature=1.0, top_p=1.0, max_response_tokens=80)
SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "blue"]},
        "number": {"type": "integer"},
        "words": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{1,4}$"},
                  "minItems": 1, "maxItems": 2},
    },
    "required": ["colour", "number", "words"],
    "additionalProperties": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def world(home: Path) -> Path:
    return world_path(WorldConfig.micro(), home.parent / "cache")


@pytest.fixture(scope="module")
def prompts(world: Path) -> list[Prompt]:
    lines = (world / "data/train_references.jsonl").read_text().splitlines()[:6]
    records = [json.loads(line) for line in lines]
    return [
        Prompt(
            prompt_id=str(number),
            text="Describe the image.",
            image=image_ref(record["image"], root=world / "data/images"),
            reference=record["reference"],
        )
        for number, record in enumerate(records)
    ]


@pytest.fixture(scope="module")
def sampler(world: Path) -> Iterator[Sampler]:
    built = vllm.build(vllm.Config(kv_cache_gib=0.25))
    built.load_policy(base_policy(str(world / "policy")))
    yield built
    built.close()


def follows(text: str) -> bool:
    """Whether the text is what `SCHEMA` says, by its own rules and not a library's."""
    try:
        said = json.loads(text)
    except json.JSONDecodeError:
        return False
    return (
        list(said) == ["colour", "number", "words"]
        and said["colour"] in ("red", "blue")
        and type(said["number"]) is int
        and 1 <= len(said["words"]) <= 2
        and all(1 <= len(word) <= 4 and word.isalpha() and word.islower() for word in said["words"])
    )


def test_every_whole_response_follows_the_schema(sampler: Sampler, prompts: list[Prompt]) -> None:
    requests = [StepRequest(prompt=prompt, seed=number) for number, prompt in enumerate(prompts)]
    free = sampler.generate(requests, FREE)
    held = replace(FREE, json_schema=json.dumps(SCHEMA))
    answers = sampler.generate(requests, held)
    whole = [answer for answer in answers if answer.finish_reason is FinishReason.EOS]
    assert whole
    assert all(follows(answer.text) for answer in whole)
    assert not any(follows(answer.text) for answer in free)
    assert_same_responses(sampler.generate(requests, held), answers)
    assert_same_responses(sampler.generate(requests, FREE), free)


def test_with_a_schema_a_token_has_its_share_among_those_that_may_follow(
    sampler: Sampler, prompts: list[Prompt]
) -> None:
    """The first token is the one brace, and so certain; the policy itself would hardly say it."""
    held = replace(FREE, json_schema=json.dumps(SCHEMA))
    (answer,) = sampler.generate([StepRequest(prompt=prompts[0], seed=3)], held)
    (own,) = sampler.score([prompts[0]], [answer.token_ids])
    assert all(a > b - 1e-4 for a, b in zip(answer.token_logprobs, own, strict=True))
    assert sum(answer.token_logprobs) > sum(own) + 10


@pytest.mark.parametrize("schema", ['{"type": "nonsense"}', "no JSON"])
def test_what_is_no_schema_is_refused_and_the_engine_lives(
    sampler: Sampler, prompts: list[Prompt], schema: str
) -> None:
    with pytest.raises(ConfigError, match="follow the JSON schema"):
        sampler.generate([StepRequest(prompt=prompts[0])], replace(FREE, json_schema=schema))
    assert sampler.generate([StepRequest(prompt=prompts[0])], FREE)


def test_a_policy_that_knows_nothing_writes_junk_and_it_is_counted(
    sampler: Sampler, world: Path, prompts: list[Prompt]
) -> None:
    settings = PolicyRewriteSettings(max_rewrite_tokens=60)
    config = povid.Config(
        rewriter="policy", num_rewrites=2, min_similarity_drop=None, policy_rewrites=settings
    )
    tools = SourceTools(
        policy=base_policy(str(world / "policy")), sampler=sampler, scorer=None, similarity=None,
        seed=0, progress=no_progress,
    )  # fmt: skip
    endless = replace(prompts[0], prompt_id="endless", reference="A red circle. " * 200)
    trees = povid.build(config).generate([*prompts, endless], tools)
    *junk, unasked = [tree.skipped for tree in trees]
    assert junk == [{SkipReason.JUNK_REWRITE: 2}] * len(prompts)
    assert unasked == {SkipReason.REWRITE_PROMPT_TOO_LONG: 1}
    assert [len(tree.nodes) for tree in trees] == [1] * len(trees)
