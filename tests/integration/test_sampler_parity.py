"""vLLM and transformers must be two voices of one policy, on tiny checkpoints of three families.

Every figure of the one is compared with the other's own forward pass.
"""

import json
import math
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from csr.checkpoints import base_policy, weights_sha256
from csr.errors import (
    ConfigError,
    DataError,
    EngineLost,
    EnvironmentFault,
    ModelError,
    NumericalError,
)
from csr.images import image_ref
from csr.protocols import GenerateSettings, StepSettings
from csr.rendering import image_token_id, load_processor
from csr.samplers import _prompted_policy, _vllm_engine, transformers, vllm
from csr.samplers._vllm_policy import ServedPolicy
from csr.types import FinishReason, PolicyRef, Prompt, StepCandidate, StepRequest
from tests.logprobs import NATS, assert_same_responses, assert_scored_alike, largest_difference
from tests.tiny_models import make_llava, make_qwen2_5_vl, make_smolvlm

pytestmark = pytest.mark.slow

TEXTS = ("Describe the image.", "What is in the picture? " * 3)
SAMPLED = StepSettings(
    num_candidates=4, temperature=1.0, top_p=0.95, max_step_tokens=40, max_response_tokens=60
)
GREEDY = replace(SAMPLED, num_candidates=1, temperature=0.0)
WHOLE = GenerateSettings(temperature=0.0, top_p=1.0, max_response_tokens=60)
BACKENDS = ("vllm", "transformers")


def policy(directory: Path) -> PolicyRef:
    return replace(base_policy(str(directory)), name=directory.name)


def make_image(path: Path, seed: int, size: tuple[int, int] = (40, 36)) -> Path:
    noise = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parity")


@pytest.fixture(scope="module")
def llava(root: Path) -> Path:
    return make_llava(root / "llava")


@pytest.fixture(scope="module")
def prompts(root: Path) -> list[Prompt]:
    sizes = [(40, 36), (40, 36), (64, 96)]
    refs = [image_ref(make_image(root / f"{i}.png", i, size)) for i, size in enumerate(sizes)]
    return [
        Prompt(prompt_id=str(i), text=TEXTS[i % 2], image=ref) for i, ref in enumerate(refs * 2)
    ]


@pytest.fixture(scope="module")
def samplers() -> Iterator[dict[str, Any]]:
    built = {
        "vllm": vllm.build(vllm.Config(kv_cache_gib=0.25)),
        "transformers": transformers.build(transformers.Config(batch_size=7)),
    }
    yield built
    for sampler in built.values():
        sampler.close()


@pytest.fixture
def speaking(samplers: dict[str, Any], llava: Path) -> dict[str, Any]:
    """Both samplers with the same LLaVA loaded."""
    for sampler in samplers.values():
        sampler.load_policy(policy(llava))
    return samplers


def requests_for(prompts: Sequence[Prompt]) -> list[StepRequest]:
    return [StepRequest(prompt=prompt, seed=10 + i) for i, prompt in enumerate(prompts)]


@pytest.mark.parametrize("make", [make_llava, make_qwen2_5_vl, make_smolvlm])
def test_each_scores_what_the_other_sampled_alike(
    make: Callable[[Path], Path], root: Path, prompts: list[Prompt], samplers: dict[str, Any]
) -> None:
    directory = make(root / f"family-{make.__name__}")
    for sampler in samplers.values():
        sampler.load_policy(policy(directory))
    other_text = [replace(p, text=TEXTS[1 - i % 2]) for i, p in enumerate(prompts)]
    for name in BACKENDS:
        groups = samplers[name].sample_steps(requests_for(prompts), SAMPLED)
        assert [len(group) for group in groups] == [4] * len(prompts)
        assert_scored_alike(prompts, groups, *samplers.values())
        with pytest.raises(AssertionError):  # the comparison can fail
            assert_scored_alike(other_text, groups, samplers[name])
    assert len({c.finish_reason for group in groups for c in group}) > 1
    whole = [samplers[name].generate(requests_for(prompts), WHOLE) for name in BACKENDS]
    assert [r.token_ids for r in whole[0]] == [r.token_ids for r in whole[1]]
    assert [r.text for r in whole[0]] == [r.text for r in whole[1]]


@pytest.mark.parametrize("name", BACKENDS)
def test_greedy_steps_joined_are_the_greedy_response(
    name: str, speaking: dict[str, Any], prompts: list[Prompt]
) -> None:
    sampler = speaking[name]
    whole = sampler.generate(requests_for(prompts), WHOLE)
    num_steps = []
    for prompt, expected in zip(prompts, whole, strict=True):
        steps: list[StepCandidate] = []
        while not steps or steps[-1].finish_reason is FinishReason.STEP:
            request = StepRequest(prompt=prompt, prefix=tuple(steps))
            [[step]] = sampler.sample_steps([request], GREEDY)
            steps.append(step)
        assert tuple(t for s in steps for t in s.token_ids) == expected.token_ids
        assert "".join(s.text for s in steps) == expected.text == sampler.decode(expected.token_ids)
        joined = [tuple(v for s in steps for v in s.token_logprobs)]
        assert largest_difference(joined, [expected.token_logprobs]) < NATS
        num_steps.append(len(steps))
    assert max(num_steps) > 1


@pytest.mark.parametrize("name", BACKENDS)
def test_the_seed_decides_and_the_batch_does_not(
    name: str, speaking: dict[str, Any], prompts: list[Prompt]
) -> None:
    sampler, requests = speaking[name], requests_for(prompts)

    def ids(groups: list[list[StepCandidate]]) -> list[list[tuple[int, ...]]]:
        return [[c.token_ids for c in group] for group in groups]

    first = ids(sampler.sample_steps(requests, SAMPLED))
    assert ids(sampler.sample_steps(requests[::-1], SAMPLED))[::-1] == first
    assert [ids(sampler.sample_steps([r], SAMPLED))[0] for r in requests] == first
    other = [replace(request, seed=request.seed + 1000) for request in requests]
    assert ids(sampler.sample_steps(other, SAMPLED)) != first
    assert all(len(set(group)) > 1 for group in first)
    warm = replace(WHOLE, temperature=1.0)
    assert (
        sampler.generate(requests, warm)[1].token_ids != sampler.generate(other, warm)[1].token_ids
    )


@pytest.mark.parametrize("name", BACKENDS)
def test_a_token_is_drawn_as_often_as_its_probability_says(
    name: str, speaking: dict[str, Any], prompts: list[Prompt]
) -> None:
    one = StepSettings(
        num_candidates=400, temperature=1.0, top_p=1.0, max_step_tokens=1, max_response_tokens=9
    )
    [drawn] = speaking[name].sample_steps([StepRequest(prompt=prompts[0], seed=5)], one)
    tokens = [candidate.token_ids[0] for candidate in drawn]
    known = {c.token_ids[0]: math.exp(c.token_logprobs[0]) for c in drawn}
    for token in sorted(known, key=lambda t: -known[t])[:4]:
        deviation = math.sqrt(known[token] * (1 - known[token]) / 400)
        assert abs(tokens.count(token) / 400 - known[token]) < 4 * deviation
    colder = replace(one, temperature=0.5)
    [cold] = speaking[name].sample_steps([StepRequest(prompt=prompts[0], seed=5)], colder)
    best = max(known, key=lambda t: known[t])
    assert [c.token_ids[0] for c in cold].count(best) > 1.2 * tokens.count(best)
    assert {c.token_ids[0]: math.exp(c.token_logprobs[0]) for c in cold}[best] == pytest.approx(
        known[best]
    )
    narrow = replace(one, top_p=known[best] * 0.9, num_candidates=20)
    [same] = speaking[name].sample_steps([StepRequest(prompt=prompts[0], seed=5)], narrow)
    assert {c.token_ids[0] for c in same} == {best}


def test_branching_takes_the_likeliest_first_tokens_in_both(
    speaking: dict[str, Any], prompts: list[Prompt]
) -> None:
    settings = replace(SAMPLED, diversity="branch_first_token")
    left, right = (speaking[n].sample_steps(requests_for(prompts), settings) for n in BACKENDS)
    for group, others in zip(left, right, strict=True):
        assert [c.token_ids for c in group] == [c.token_ids for c in others]
        assert [c.text for c in group] == [c.text for c in others]
        first = [c.token_logprobs[0] for c in group]
        assert first == sorted(first, reverse=True)
        assert len({c.token_ids[0] for c in group}) == 4
    assert_scored_alike(prompts, left, speaking["transformers"])


def test_a_step_that_stopped_at_no_end_is_continued(
    speaking: dict[str, Any], prompts: list[Prompt]
) -> None:
    """This policy likes to open with ".", where vLLM stops and the rule sees no sentence."""
    wide = replace(SAMPLED, num_candidates=40)
    sampler = speaking["vllm"]
    before = sampler.stats()["num_requests"]
    [group] = sampler.sample_steps([StepRequest(prompt=prompts[0], seed=1)], wide)
    continued = [c for c in group if c.text.startswith(".") and len(c.token_ids) > 2]
    assert continued
    assert sampler.stats()["num_requests"] > before + 1
    assert all(any(map(str.isalnum, c.text)) for c in group if c.finish_reason == "step")
    assert_scored_alike([prompts[0]], [continued], speaking["transformers"])
    by_period = replace(wide, step_rule="period")
    [group] = sampler.sample_steps([StepRequest(prompt=prompts[0], seed=1)], by_period)
    assert any(c.text == "." and c.finish_reason == "step" for c in group)


def test_a_given_text_is_the_same_tokens_for_both(
    speaking: dict[str, Any], prompts: list[Prompt]
) -> None:
    text = "A red circle is at the top left."
    ids, again = (speaking[name].encode(prompts[0], text) for name in BACKENDS)
    assert ids == again
    for name in BACKENDS:
        assert speaking[name].decode(ids).strip() == text
        [logprobs] = speaking[name].score([prompts[0]], [ids])
        assert len(logprobs) == len(ids)


@pytest.mark.parametrize("name", BACKENDS)
def test_limits_cut_steps_responses_and_context(
    name: str, speaking: dict[str, Any], prompts: list[Prompt]
) -> None:
    requests = requests_for(prompts)
    cut = speaking[name].sample_steps(requests, replace(SAMPLED, max_step_tokens=2))
    assert {len(c.token_ids) for group in cut for c in group} <= {1, 2}
    assert FinishReason.CUT in {c.finish_reason for group in cut for c in group}
    further = [replace(r, prefix=(g[0],)) for r, g in zip(requests, cut, strict=True)]
    for request, group in zip(further, speaking[name].sample_steps(further, SAMPLED), strict=True):
        for step in group:  # a letter cut in two is said once
            whole = speaking[name].decode([*request.prefix_token_ids, *step.token_ids])
            assert request.prefix[0].text + step.text == whole
    short = speaking[name].generate(requests, replace(WHOLE, max_response_tokens=2))
    assert {len(r.token_ids) for r in short} <= {1, 2}
    assert short[0].finish_reason is FinishReason.LENGTH
    prefix = speaking[name].sample_steps(requests[:1], replace(GREEDY, max_step_tokens=3))[0]
    rest = replace(GREEDY, max_response_tokens=5)
    [[step]] = speaking[name].sample_steps([replace(requests[0], prefix=tuple(prefix))], rest)
    assert len(step.token_ids) == 2


def test_a_full_context_cuts_and_no_room_at_all_is_the_users_mistake(
    samplers: dict[str, Any], llava: Path, prompts: list[Prompt]
) -> None:
    samplers["vllm"].close()  # a process has one engine
    settings = replace(GREEDY, max_step_tokens=500, max_response_tokens=500)
    whole = replace(WHOLE, max_response_tokens=500)
    num_prompt = 27  # the short text: 11 tokens and 16 of the image
    tight = {
        "vllm": vllm.build(vllm.Config(kv_cache_gib=0.25, max_context_tokens=num_prompt + 3)),
        "transformers": transformers.build(transformers.Config(max_context_tokens=num_prompt + 3)),
    }
    for sampler in tight.values():
        sampler.load_policy(policy(llava))
        request = StepRequest(prompt=prompts[0])
        [[step]] = sampler.sample_steps([request], settings)
        assert (len(step.token_ids), step.finish_reason) == (3, FinishReason.LENGTH)
        [response] = sampler.generate([request], whole)
        assert response.token_ids == step.token_ids
        long = StepRequest(prompt=prompts[1])
        for call in (
            lambda s=sampler, r=long: s.sample_steps([r], settings),
            lambda s=sampler, r=long: s.generate([r], whole),
            lambda s=sampler: s.score([prompts[0]], [(7, 8, 9, 10)]),
        ):
            with pytest.raises(ConfigError, match="max_context_tokens"):
                call()
        sampler.close()
        sampler.close()


def test_a_known_prefix_comes_from_the_cache(
    speaking: dict[str, Any], prompts: list[Prompt]
) -> None:
    sampler = speaking["vllm"]
    long = [p for p in prompts if p.text == TEXTS[1]]
    sampler.sample_steps(requests_for(long), SAMPLED)
    before = sampler.stats()
    sampler.sample_steps(requests_for(long), SAMPLED)
    after = sampler.stats()
    assert after["num_cached_tokens"] >= before["num_cached_tokens"] + 32 * len(long)
    assert 0 < after["prefix_cache_hit_rate"] < 1


def test_a_short_prompt_is_cached_from_step_to_step(
    speaking: dict[str, Any], prompts: list[Prompt]
) -> None:
    """27 tokens are less than one block of the cache; with a few steps behind them they fill it."""
    sampler = speaking["vllm"]
    four = replace(SAMPLED, max_step_tokens=4)
    request = StepRequest(prompt=prompts[0], seed=1)
    while len(request.prefix_token_ids) < 8:
        [group] = sampler.sample_steps([request], four)
        step = next(c for c in group if c.finish_reason in (FinishReason.CUT, FinishReason.STEP))
        request = replace(request, prefix=(*request.prefix, step))
    before = sampler.stats()["num_cached_tokens"]
    sampler.sample_steps([request], four)
    assert sampler.stats()["num_cached_tokens"] == before + 32


def test_after_a_reload_the_new_policy_speaks(
    root: Path, speaking: dict[str, Any], llava: Path, prompts: list[Prompt]
) -> None:
    """No cache may serve what the old weights made: tower, prefixes, processed images."""
    other = make_llava(root / "llava-other", seed=1)
    long = [p for p in prompts if p.text == TEXTS[1]]
    groups = speaking["vllm"].sample_steps(requests_for(long), SAMPLED)
    engine = speaking["vllm"]._policy._engine
    speaking["vllm"].load_policy(policy(other))
    assert speaking["vllm"]._policy._engine is engine, "the engine is kept"
    with pytest.raises(AssertionError):
        assert_scored_alike(long, groups, speaking["vllm"])
    renewed = speaking["vllm"].sample_steps(requests_for(long), SAMPLED)
    speaking["transformers"].load_policy(policy(other))
    assert_scored_alike(long, renewed, *speaking.values())
    speaking["vllm"].load_policy(policy(llava))
    assert_scored_alike(long, groups, speaking["vllm"])


def test_only_the_tower_changes_and_is_noticed(
    root: Path, speaking: dict[str, Any], llava: Path, prompts: list[Prompt]
) -> None:
    other = edited(llava, root / "llava-tower", r"vision_tower", lambda t: t * 1.5)
    groups = speaking["vllm"].sample_steps(requests_for(prompts), SAMPLED)
    speaking["vllm"].load_policy(policy(other))
    speaking["transformers"].load_policy(policy(other))
    with pytest.raises(AssertionError):
        assert_scored_alike(prompts, groups, speaking["vllm"])
    renewed = speaking["vllm"].sample_steps(requests_for(prompts), SAMPLED)
    assert_scored_alike(prompts, renewed, speaking["transformers"])


@pytest.mark.parametrize("name", BACKENDS)
def test_an_image_is_known_by_content_and_not_by_name(
    name: str, root: Path, speaking: dict[str, Any], prompts: list[Prompt]
) -> None:
    path = make_image(root / f"same-name-{name}.png", 50)
    before = Prompt(prompt_id="x", text=TEXTS[0], image=image_ref(path))
    [[step]] = speaking[name].sample_steps([StepRequest(prompt=before)], GREEDY)
    make_image(path, 51)
    after = replace(before, image=image_ref(path))
    old, new = speaking[name].score([before, after], [step.token_ids] * 2)
    assert old == pytest.approx(step.token_logprobs, abs=NATS)
    assert new != pytest.approx(step.token_logprobs, abs=0.01)
    make_image(path, 52)
    stale = replace(before, image=replace(after.image, sha256="0" * 64))
    with pytest.raises(DataError, match="changed since"):
        speaking[name].sample_steps([StepRequest(prompt=stale)], GREEDY)


@pytest.mark.parametrize("name", BACKENDS)
def test_an_image_marker_is_refused_in_prompt_and_response(
    name: str, llava: Path, speaking: dict[str, Any], prompts: list[Prompt]
) -> None:
    marked = replace(prompts[0], text="What is <image> about?")
    with pytest.raises(DataError, match="stands for an image"):
        speaking[name].sample_steps([StepRequest(prompt=marked)], GREEDY)
    marker = image_token_id(load_processor(str(llava)))
    with pytest.raises(DataError, match="holds an image or video marker"):
        speaking[name].score(prompts[:1], [(7, marker)])


@pytest.mark.parametrize("name", BACKENDS)
def test_a_policy_that_wants_to_say_the_marker_cannot(
    name: str, root: Path, llava: Path, samplers: dict[str, Any], prompts: list[Prompt]
) -> None:
    marker = image_token_id(load_processor(str(llava)))

    def favour_marker(weight: torch.Tensor) -> torch.Tensor:
        weight[marker, 0] = 10.0
        return weight

    directory = edited(llava, root / f"llava-marker-{name}", "lm_head", favour_marker)
    samplers[name].load_policy(policy(directory))
    for settings in (GREEDY, SAMPLED, replace(SAMPLED, diversity="branch_first_token")):
        groups = samplers[name].sample_steps(requests_for(prompts[:2]), settings)
        for candidate in [c for group in groups for c in group]:
            assert marker not in candidate.token_ids
            assert max(candidate.token_logprobs) < -1.0, "raw: the marker has its mass still"
        assert_scored_alike(prompts[:2], groups, samplers[name])


@pytest.mark.parametrize("name", BACKENDS)
def test_weights_that_give_nan_are_named(
    name: str, root: Path, llava: Path, samplers: dict[str, Any], prompts: list[Prompt]
) -> None:
    directory = edited(llava, root / f"llava-nan-{name}", "lm_head", lambda t: t * math.nan)
    samplers[name].load_policy(policy(directory))
    with pytest.raises(NumericalError, match="not finite"):
        samplers[name].sample_steps([StepRequest(prompt=prompts[0])], GREEDY)
    with pytest.raises(NumericalError, match="not finite"):
        samplers[name].score(prompts[:1], [(7, 8)])


@pytest.mark.parametrize("fault", ["expanded twice", "no image", "other prompt"])
def test_what_vllm_accepts_in_silence_is_found(
    fault: str,
    speaking: dict[str, Any],
    prompts: list[Prompt],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = ServedPolicy._input

    def wrong(self: ServedPolicy, job: Any) -> dict[str, Any]:
        given = right(self, job)
        if fault == "expanded twice":
            given["prompt_token_ids"] = [*self.expanded_ids(job.prompt), *job.response_ids]
        elif fault == "no image":
            given |= {"multi_modal_data": {"image": None}}
        else:
            given["prompt_token_ids"] = given["prompt_token_ids"][:-1]
        return given

    monkeypatch.setattr(ServedPolicy, "_input", wrong)
    with pytest.raises(ModelError, match="own processor makes"):
        speaking["vllm"].sample_steps([StepRequest(prompt=prompts[0])], GREEDY)


@pytest.mark.parametrize("name", BACKENDS)
def test_what_cannot_be_loaded_is_refused(
    name: str, root: Path, samplers: dict[str, Any], llava: Path
) -> None:
    samplers["vllm"].close()
    sampler = {"vllm": vllm, "transformers": transformers}[name]
    missing = PolicyRef(name="x", model_path=str(root / "none"), sha256="x", iteration=0)
    with pytest.raises(ModelError, match="does not exist"):
        sampler.build(sampler.Config()).load_policy(missing)
    partial = edited(llava, root / f"llava-partial-{name}", "q_proj", lambda t: None)
    small = {"kv_cache_gib": 0.25} if name == "vllm" else {}
    with pytest.raises(ModelError, match=r"q_proj|qkv_proj"):
        sampler.build(sampler.Config.model_validate(small)).load_policy(policy(partial))


def test_without_vllm_the_error_says_what_to_install(
    llava: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_vllm_engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault, match="pip install"):
        vllm.build(vllm.Config()).load_policy(policy(llava))


def test_a_second_engine_in_one_process_is_refused(
    speaking: dict[str, Any], llava: Path, prompts: list[Prompt]
) -> None:
    with pytest.raises(EnvironmentFault, match="already runs a vLLM engine"):
        vllm.build(vllm.Config(kv_cache_gib=0.25)).load_policy(policy(llava))
    assert speaking["vllm"].generate(requests_for(prompts), WHOLE)


def test_prompts_whose_ids_are_no_longer_kept_are_read_as_before(
    speaking: dict[str, Any], prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = speaking["vllm"].generate(requests_for(prompts), WHOLE)
    monkeypatch.setattr(_prompted_policy, "_MAX_KEPT_PROMPTS", 1)
    speaking["vllm"]._policy._expanded_ids.clear()
    assert_same_responses(speaking["vllm"].generate(requests_for(prompts), WHOLE), before)
    assert len(speaking["vllm"]._policy._expanded_ids) == 1


def test_an_engine_that_failed_is_stopped_and_a_new_one_works(
    speaking: dict[str, Any],
    llava: Path,
    prompts: list[Prompt],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sampler = speaking["vllm"]
    before = sampler.generate(requests_for(prompts), WHOLE)
    core = sampler._policy._engine.llm_engine.engine_core

    def fail() -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(core, "get_output", fail)
    with pytest.raises(EngineLost, match=r"out of memory.*engine was stopped"):
        sampler.generate(requests_for(prompts), WHOLE)
    sampler.load_policy(policy(llava))
    assert_same_responses(sampler.generate(requests_for(prompts), WHOLE), before)


def test_an_engine_leaves_the_process_as_it_was(samplers: dict[str, Any], llava: Path) -> None:
    samplers["vllm"].close()
    environment, threads = dict(os.environ), torch.set_num_threads
    states = random.getstate(), torch.get_rng_state().tolist(), torch.get_num_threads()
    sampler = vllm.build(vllm.Config(kv_cache_gib=0.25))
    sampler.load_policy(policy(llava))
    assert dict(os.environ) == environment
    assert torch.set_num_threads is threads
    assert states == (random.getstate(), torch.get_rng_state().tolist(), torch.get_num_threads())
    sampler.close()


def edited(
    source: Path, target: Path, part: str, change: Callable[[torch.Tensor], torch.Tensor | None]
) -> Path:
    """A copy of a checkpoint with the weights whose names hold `part` changed, or left out."""
    shutil.copytree(source, target)
    weights = load_file(target / "model.safetensors")
    for name in [name for name in weights if part in name]:
        changed = change(weights.pop(name))
        if changed is not None:
            weights[name] = changed.contiguous()
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    assert weights_sha256(target) != weights_sha256(source)
    assert json.loads((target / "config.json").read_text())
    return target
