"""The sampler of servers against stand-ins for them: what it asks, refuses and takes."""

import base64
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from csr.checkpoints import base_policy
from csr.errors import ConfigError, CSRError, DataError, EngineLost, ModelError, NumericalError
from csr.images import load_image
from csr.protocols import GenerateSettings
from csr.samplers import _server_fleet, server
from csr.search import search
from csr.types import FinishReason, PolicyRef, Prompt, ResponseTree, StepRequest
from tests.fake_vllm import GENERATE, FakeVllm, logprob, serving
from tests.processes import wait_until
from tests.streamed_search import SETTINGS, STEPS, noise_prompts
from tests.tiny_models import make_llava
from tests.trees import FunctionScorer, no_progress

pytestmark = pytest.mark.slow

WHOLE = GenerateSettings(temperature=1.0, top_p=1.0, max_response_tokens=30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def policy(folder: Path) -> PolicyRef:
    return base_policy(str(make_llava(folder / "llava")))


@pytest.fixture(scope="module")
def prompts(folder: Path) -> list[Prompt]:
    return noise_prompts(folder, 9)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_server_fleet, "_FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(_server_fleet, "LOOK_AGAIN_SECONDS", 600.0)


@contextmanager
def sampler_of(
    *fakes: FakeVllm, policy: PolicyRef | None = None, **settings: Any
) -> Iterator[server.ServerSampler]:
    urls = tuple(fake.url for fake in fakes)
    config = server.Config(endpoints=urls, **{"num_retries": 1, **settings})
    built = server.ServerSampler(config)
    try:
        if policy is not None:
            built.load_policy(policy)
        yield built
    finally:
        built.close()
        built.close()


@contextmanager
def speaking(
    policy: PolicyRef, num: int = 1, **settings: Any
) -> Iterator[tuple[server.ServerSampler, tuple[FakeVllm, ...]]]:
    fakes = [FakeVllm(policy.model_path) for _ in range(num)]
    with serving(*fakes), sampler_of(*fakes, policy=policy, **settings) as sampler:
        for fake in fakes:
            fake.asked.clear()
        yield sampler, tuple(fakes)


def requests_for(prompts: Sequence[Prompt]) -> list[StepRequest]:
    return [StepRequest(prompt=prompt, seed=10 + i) for i, prompt in enumerate(prompts)]


def grow(sampler: Any, prompts: Sequence[Prompt]) -> list[ResponseTree]:
    return search(
        prompts, sampler=sampler, scorer=FunctionScorer(lambda group, step: 0.0),
        settings=SETTINGS, seed=5, policy_name="base", origin="csr", progress=no_progress,
    )  # fmt: skip


def adapter_of(policy: PolicyRef, directory: Path, content: bytes = b"weights") -> PolicyRef:
    """The policy that an adapter on `policy` gives; its whole weights are nowhere served."""
    directory.mkdir(exist_ok=True)
    config = {"base_model_name_or_path": policy.model_path}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    (directory / "adapter_model.safetensors").write_bytes(content)
    merged = directory.parent / f"{directory.name}-merged"
    if not merged.exists():
        merged.mkdir()
        for file in Path(policy.model_path).iterdir():
            (merged / file.name).symlink_to(file)
    sha256 = hashlib.sha256(content).hexdigest()
    return replace(
        policy, name="01", model_path=str(merged), sha256=sha256, adapter_path=str(directory)
    )


def test_a_request_holds_ids_seeds_bias_and_the_images_own_pixels(
    policy: PolicyRef, prompts: list[Prompt]
) -> None:
    with speaking(policy) as (sampler, [fake]):
        [[first, *_]] = sampler.sample_steps(requests_for(prompts[:1]), STEPS)
        sampler.sample_steps([StepRequest(prompt=prompts[0], prefix=(first,), seed=7)], STEPS)
        begun, *_, last = fake.generated
    params = begun["sampling_params"]
    assert begun["token_ids"].count(4) == 1
    assert (params["n"], params["logit_bias"], params["logprobs"]) == (3, {"4": -100.0}, 0)
    assert params["include_stop_str_in_output"]
    assert params["seed"] != last["sampling_params"]["seed"]
    assert last["token_ids"][: len(begun["token_ids"])] == begun["token_ids"]
    assert tuple(last["token_ids"][len(begun["token_ids"]) :])[: len(first.token_ids)] == (
        first.token_ids
    )
    [part] = begun["content_parts"]
    head, _, data = part["url"].partition(",")
    assert head == "data:image/png;base64"
    sent = base64.b64decode(data)
    assert part["uuid"] == hashlib.sha256(sent).hexdigest()
    assert np.array_equal(Image.open(io.BytesIO(sent)), load_image(prompts[0].image))
    assert "file:" not in json.dumps(begun)


def test_an_image_that_changed_is_not_sent(policy: PolicyRef, prompts: list[Prompt]) -> None:
    stale = replace(prompts[0], image=replace(prompts[0].image, sha256="0" * 64))
    with speaking(policy) as (sampler, [fake]):
        with pytest.raises(DataError, match="changed since"):
            sampler.sample_steps([StepRequest(prompt=stale)], STEPS)
        assert fake.generated == []


def test_steps_end_at_sentences_and_their_parts_agree(
    policy: PolicyRef, prompts: list[Prompt]
) -> None:
    with speaking(policy) as (sampler, [fake]):
        groups = sampler.sample_steps(requests_for(prompts), STEPS)
        reasons = {step.finish_reason for group in groups for step in group}
        assert {FinishReason.STEP, FinishReason.EOS} <= reasons
        assert len(fake.generated) > len(prompts), "a bare stop is continued"
        for prompt, group in zip(prompts, groups, strict=True):
            assert len(group) == 3
            for step in group:
                assert step.text == sampler.decode(step.token_ids)
                [values] = sampler.score([prompt], [step.token_ids])
                assert values == pytest.approx(step.token_logprobs, abs=1e-9)
        greedy = replace(STEPS, temperature=0.0)
        [same] = sampler.sample_steps(requests_for(prompts[:1]), greedy)
        assert same == [same[0]] * 3
        branching = replace(STEPS, diversity="branch_first_token")
        [branched] = sampler.sample_steps(requests_for(prompts[:1]), branching)
        first = [step.token_logprobs[0] for step in branched]
        assert first == sorted(first, reverse=True)
        assert len({step.token_ids[0] for step in branched}) == 3


def test_whole_responses_and_scores_without_an_image(
    policy: PolicyRef, prompts: list[Prompt]
) -> None:
    with speaking(policy, num=2) as (sampler, fakes):
        begun = sampler.sample_steps(requests_for(prompts), replace(STEPS, max_step_tokens=2))
        requests = [
            replace(request, prefix=() if group[0].finish_reason is FinishReason.EOS else group[:1])
            for request, group in zip(requests_for(prompts), begun, strict=True)
        ]
        responses = sampler.generate(requests, WHOLE)
        assert [each.prompt_id for each in responses] == [each.prompt_id for each in prompts]
        assert sampler.generate(requests, WHOLE) == responses
        for request, response in zip(requests, responses, strict=True):
            assert response.token_ids[: len(request.prefix_token_ids)] == request.prefix_token_ids
            assert len(response.token_logprobs) == len(response.token_ids) <= 30
        for fake in fakes:
            fake.asked.clear()
        [blind] = sampler.score(prompts[:1], [(264, 18)], with_image=False)
        [asked] = [body for fake in fakes for body in fake.generated]
        assert "content_parts" not in asked
        assert blind == (
            logprob("base", asked["token_ids"][:-2], 264),
            logprob("base", asked["token_ids"][:-1], 18),
        )
        with pytest.raises(DataError, match="holds an image or video marker"):
            sampler.score(prompts[:1], [(264, 4)])
        with pytest.raises(ConfigError, match="JSON schema"):
            sampler.generate(requests, replace(WHOLE, json_schema="{}"))
        with pytest.raises(ConfigError, match="context of 512"):
            sampler.score(prompts[:1], [(264,) * 512])
        assert sampler.room(prompts[0]) == 512 - 27
        assert sampler.cache_share(prompts[0], 293) == pytest.approx(320 / 6400)
        assert sampler.stats()["num_endpoints"] == 2


def test_take_goes_by_the_order_of_asking_and_not_by_who_is_fast(
    policy: PolicyRef, prompts: list[Prompt]
) -> None:
    with speaking(policy, max_running_requests=64) as (sampler, [fake]):
        stream = sampler.stream_steps(STEPS)
        requests = requests_for(prompts)  # 9: an eighth is 2
        oldest = 0

        def first_is_late(path: str, body: dict[str, Any]) -> None:
            nonlocal oldest
            if path == GENERATE and body["content_parts"] == oldest_part:
                oldest += 1
                wait_until(lambda: len({str(b["content_parts"]) for b in fake.generated}) == 9)

        with sampler_of(fake, policy=policy) as other:
            other.sample_steps(requests[:1], STEPS)
        oldest_part = fake.generated[-1]["content_parts"]
        fake.asked.clear()
        fake.fault = first_is_late
        tickets = [stream.add(request) for request in requests]
        taken = []
        while batch := stream.take():
            taken.append([ticket for ticket, _ in batch])
        stream.close()
        stream.close()
    assert oldest
    assert taken == [tickets[:2], *([ticket] for ticket in tickets[2:])]


def test_one_endpoint_and_several_give_the_same_trees(
    policy: PolicyRef, prompts: list[Prompt]
) -> None:
    with speaking(policy) as (sampler, _):
        alone = grow(sampler, prompts)
    with speaking(policy, num=3, max_running_requests=1) as (sampler, fakes):
        assert grow(sampler, prompts) == alone
        assert all(fake.generated for fake in fakes)
    assert max(len(tree.nodes) for tree in alone) > 6


def test_trees_are_the_same_when_an_endpoint_dies_while_they_grow(
    policy: PolicyRef, prompts: list[Prompt]
) -> None:
    with speaking(policy, num=2) as (sampler, fakes):
        undisturbed = grow(sampler, prompts)
        count = 0

        def dies(path: str, body: dict[str, Any]) -> tuple[int, bytes] | None:
            nonlocal count
            count += 1
            return (0, b"") if count > 5 else None

        fakes[0].fault = dies
        assert grow(sampler, prompts) == undisturbed
        assert sampler.stats()["num_set_aside"] == 1
        fakes[1].stop()
        with pytest.raises(EngineLost, match=fakes[1].url):
            grow(sampler, prompts)


def with_answer(change: Callable[[dict[str, Any]], None]) -> Callable[[FakeVllm], None]:
    """A fault of a fake: its proper answers, changed."""

    def install(fake: FakeVllm) -> None:
        def fault(path: str, body: dict[str, Any]) -> tuple[int, bytes] | None:
            if path != GENERATE:
                return None
            answer = fake.generate(body)
            change(answer)
            return 200, json.dumps(answer).encode()

        fake.fault = fault

    return install


def floor(answer: dict[str, Any]) -> None:
    answer["choices"][0]["logprobs"]["content"][0]["logprob"] = -9999.0


def another_prefix(answer: dict[str, Any]) -> None:
    answer["prompt_token_ids"][-1] += 1


def expanded_twice(answer: dict[str, Any]) -> None:
    answer["prompt_token_ids"][5:5] = [4] * 16


def another_tokens_logprobs(answer: dict[str, Any]) -> None:
    answer["choices"][0]["logprobs"]["content"][0]["token_id"] += 1


def marker(answer: dict[str, Any]) -> None:
    choice = answer["choices"][0]
    choice["token_ids"][0] = choice["logprobs"]["content"][0]["token_id"] = 4


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (another_prefix, ModelError, "own processor makes"),
        (expanded_twice, ModelError, "own processor makes"),
        (floor, NumericalError, "not finite"),
        (another_tokens_logprobs, ModelError, "log-probabilities for"),
        (marker, ModelError, "image or video marker"),
        (lambda a: a["choices"].pop(), ModelError, "gave up on prompt 'p0'"),
        (lambda a: a["choices"].reverse(), ModelError, "out of order"),
        (lambda a: a["choices"][0].update(finish_reason="abort"), ModelError, "gave up"),
        (lambda a: a["choices"][0].update(token_ids=[]), ModelError, "no token"),
        (lambda a: a["choices"][0].update(token_ids=[264] * 99), ModelError, "more than the 12"),
        (lambda a: a["choices"][0].update(token_ids=None), ModelError, "unknown form"),
        (lambda a: a.pop("prompt_token_ids"), ModelError, "unknown form"),
    ],
)
def test_an_answer_to_something_else_is_refused(
    change: Callable[[dict[str, Any]], None],
    kind: type[CSRError],
    said: str,
    policy: PolicyRef,
    prompts: list[Prompt],
) -> None:
    with speaking(policy) as (sampler, [fake]):
        before = sampler.sample_steps(requests_for(prompts[:1]), STEPS)
        with_answer(change)(fake)
        with pytest.raises(kind, match=said):
            sampler.sample_steps(requests_for(prompts[:1]), STEPS)
        fake.fault = lambda path, body: None
        assert sampler.sample_steps(requests_for(prompts[:1]), STEPS) == before


def test_a_prompt_that_is_not_scored_whole_is_refused(
    policy: PolicyRef, prompts: list[Prompt]
) -> None:
    with speaking(policy) as (sampler, [fake]):
        with_answer(lambda answer: answer["prompt_logprobs"].pop())(fake)
        with pytest.raises(ModelError, match="1 log-probabilities for 2 tokens"):
            sampler.score(prompts[:1], [(264, 18)])


def test_endpoints_that_disagree_are_refused_by_name(
    policy: PolicyRef, prompts: list[Prompt]
) -> None:
    right = [FakeVllm(policy.model_path) for _ in range(3)]
    wrong = FakeVllm(policy.model_path, voice="stale")
    with serving(wrong, *right):
        with sampler_of(right[0], wrong) as sampler, pytest.raises(ModelError) as caught:
            sampler.load_policy(policy)
        assert right[0].url in str(caught.value)
        assert wrong.url in str(caught.value)
        with sampler_of(wrong, *right) as sampler:
            with pytest.raises(ModelError, match=f"{wrong.url} and the others disagree"):
                sampler.load_policy(policy)
            with pytest.raises(AssertionError, match="must have succeeded"):
                sampler.score(prompts[:1], [(264,)])
        with sampler_of(wrong, *right, endpoint_tolerance=10.0) as sampler:
            sampler.load_policy(policy)


def test_processed_logprobs_are_refused(policy: PolicyRef) -> None:
    def warmer(answer: dict[str, Any]) -> None:
        for each in answer["choices"][0]["logprobs"]["content"]:
            each["logprob"] *= 2

    fake = FakeVllm(policy.model_path)
    with_answer(warmer)(fake)
    refused = pytest.raises(ModelError, match="logprobs-mode")
    with serving(fake), sampler_of(fake) as sampler, refused:
        sampler.load_policy(policy)


def test_an_adapter_is_loaded_once_at_each_endpoint_under_a_name_of_its_own(
    policy: PolicyRef, prompts: list[Prompt], tmp_path: Path
) -> None:
    first, second = (adapter_of(policy, tmp_path / name, name.encode()) for name in ("a", "b"))
    with speaking(policy, num=2) as (sampler, fakes):
        [base] = sampler.score(prompts[:1], [(264, 18)])
        voices = []
        for each in (first, second, first):
            sampler.load_policy(each)
            voices += sampler.score(prompts[:1], [(264, 18)])
        assert voices[0] == voices[2]
        assert len({base, *voices}) == 3
        for fake in fakes:
            assert list(fake.adapters.values()) == [first.adapter_path, second.adapter_path]
        assert fakes[0].adapters == fakes[1].adapters
        again = adapter_of(policy, tmp_path / "a", b"other weights")
        sampler.load_policy(again)
        assert len(fakes[0].adapters) == 3, "the same path with other content is another adapter"
        sampler.load_policy(policy)
        assert sampler.score(prompts[:1], [(264, 18)]) == [base]


def test_an_adapter_that_is_not_applied_is_refused(policy: PolicyRef, tmp_path: Path) -> None:
    fake = FakeVllm(policy.model_path)
    trained = adapter_of(policy, tmp_path / "a")

    def base_speaks(path: str, body: dict[str, Any]) -> tuple[int, bytes] | None:
        if path != GENERATE:
            return None
        return 200, json.dumps(fake.generate({**body, "model": "base"})).encode()

    fake.fault = base_speaks
    with serving(fake), sampler_of(fake) as sampler:
        sampler.load_policy(policy)
        with pytest.raises(ModelError, match=f"{fake.url} says the same with the adapter"):
            sampler.load_policy(trained)


def test_what_no_endpoint_serves_is_told_with_what_to_start(
    policy: PolicyRef, tmp_path: Path
) -> None:
    first = adapter_of(policy, tmp_path / "a")
    second = adapter_of(first, tmp_path / "b")  # on the first one's weights, which are not served
    fake = FakeVllm(policy.model_path)
    with serving(fake), sampler_of(fake, policy=policy) as sampler:
        with pytest.raises(ModelError) as caught:
            sampler.load_policy(second)
        assert f"`vllm serve {first.model_path} --enable-scale-out --enable-lora`" in str(
            caught.value
        )
        whole = replace(second, adapter_path=None)
        start = f"`vllm serve {Path(second.model_path).resolve()} --enable-scale-out`"
        with pytest.raises(ModelError, match=start):
            sampler.load_policy(whole)
        (tmp_path / "a" / "adapter_config.json").write_text("{}")
        with pytest.raises(ModelError, match="does not say on which model"):
            sampler.load_policy(first)


def test_adapters_need_a_server_that_takes_them(policy: PolicyRef, tmp_path: Path) -> None:
    fake = FakeVllm(policy.model_path)
    fake.fault = lambda path, body: (404, b"{}") if path == "/v1/load_lora_adapter" else None
    refused = pytest.raises(ModelError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=1")
    with serving(fake), sampler_of(fake) as sampler, refused:
        sampler.load_policy(adapter_of(policy, tmp_path / "a"))


def test_a_served_name_that_is_not_there_is_the_users_mistake(policy: PolicyRef) -> None:
    fake = FakeVllm(policy.model_path)
    with serving(fake):
        with sampler_of(fake, policy=policy, model="base"):
            pass
        refused = pytest.raises(ConfigError, match=r"no model by the name 'llava'.*'base'")
        with sampler_of(fake, model="llava") as sampler, refused:
            sampler.load_policy(policy)


def test_an_endpoint_that_returns_must_say_what_the_others_do(
    policy: PolicyRef, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(_server_fleet, "LOOK_AGAIN_SECONDS", 0.05)
    with speaking(policy, num=2) as (sampler, fakes):
        back = fakes[0]
        back.stop()
        before = sampler.sample_steps(requests_for(prompts), STEPS)
        back.fault, back.voice = (lambda path, body: None), "stale"
        back.start()
        wait_until(lambda: "stays aside" in caplog.text)
        assert f"{back.url} and the others disagree" in caplog.text
        back.voice = "base"
        wait_until(lambda: "serves the policy again" in caplog.text)
        back.asked.clear()
        assert sampler.sample_steps(requests_for(prompts), STEPS) == before
        assert back.generated


def test_a_closed_sampler_can_be_used_again(policy: PolicyRef, prompts: list[Prompt]) -> None:
    with speaking(policy) as (sampler, _):
        before = sampler.sample_steps(requests_for(prompts), STEPS)
        num_requests = sampler.stats()["num_requests"]
        sampler.close()
        sampler.load_policy(policy)
        assert sampler.sample_steps(requests_for(prompts), STEPS) == before
        assert sampler.stats()["num_requests"] == 2 * num_requests
