"""The search over a stream: trees that do not wait for each other, in any order the same."""

import random
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from csr.errors import NumericalError
from csr.growth import SearchSettings
from csr.protocols import StepSettings
from csr.search import search
from csr.step_streams import BatchedSteps, Steps, StepStream
from csr.types import Prompt, ResponseTree, StepCandidate, StepGroup, StepRequest, StepScore
from tests.trees import FunctionScorer, SpeakingSampler, babble, make_prompt, no_progress

STEPS = StepSettings(
    num_candidates=4, temperature=1.0, top_p=1.0, max_step_tokens=50, max_response_tokens=500
)
SETTINGS = SearchSettings(
    steps=STEPS, keep_top=2, keep_bottom=1, prune_by="reward", path_score="sum", max_steps=5,
    duplicate_retries=1,
)  # fmt: skip
A_MOMENT_SECONDS = 0.002
PROMPTS = [make_prompt(f"p{index}") for index in range(9)]


def text_reward(group: StepGroup, step: StepCandidate) -> float:
    return random.Random(f"{group.prompt.prompt_id}/{step.text}").uniform(-1, 1)


class Trickle:
    """A stream that ends a few of its requests at a time, in an order of its own."""

    works_in_batches = False

    def __init__(self, sampler: "TricklingSampler", settings: StepSettings) -> None:
        self._sampler, self._settings = sampler, settings
        self._rng = random.Random(sampler.order)
        self._num_tickets = 0
        self.asked: dict[int, StepRequest] = {}
        self.is_taking = False
        self.is_closed = False

    def add(self, request: StepRequest) -> int:
        self.asked[self._num_tickets] = request
        self._num_tickets += 1
        return self._num_tickets - 1

    def take(self) -> list[tuple[int, Steps]]:
        self.is_taking = bool(self.asked)
        time.sleep(2 * A_MOMENT_SECONDS if self.asked else 0)
        self._sampler.notice(self.asked.values())
        count = min(len(self.asked), self._rng.randint(1, 4))
        ended = self._rng.sample(sorted(self.asked), count)
        requests = [self.asked.pop(ticket) for ticket in ended]
        answers = self._sampler.sample_steps(requests, self._settings)
        self.is_taking = False
        return list(zip(ended, answers, strict=True))

    def close(self) -> None:
        self.is_closed = True


class TricklingSampler(SpeakingSampler):
    """Notes which prompts are sampled at once; each takes `share` of the cache."""

    def __init__(self, order: int = 0, share: float = 0.0) -> None:
        super().__init__(babble)
        self.order, self.share = order, share
        self.most_at_once = 0
        self.stream: Trickle | None = None

    def stream_steps(self, settings: StepSettings) -> StepStream:
        self.stream = Trickle(self, settings)
        return self.stream

    def cache_share(self, prompt: Prompt, num_tokens: int) -> float:
        assert num_tokens == 3 * 4 * 50
        return self.share

    def notice(self, requests: Sequence[StepRequest]) -> None:
        self.most_at_once = max(self.most_at_once, len({r.prompt.prompt_id for r in requests}))


def grow(
    sampler: SpeakingSampler, scorer: object = None, settings: SearchSettings = SETTINGS
) -> list[ResponseTree]:
    return search(
        PROMPTS, sampler=sampler, scorer=scorer or FunctionScorer(text_reward), settings=settings,
        seed=0, policy_name="base", origin="csr", progress=no_progress,
    )  # fmt: skip


@pytest.mark.parametrize("order", range(5))
@pytest.mark.parametrize("share", [0.0, 0.3, 2.0])
def test_trees_are_those_of_whole_levels(order: int, share: float) -> None:
    assert grow(TricklingSampler(order, share)) == grow(SpeakingSampler(babble))


@pytest.mark.parametrize(("share", "most"), [(0.0, 9), (0.3, 3), (0.5, 2), (2.0, 1)])
def test_as_many_trees_grow_as_the_cache_holds(share: float, most: int) -> None:
    sampler = TricklingSampler(share=share)
    grow(sampler)
    assert sampler.most_at_once == most


def test_the_same_is_asked_in_the_same_order_again() -> None:
    first, again = TricklingSampler(3, 0.3), TricklingSampler(3, 0.3)
    grow(first)
    grow(again)
    assert first.calls == again.calls


def test_trees_do_not_wait_for_each_other() -> None:
    """Some tree is at its third step while another is at its first."""
    sampler = TricklingSampler()
    depths: list[set[int]] = []
    sampler.notice = lambda requests: depths.append({len(r.prefix) for r in requests})
    grow(sampler)
    assert any({0, 2} <= each for each in depths)


class SlowScorer(FunctionScorer):
    """Counts how often the sampler was at work while it scored, and checks that it may be."""

    def __init__(self, sampler: TricklingSampler, *, asks_sampler: bool) -> None:
        super().__init__(text_reward)
        self._sampler = sampler
        self.asks_sampler = asks_sampler
        self.num_meanwhile = 0

    def score(self, groups: Sequence[StepGroup]) -> list[list[StepScore]]:
        stream = self._sampler.stream
        assert stream is not None
        assert not (self.asks_sampler and stream.asked)
        time.sleep(A_MOMENT_SECONDS)
        self.num_meanwhile += stream.is_taking
        return super().score(groups)


def test_sampling_goes_on_while_trees_are_scored() -> None:
    sampler = TricklingSampler()
    scorer = SlowScorer(sampler, asks_sampler=False)
    assert grow(sampler, scorer) == grow(SpeakingSampler(babble))
    assert scorer.num_meanwhile > 0


def test_a_scorer_that_asks_the_sampler_has_it_for_itself() -> None:
    sampler = TricklingSampler()
    scorer = SlowScorer(sampler, asks_sampler=True)
    assert grow(sampler, scorer) == grow(SpeakingSampler(babble))


def test_an_error_while_scoring_stops_the_search_and_closes_the_stream() -> None:
    sampler = TricklingSampler()
    with pytest.raises(NumericalError, match="reward of node"):
        grow(sampler, FunctionScorer(lambda group, step: float("nan")))
    assert sampler.stream is not None
    assert sampler.stream.is_closed


def test_a_batch_answers_all_that_was_asked() -> None:
    stream = BatchedSteps(lambda requests: [[r.prompt.prompt_id] for r in requests])
    tickets = [stream.add(StepRequest(prompt=prompt)) for prompt in PROMPTS[:3]]
    assert stream.take() == list(zip(tickets, [["p0"], ["p1"], ["p2"]], strict=True))
    assert stream.take() == []
    again = stream.add(replace(StepRequest(prompt=PROMPTS[4]), seed=7))
    assert again not in tickets
    assert stream.take() == [(again, ["p4"])]
