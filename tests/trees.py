"""Prompts, steps, trees and protocol fakes for tests of rewards, search and pairing."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from csr.protocols import GenerateSettings, StepSettings
from csr.step_streams import BatchedSteps, StepStream
from csr.types import (
    FinishReason,
    GeneratedResponse,
    ImageRef,
    PolicyRef,
    Prompt,
    ResponseTree,
    StepCandidate,
    StepGroup,
    StepNode,
    StepRequest,
    StepScore,
)

POLICY = PolicyRef(name="base", model_path="", sha256="0" * 64, iteration=0)
EOS = 0


def make_prompt(prompt_id: str = "42", reference: str | None = None) -> Prompt:
    image = ImageRef(uri=f"/images/{prompt_id}.png", sha256=f"image {prompt_id}")
    return Prompt(prompt_id=prompt_id, text="Describe the image.", image=image, reference=reference)


def make_step(
    text: str,
    logprobs: Sequence[float] | None = None,
    reason: FinishReason = FinishReason.STEP,
    token_ids: Sequence[int] | None = None,
) -> StepCandidate:
    """A step with one token a character (10 + its code) unless told otherwise."""
    ids = token_ids or ([10 + ord(character) for character in text] or [EOS])
    return StepCandidate(
        text=text,
        token_ids=tuple(ids),
        token_logprobs=tuple(logprobs or [-0.5] * len(ids)),
        finish_reason=reason,
    )


def eos_step(logprob: float = -0.5) -> StepCandidate:
    """A bare end of response."""
    return make_step("", [logprob], FinishReason.EOS, [EOS])


def make_tree(
    rewards: Mapping[str, float], texts: Mapping[str, str] | None = None, prompt_id: str = "42"
) -> ResponseTree:
    """A tree from places and rewards: {"0": 1.0, "0.1": 0.5, "0.1/": 0.0}.

    A place that ends in "/" is the bare end below it; its node is numbered 9. The text of a
    sentence is " <place>." unless `texts` gives another.
    """
    nodes = []
    for place, reward in rewards.items():
        path = place.replace("/", ".9").lstrip(".")
        parent, _, _ = path.rpartition(".")
        text = (texts or {}).get(place, f" {place}.")
        nodes.append(
            StepNode(
                node_id=f"{prompt_id}/{path}",
                parent_id=f"{prompt_id}/{parent}" if parent else None,
                depth=path.count(".") + 1,
                step=eos_step() if place.endswith("/") else make_step(text),
                score=StepScore(reward=reward, breakdown={"likelihood": -0.5}),
                cumulative_reward=reward,
                kept=True,
            )
        )
    prompt = make_prompt(prompt_id)
    return ResponseTree(prompt=prompt, policy="base", origin="csr", nodes=tuple(nodes))


def tree_of_responses(prompt: Prompt, texts: Sequence[str]) -> ResponseTree:
    """A tree of depth one: each text a whole response, numbered from 0."""
    nodes = [
        StepNode(
            node_id=f"{prompt.prompt_id}/{number}",
            parent_id=None,
            depth=1,
            step=make_step(text, reason=FinishReason.EOS),
            score=StepScore(reward=0.0, breakdown={}),
            cumulative_reward=0.0,
            kept=True,
        )
        for number, text in enumerate(texts)
    ]
    return ResponseTree(prompt=prompt, policy="base", origin="any", nodes=tuple(nodes))


class TableSimilarity:
    """Cosines from tables; every call is recorded. 0 for texts that no table names."""

    def __init__(
        self,
        image: Mapping[str, float] | None = None,
        text: Mapping[tuple[str, str], float] | None = None,
    ) -> None:
        self.image, self.text = image or {}, text or {}
        self.image_calls: list[list[str]] = []
        self.text_calls: list[list[tuple[str, str]]] = []

    def image_text(self, images: Sequence[ImageRef], texts: Sequence[str]) -> list[float]:
        assert len(images) == len(texts)
        self.image_calls.append(list(texts))
        return [self.image.get(text, 0.0) for text in texts]

    def text_text(self, left: Sequence[str], right: Sequence[str]) -> list[float]:
        pairs = list(zip(left, right, strict=True))
        self.text_calls.append(pairs)
        return [self.text.get(pair, 0.0) for pair in pairs]

    def num_truncated(self, texts: Sequence[str]) -> int:
        return 0

    def close(self) -> None:
        pass


Speak = Callable[[StepRequest, random.Random], StepCandidate]


class SpeakingSampler:
    """A `Sampler` whose steps are `speak(request, rng)`, with the rng of the request's seed."""

    def __init__(self, speak: Speak) -> None:
        self.speak = speak
        self.calls: list[list[StepRequest]] = []

    def load_policy(self, policy: PolicyRef) -> None:
        pass

    def sample_steps(
        self, requests: Sequence[StepRequest], settings: StepSettings
    ) -> list[list[StepCandidate]]:
        self.calls.append(list(requests))
        return [self._steps(request, settings.num_candidates) for request in requests]

    def stream_steps(self, settings: StepSettings) -> StepStream:
        return BatchedSteps(lambda requests: self.sample_steps(requests, settings))

    def cache_share(self, prompt: Prompt, num_tokens: int) -> float:
        return 0.0

    def _steps(self, request: StepRequest, num_candidates: int) -> list[StepCandidate]:
        rng = random.Random(request.seed)
        return [self.speak(request, rng) for _ in range(num_candidates)]

    def generate(
        self, requests: Sequence[StepRequest], settings: GenerateSettings
    ) -> list[GeneratedResponse]:
        raise NotImplementedError

    def score(
        self, prompts: Sequence[Prompt], token_ids: Sequence[Sequence[int]]
    ) -> list[tuple[float, ...]]:
        raise NotImplementedError

    def decode(self, token_ids: Sequence[int]) -> str:
        raise NotImplementedError

    def close(self) -> None:
        pass


class FunctionScorer:
    """A `StepScorer` whose rewards are `reward(group, candidate)`; every call is recorded."""

    asks_sampler = False

    def __init__(self, reward: Callable[[StepGroup, StepCandidate], float]) -> None:
        self.reward = reward
        self.calls: list[int] = []

    def score(self, groups: Sequence[StepGroup]) -> list[list[StepScore]]:
        self.calls.append(len(groups))
        return [[self._score(group, step) for step in group.candidates] for group in groups]

    def _score(self, group: StepGroup, step: StepCandidate) -> StepScore:
        likelihood = sum(step.token_logprobs) / len(step.token_logprobs)
        return StepScore(reward=self.reward(group, step), breakdown={"likelihood": likelihood})


def babble(request: StepRequest, rng: random.Random) -> StepCandidate:
    """A random short sentence, or the end of the response; the first step is a sentence."""
    if request.prefix and rng.random() < 0.25:
        return eos_step(-rng.random())
    text = f" word {rng.randrange(10**6)}."
    return make_step(text, [-rng.random() for _ in text])


def no_progress(done: int, total: int) -> None:
    """Ignores progress."""
