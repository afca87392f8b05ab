"""Trees that grow by themselves in the real engine: as level by level, and cleanly left."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from csr.checkpoints import base_policy
from csr.errors import EngineLost
from csr.protocols import GenerateSettings, StepSettings
from csr.samplers import vllm
from csr.search import search
from csr.step_streams import BatchedSteps, StepStream
from csr.types import PolicyRef, Prompt, ResponseTree, StepRequest
from tests.logprobs import NATS, assert_same_responses
from tests.streamed_search import SETTINGS, STEPS, noise_prompts
from tests.tiny_models import make_llava
from tests.trees import FunctionScorer, no_progress

pytestmark = pytest.mark.slow

MAX_RUNNING = 6
WHOLE = GenerateSettings(temperature=0.0, top_p=1.0, max_response_tokens=30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stream")


@pytest.fixture(scope="module")
def prompts(folder: Path) -> list[Prompt]:
    return noise_prompts(folder, 6)


@pytest.fixture(scope="module")
def policy(folder: Path) -> PolicyRef:
    return base_policy(str(make_llava(folder / "llava")))


@pytest.fixture(scope="module")
def sampler(policy: PolicyRef) -> Iterator[vllm.VllmSampler]:
    built = vllm.VllmSampler(vllm.Config(kv_cache_gib=0.25, max_batch_requests=MAX_RUNNING))
    built.load_policy(policy)
    yield built
    built.close()


def grow(sampler: Any, prompts: Sequence[Prompt]) -> list[ResponseTree]:
    return search(
        prompts, sampler=sampler, scorer=FunctionScorer(lambda group, step: 0.0),
        settings=SETTINGS, seed=5, policy_name="base", origin="csr", progress=no_progress,
    )  # fmt: skip


def texts(tree: ResponseTree) -> list[tuple[str, str, bool, tuple[int, ...]]]:
    return [(n.node_id, n.step.text, n.kept, n.step.token_ids) for n in tree.nodes]


class LevelByLevel:
    """The same engine, asked for whole levels of all prompts."""

    def __init__(self, sampler: vllm.VllmSampler) -> None:
        self._sampler = sampler

    def stream_steps(self, settings: StepSettings) -> StepStream:
        return BatchedSteps(lambda requests: self._sampler.sample_steps(requests, settings))

    def cache_share(self, prompt: Prompt, num_tokens: int) -> float:
        return 0.0


def test_trees_are_those_of_whole_levels(sampler: vllm.VllmSampler, prompts: list[Prompt]) -> None:
    alone, levels = grow(sampler, prompts), grow(LevelByLevel(sampler), prompts)
    assert [texts(tree) for tree in alone] == [texts(tree) for tree in levels]
    for one, other in zip(alone, levels, strict=True):
        for left, right in zip(one.nodes, other.nodes, strict=True):
            assert left.step.token_logprobs == pytest.approx(right.step.token_logprobs, abs=NATS)
    assert max(len(tree.nodes) for tree in alone) > 2 * STEPS.num_candidates
    assert grow(sampler, prompts) == alone


def test_a_tree_takes_its_share_of_the_cache(
    sampler: vllm.VllmSampler, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = grow(sampler, prompts)
    num_tokens = sampler._policy.num_cache_tokens
    assert num_tokens > 1000
    num_prompt = len(sampler._policy.expanded_ids(prompts[0]))
    assert sampler.cache_share(prompts[0], 100) == pytest.approx((num_prompt + 100) / num_tokens)
    at_once: list[int] = []
    monkeypatch.setattr(vllm.VllmSampler, "cache_share", lambda *_: 0.4)
    submit = sampler._policy.submit
    monkeypatch.setattr(
        sampler._policy, "submit",
        lambda jobs: at_once.append(len({job.prompt.prompt_id for job in jobs})) or submit(jobs),
    )  # fmt: skip
    assert [texts(tree) for tree in grow(sampler, prompts)] == [texts(tree) for tree in alone]
    assert max(at_once) == 2


def test_the_engine_has_no_more_requests_than_it_may(
    sampler: vllm.VllmSampler, prompts: list[Prompt]
) -> None:
    stream = sampler.stream_steps(STEPS)
    requests = [StepRequest(prompt=prompt, seed=seed) for seed in (1, 2) for prompt in prompts]
    for request in requests:
        stream.add(request)
    ended = stream.take()
    assert 0 < len(ended) <= MAX_RUNNING < len(requests)
    assert len(sampler._policy._running) <= MAX_RUNNING
    while ended:
        ended = stream.take()
    stream.close()


def test_a_stream_that_is_given_up_leaves_the_engine_free(
    sampler: vllm.VllmSampler, prompts: list[Prompt]
) -> None:
    requests = [StepRequest(prompt=prompt, seed=seed) for seed in (1, 2) for prompt in prompts]
    before = sampler.generate(requests, WHOLE)
    stream = sampler.stream_steps(STEPS)
    for request in requests:
        stream.add(request)
    stream.take()
    with pytest.raises(AssertionError, match="for itself"):
        sampler.generate(requests, WHOLE)
    stream.close()
    stream.close()
    assert not sampler._policy._engine.llm_engine.has_unfinished_requests()
    assert_same_responses(sampler.generate(requests, WHOLE), before)


def test_an_engine_that_fails_in_a_stream_is_stopped_and_a_new_one_works(
    sampler: vllm.VllmSampler,
    policy: PolicyRef,
    prompts: list[Prompt],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = grow(sampler, prompts)
    core = sampler._policy._engine.llm_engine.engine_core

    def fail() -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(core, "get_output", fail)
    with pytest.raises(EngineLost, match=r"out of memory.*engine was stopped"):
        grow(sampler, prompts)
    sampler.load_policy(replace(policy))
    assert grow(sampler, prompts) == before
