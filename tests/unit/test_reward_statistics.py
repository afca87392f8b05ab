import random

import pytest

from csr.errors import ConfigError
from csr.protocols import Sampler, Similarity, StepSettings
from csr.samplers import scripted
from csr.types import StepCandidate, StepRequest
from rewards.raw import RawParts
from rewards.similarity import scripted as scripted_similarity
from rewards.statistics import Statistics, measure_statistics, sample_statistics
from tests.trees import (
    POLICY,
    SpeakingSampler,
    TableSimilarity,
    eos_step,
    make_prompt,
    make_step,
    no_progress,
)

SETTINGS = StepSettings(
    num_candidates=5,
    temperature=0.3,
    top_p=0.9,
    max_step_tokens=50,
    max_response_tokens=500,
    diversity="branch_first_token",
)


def sentence(likelihood: float, image: float | None) -> RawParts:
    return RawParts(
        likelihood=likelihood, image_similarity=image, redundancy=None, is_sentence=True
    )


END = RawParts(likelihood=-9.0, image_similarity=0.0, redundancy=0.0, is_sentence=False)


def test_moments_by_hand():
    """Eight captions. First sentences: likelihood four times -1 and -3: mean -2, sd 1.

    Images over all sentences: eight times 20, eight times 40: mean 30, sd 10.
    """
    captions = [[sentence(-1.0 - 2 * (i % 2), 20.0), sentence(-7.0, 40.0), END] for i in range(8)]
    found = measure_statistics(captions, likelihood_kind="mean_logprob")
    assert found.likelihood.model_dump() == {"mean": -2.0, "sd": 1.0, "count": 8}
    assert found.image_similarity is not None
    assert found.image_similarity.model_dump() == {"mean": 30.0, "sd": 10.0, "count": 16}


def test_scope_all_takes_later_sentences_too():
    captions = [[sentence(-1.0, 20.0), sentence(-3.0, 40.0), END] for _ in range(8)]
    found = measure_statistics(captions, likelihood_kind="mean_logprob", likelihood_scope="all")
    assert (found.likelihood.mean, found.likelihood.count) == (-2.0, 16)


def test_statistics_survive_json():
    captions = [[sentence(-1.0 - i, None)] for i in range(8)]
    found = measure_statistics(captions, likelihood_kind="product")
    assert found.image_similarity is None
    assert Statistics.model_validate_json(found.model_dump_json()) == found


def test_too_few_sentences_or_no_spread_is_an_error():
    with pytest.raises(ConfigError, match="7 sentences"):
        measure_statistics(
            [[sentence(-float(i), 1.0)] for i in range(7)], likelihood_kind="mean_logprob"
        )
    with pytest.raises(ConfigError, match=r"likelihood is -0\.7 for all 9"):
        measure_statistics(
            [[sentence(-0.7, float(i))] for i in range(9)], likelihood_kind="mean_logprob"
        )
    with pytest.raises(ConfigError, match=r"image_similarity is 0\.3 for all"):
        measure_statistics(
            [[sentence(-float(i), 0.1 + 0.2)] for i in range(9)], likelihood_kind="mean_logprob"
        )


def speak(request: StepRequest, rng: random.Random) -> StepCandidate:
    """Sentence one, sentence two, the end."""
    if len(request.prefix) == 2:
        return eos_step()
    return make_step(f" {'One' if not request.prefix else 'Two'}.", [-rng.random()] * 5)


def sample(
    sampler: Sampler,
    num_captions: int,
    num_prompts: int = 3,
    seed: int = 5,
    similarity: Similarity | None = None,
    num_waves: int = 1,
) -> Statistics:
    return sample_statistics(
        [make_prompt(str(i)) for i in range(num_prompts)],
        sampler=sampler,
        similarity=similarity or TableSimilarity(image={"One.": 0.2, "Two.": 0.4}),
        settings=SETTINGS,
        likelihood_kind="mean_logprob",
        likelihood_scope="first",
        seed=seed,
        progress=no_progress,
        num_captions=num_captions,
        num_waves=num_waves,
    )


def test_captions_are_sampled_one_sentence_a_call_over_repeated_prompts():
    sampler = SpeakingSampler(speak)
    found = sample(sampler, num_captions=10)
    assert [len(call) for call in sampler.calls] == [10, 10, 10]
    first = sampler.calls[0]
    assert [request.prompt.prompt_id for request in first] == list("0120120120")
    assert len({request.seed for request in first}) == 10
    assert found.likelihood.count == 10
    assert found.image_similarity is not None
    assert found.image_similarity.model_dump() == pytest.approx(
        {"mean": 30.0, "sd": 10.0, "count": 20}
    )


def test_statistics_repeat_with_their_seed_and_differ_with_another():
    first = sample(SpeakingSampler(speak), 12)
    assert first == sample(SpeakingSampler(speak), 12)
    assert first != sample(SpeakingSampler(speak), 12, seed=6)


def test_two_waves_measure_the_same_in_smaller_calls():
    sampler = SpeakingSampler(speak)
    assert sample(sampler, 9, num_waves=2) == sample(SpeakingSampler(speak), 9)
    assert [len(call) for call in sampler.calls] == [5, 5, 5, 4, 4, 4]


def test_no_prompts_is_an_error():
    with pytest.raises(ConfigError, match="need prompts"):
        sample(SpeakingSampler(speak), 10, num_prompts=0)


def test_a_caption_that_fills_the_context_ends_there():
    sampler = scripted.build(scripted.Config(max_context_tokens=16))
    sampler.load_policy(POLICY)
    found = sample(
        sampler, num_captions=40, similarity=scripted_similarity.build(scripted_similarity.Config())
    )
    assert found.likelihood.count == 40
