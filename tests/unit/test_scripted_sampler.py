"""The scripted sampler keeps the contract that real samplers keep."""

import dataclasses
import math

import pytest
from pydantic import ValidationError

from csr.errors import ConfigError, DataError
from csr.protocols import GenerateSettings, StepSettings
from csr.samplers import scripted
from csr.types import FinishReason, ImageRef, PolicyRef, Prompt, StepCandidate, StepRequest

SETTINGS = StepSettings(
    num_candidates=5, temperature=1.0, top_p=1.0, max_step_tokens=20, max_response_tokens=100
)
GREEDY = dataclasses.replace(SETTINGS, num_candidates=1, temperature=0.0)
WHOLE = GenerateSettings(temperature=0.0, top_p=1.0, max_response_tokens=100)


def prompt(name: str = "1", image: str = "aa") -> Prompt:
    ref = ImageRef(uri="/nowhere.png", sha256=image)
    return Prompt(prompt_id=name, text="Describe the image.", image=ref)


def sampler(policy: str = "p0", **config: object) -> scripted.ScriptedSampler:
    built = scripted.ScriptedSampler(scripted.Config.model_validate(config))
    built.load_policy(PolicyRef(name=policy, model_path="", sha256=policy, iteration=0))
    return built


def walk(sampler: scripted.ScriptedSampler, settings: StepSettings) -> list[StepCandidate]:
    steps: list[StepCandidate] = []
    while not steps or steps[-1].finish_reason is FinishReason.STEP:
        request = StepRequest(prompt=prompt(), prefix=tuple(steps), seed=len(steps))
        steps.append(sampler.sample_steps([request], settings)[0][0])
    return steps


def test_a_step_is_one_sentence_with_its_own_logprobs() -> None:
    speaker = sampler()
    [candidates] = speaker.sample_steps([StepRequest(prompt=prompt(), seed=3)], SETTINGS)
    assert len(candidates) == 5
    assert len({c.text for c in candidates}) > 1
    for candidate in candidates:
        assert candidate.finish_reason is FinishReason.STEP
        assert candidate.text == scripted.decode(candidate.token_ids)
        assert candidate.text[0] == " "
        assert candidate.text[-1] in ".!"
        [scored] = speaker.score([prompt()], [candidate.token_ids])
        assert scored == candidate.token_logprobs


def test_every_step_of_a_distribution_sums_to_one() -> None:
    speaker = sampler()
    for ids in [(), scripted.encode(" A red circle"), scripted.encode(" A red ring is at the")]:
        known = speaker._next_logprobs(prompt(), ids)
        assert math.fsum(map(math.exp, known.values())) == pytest.approx(1.0)


def test_greedy_steps_joined_are_the_greedy_response() -> None:
    for policy in ("p0", "p1", "p2"):
        speaker = sampler(policy)
        steps = walk(speaker, GREEDY)
        [whole] = speaker.generate([StepRequest(prompt=prompt())], WHOLE)
        assert whole.token_ids == tuple(t for step in steps for t in step.token_ids)
        assert whole.token_logprobs == tuple(v for s in steps for v in s.token_logprobs)
        assert whole.text == "".join(step.text for step in steps)
        assert whole.finish_reason is FinishReason.EOS
        assert steps[-1] == dataclasses.replace(steps[-1], text="", token_ids=(0,))


def test_seed_decides_and_batch_order_does_not() -> None:
    speaker = sampler()
    requests = [StepRequest(prompt=prompt(str(i), f"{i}{i}"), seed=i) for i in range(4)]
    forward = speaker.sample_steps(requests, SETTINGS)
    backward = speaker.sample_steps(requests[::-1], SETTINGS)
    assert forward == backward[::-1]
    other = [dataclasses.replace(request, seed=request.seed + 100) for request in requests]
    assert speaker.sample_steps(other, SETTINGS) != forward


@pytest.mark.parametrize("changed", [prompt(image="bb"), prompt()])
def test_another_policy_or_image_speaks_differently(changed: Prompt) -> None:
    policy = "p0" if changed.image.sha256 == "bb" else "p1"
    [before] = sampler().generate([StepRequest(prompt=prompt())], WHOLE)
    [after] = sampler(policy).generate([StepRequest(prompt=changed)], WHOLE)
    assert before.token_logprobs != after.token_logprobs


def test_limits_cut_a_step_and_a_response() -> None:
    speaker = sampler()
    request = StepRequest(prompt=prompt())
    [[cut]] = speaker.sample_steps([request], dataclasses.replace(GREEDY, max_step_tokens=4))
    assert (len(cut.token_ids), cut.finish_reason) == (4, FinishReason.CUT)
    exact = dataclasses.replace(GREEDY, max_response_tokens=6)
    [[full]] = speaker.sample_steps([request], exact)
    assert full.text.endswith((".", "!"))
    assert full.finish_reason is FinishReason.LENGTH
    [whole] = speaker.generate([request], dataclasses.replace(WHOLE, max_response_tokens=6))
    assert (whole.text, whole.finish_reason) == (full.text, FinishReason.LENGTH)


def test_a_letter_that_a_limit_cuts_is_said_by_the_step_that_completes_it() -> None:
    """The bird has four bytes, each a token of its own."""
    speaker = sampler(replies=["a \N{BIRD}!"])
    settings = dataclasses.replace(GREEDY, max_step_tokens=3)
    start = StepRequest(prompt=prompt())
    [[first]] = speaker.sample_steps([start], settings)
    [[second]] = speaker.sample_steps([dataclasses.replace(start, prefix=(first,))], settings)
    assert (first.text, len(first.token_ids), first.finish_reason) == ("a ", 3, FinishReason.CUT)
    assert second.text == "\N{BIRD}"
    [cut] = speaker.generate([start], dataclasses.replace(WHOLE, max_response_tokens=4))
    assert (cut.text, len(cut.token_ids)) == ("a ", 4)


def test_a_prompt_without_room_in_the_context_is_the_users_mistake() -> None:
    with pytest.raises(ConfigError, match=r"takes 4 tokens.*context of 4"):
        sampler(max_context_tokens=4).sample_steps([StepRequest(prompt=prompt())], GREEDY)


def test_replies_are_all_it_says() -> None:
    replies = ("Mr. Fox is 3.5 m tall. He waits.", "A café!")
    speaker = sampler(replies=replies)
    texts = set()
    for seed in range(20):
        [whole] = speaker.generate(
            [StepRequest(prompt=prompt(), seed=seed)], dataclasses.replace(WHOLE, temperature=1.0)
        )
        texts.add(whole.text)
    assert texts == set(replies)
    one = sampler(replies=replies[:1])
    long_steps = dataclasses.replace(GREEDY, max_step_tokens=50)
    assert [step.text for step in walk(one, long_steps)] == [
        "Mr. Fox is 3.5 m tall.",
        " He waits.",
        "",
    ]
    by_period = dataclasses.replace(long_steps, step_rule="period")
    assert [step.text for step in walk(one, by_period)][:3] == ["Mr.", " Fox is 3.", "5 m tall."]


def test_branching_takes_the_likeliest_first_tokens_then_the_best() -> None:
    speaker = sampler()
    branching = dataclasses.replace(SETTINGS, diversity="branch_first_token")
    [candidates] = speaker.sample_steps([StepRequest(prompt=prompt())], branching)
    firsts = [candidate.token_ids[0] for candidate in candidates]
    known = speaker._next_logprobs(prompt(), ())
    assert firsts == sorted(known, key=lambda token: -known[token])
    [[best]] = speaker.sample_steps([StepRequest(prompt=prompt())], GREEDY)
    assert candidates[0] == best


def test_a_narrow_nucleus_is_greedy() -> None:
    narrow = dataclasses.replace(SETTINGS, top_p=0.01)
    [candidates] = sampler().sample_steps([StepRequest(prompt=prompt(), seed=1)], narrow)
    [[best]] = sampler().sample_steps([StepRequest(prompt=prompt())], GREEDY)
    assert candidates == [best] * 5


def test_what_is_not_in_the_language_is_refused() -> None:
    with pytest.raises(DataError, match="not in the scripted sampler's language"):
        sampler().score([prompt()], [scripted.encode("Hello")])
    with pytest.raises(ValidationError, match="repleis"):
        sampler(repleis=("typo",))


def test_a_table_round_trips_any_text() -> None:
    for text in [" A red circle is at the top left.", "naïve € \n", ""]:
        assert scripted.decode(scripted.encode(text)) == text


def test_stats_count_requests_and_tokens() -> None:
    speaker = sampler()
    [[step]] = speaker.sample_steps([StepRequest(prompt=prompt())], GREEDY)
    stats = speaker.stats()
    assert (stats["num_requests"], stats["num_generated_tokens"]) == (1.0, len(step.token_ids))


def test_a_given_text_becomes_the_tokens_of_a_whole_response() -> None:
    speaker = sampler(replies=["A café!"])
    ids = speaker.encode(prompt(), "A café!")
    [logprobs] = speaker.score([prompt()], [ids])
    assert logprobs == pytest.approx([0.0] * len(ids))  # the only thing that it ever says
    assert speaker.decode(ids) == "A café!"


def test_without_its_image_a_prompt_is_the_same_for_every_image() -> None:
    speaker, ids = sampler(), scripted.encode(" A red circle")
    asked = [prompt(), prompt(image="bb")]
    seeing = speaker.score(asked, [ids, ids])
    blind = speaker.score(asked, [ids, ids], with_image=False)
    assert seeing[0] != seeing[1]
    assert blind[0] == blind[1]
    assert blind[0] not in seeing
    assert speaker.encode_beginning(prompt(), " A red") == scripted.encode(" A red")
    assert speaker.encode_beginning(prompt(), " red") == ()  # no sentence begins so
