"""Two real `vllm serve` processes: what they say is what the engine in this process says.

The last test kills one of them.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from csr.checkpoints import base_policy, weights_sha256
from csr.errors import ModelError
from csr.protocols import GenerateSettings
from csr.samplers import server, transformers, vllm
from csr.search import search
from csr.types import FinishReason, PolicyRef, Prompt, ResponseTree, StepRequest
from tests.logprobs import NATS, assert_scored_alike, largest_difference
from tests.streamed_search import SETTINGS, STEPS, noise_prompts
from tests.tiny_models import make_llava
from tests.trees import FunctionScorer, no_progress
from tests.vllm_server import VllmServer

pytestmark = pytest.mark.slow

OPTIONS = (
    "--dtype", "float32", "--max-model-len", "1024", "--enable-lora", "--max-lora-rank", "8",
    "--max-cpu-loras", "4", "--enable-prompt-tokens-details", "--max-logprobs", "64",
)  # fmt: skip
WHOLE = GenerateSettings(temperature=0.0, top_p=1.0, max_response_tokens=30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="module")
def policy(folder: Path) -> PolicyRef:
    return base_policy(str(make_llava(folder / "llava")))


@pytest.fixture(scope="module")
def prompts(folder: Path) -> list[Prompt]:
    return noise_prompts(folder, 8, ("What is in the picture? " * 3, "Describe the image."))


@pytest.fixture(scope="module")
def servers(folder: Path, policy: PolicyRef) -> Iterator[list[VllmServer]]:
    started = [
        VllmServer(Path(policy.model_path), folder / f"server-{number}.log", *OPTIONS)
        for number in range(2)
    ]
    try:
        for each in started:
            each.wait()
        yield started
    finally:
        for each in started:
            each.kill()


@pytest.fixture(scope="module")
def remote(servers: list[VllmServer], policy: PolicyRef) -> Iterator[server.ServerSampler]:
    urls = tuple(each.url for each in servers)
    built = server.ServerSampler(server.Config(endpoints=urls, max_running_requests=4))
    built.load_policy(policy)
    yield built
    built.close()


@pytest.fixture(scope="module")
def local(policy: PolicyRef) -> Iterator[vllm.VllmSampler]:
    built = vllm.VllmSampler(vllm.Config(kv_cache_gib=0.25, max_context_tokens=1024))
    built.load_policy(policy)
    yield built
    built.close()


@pytest.fixture(scope="module")
def reference(policy: PolicyRef) -> Iterator[transformers.TransformersSampler]:
    built = transformers.TransformersSampler(transformers.Config(batch_size=7))
    built.load_policy(policy)
    yield built
    built.close()


@pytest.fixture(scope="module")
def trained(folder: Path, policy: PolicyRef) -> PolicyRef:
    """A policy one LoRA adapter away from the base, merged here and unmerged for the servers."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    from csr.trainers._policy_files import save_adapter, save_merged

    model = AutoModelForImageTextToText.from_pretrained(policy.model_path, dtype=torch.float32)
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=r".*language_model.*(q_proj|v_proj|down_proj)"
    )
    tuned = get_peft_model(model, config)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.05)
    tuned.peft_config["default"].target_modules = {"q_proj", "v_proj", "down_proj"}
    save_adapter(tuned, folder / "adapter")
    save_merged(policy.model_path, folder / "adapter", folder / "merged", "float32")
    return PolicyRef(
        name="01",
        model_path=str(folder / "merged"),
        sha256=weights_sha256(folder / "merged"),
        iteration=1,
        adapter_path=str(folder / "adapter"),
    )


def requests_for(prompts: Sequence[Prompt]) -> list[StepRequest]:
    return [StepRequest(prompt=prompt, seed=10 + i) for i, prompt in enumerate(prompts)]


def grow(sampler: Any, prompts: Sequence[Prompt], seed: int = 5) -> list[ResponseTree]:
    return search(
        prompts, sampler=sampler, scorer=FunctionScorer(lambda group, step: 0.0),
        settings=SETTINGS, seed=seed, policy_name="base", origin="csr", progress=no_progress,
    )  # fmt: skip


def texts(trees: Sequence[ResponseTree]) -> list[tuple[str, str, bool, tuple[int, ...]]]:
    return [(n.node_id, n.step.text, n.kept, n.step.token_ids) for t in trees for n in t.nodes]


def test_trees_and_their_logprobs_are_those_of_the_engine_in_this_process(
    remote: server.ServerSampler, local: vllm.VllmSampler, prompts: list[Prompt]
) -> None:
    there, here = grow(remote, prompts), grow(local, prompts)
    assert texts(there) == texts(here)
    values = [
        [n.step.token_logprobs for tree in trees for n in tree.nodes] for trees in (there, here)
    ]
    assert largest_difference(*values) < NATS
    assert max(len(tree.nodes) for tree in there) > 2 * STEPS.num_candidates
    assert texts(grow(remote, prompts, seed=6)) != texts(there)
    counts = remote.stats()
    assert counts["num_cached_tokens"] > 0
    assert counts["num_retries"] == counts["num_set_aside"] == 0


def test_all_samplers_score_and_continue_alike(
    remote: server.ServerSampler,
    local: vllm.VllmSampler,
    reference: transformers.TransformersSampler,
    prompts: list[Prompt],
) -> None:
    requests = requests_for(prompts)
    groups = remote.sample_steps(requests, STEPS)
    assert_scored_alike(prompts, groups, remote, local, reference)
    with pytest.raises(AssertionError):  # the comparison can fail
        assert_scored_alike(prompts[::-1], groups, remote)
    blind = [each.score(prompts, [(18, 264)] * 8, with_image=False) for each in (remote, reference)]
    assert largest_difference(*blind) < NATS
    further = [
        replace(request, prefix=(group[0],))
        for request, group in zip(requests, groups, strict=True)
        if group[0].finish_reason is FinishReason.STEP
    ]
    assert further
    for settings in (STEPS, replace(STEPS, diversity="branch_first_token")):
        there, here = (each.sample_steps(further, settings) for each in (remote, local))
        assert [[c.token_ids for c in g] for g in there] == [[c.token_ids for c in g] for g in here]
    whole = [each.generate(further, WHOLE) for each in (remote, local)]
    assert [r.token_ids for r in whole[0]] == [r.token_ids for r in whole[1]]
    assert [r.text for r in whole[0]] == [r.text for r in whole[1]]


def test_an_adapter_is_loaded_at_both_and_speaks_as_the_merged_weights(
    remote: server.ServerSampler,
    local: vllm.VllmSampler,
    reference: transformers.TransformersSampler,
    servers: list[VllmServer],
    policy: PolicyRef,
    trained: PolicyRef,
    prompts: list[Prompt],
) -> None:
    before = remote.sample_steps(requests_for(prompts), STEPS)
    remote.load_policy(trained)
    reference.load_policy(trained)
    local.load_policy(trained)
    with pytest.raises(AssertionError):
        assert_scored_alike(prompts, before, remote)
    groups = remote.sample_steps(requests_for(prompts), STEPS)
    assert_scored_alike(prompts, groups, remote, reference, local)
    for each in servers:  # each by itself
        config = server.Config(endpoints=(each.url,))
        alone = server.ServerSampler(config)
        alone.load_policy(trained)
        assert_scored_alike(prompts, groups, alone)
        alone.close()
    for each in (remote, reference, local):
        each.load_policy(policy)
    assert_scored_alike(prompts, before, remote, local)


def test_the_directory_of_a_merged_policy_alone_is_not_served(
    remote: server.ServerSampler, folder: Path, trained: PolicyRef
) -> None:
    shutil.copytree(folder / "merged", folder / "elsewhere")
    elsewhere = replace(
        trained, model_path=str(folder / "elsewhere"), adapter_path=None, sha256="x"
    )
    with pytest.raises(ModelError, match="Start it with `vllm serve"):
        remote.load_policy(elsewhere)


def test_a_server_killed_while_trees_grow_changes_nothing(
    remote: server.ServerSampler,
    servers: list[VllmServer],
    policy: PolicyRef,
    prompts: list[Prompt],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remote.load_policy(policy)
    undisturbed = grow(remote, prompts)
    assert all(each.aside is None for each in remote._policy.fleet.endpoints)
    submit, num_submitted = remote._policy.fleet.submit, 0

    def killing(call: Any) -> None:
        nonlocal num_submitted
        num_submitted += 1
        submit(call)
        if num_submitted == len(prompts) + 2:
            assert remote._policy.fleet.endpoints[0].num_running
            servers[0].kill()

    monkeypatch.setattr(remote._policy.fleet, "submit", killing)
    disturbed = grow(remote, prompts)
    assert num_submitted > len(prompts) + 2
    assert texts(disturbed) == texts(undisturbed)
    assert remote.stats()["num_set_aside"] == 1
    assert [each.aside is None for each in remote._policy.fleet.endpoints] == [False, True]
