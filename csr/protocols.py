"""The verbs: what a component must do to take part.

A component is found by its module name (`csr/samplers/vllm.py` is the sampler
"vllm") and never imports another component: the flow hands one to the other
through these protocols.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from csr.annotations import Annotation, Evidence, Quota
from csr.outcomes import Outcome
from csr.step_streams import StepStream
from csr.types import (
    GeneratedResponse,
    ImageRef,
    LabelQuery,
    PairingResult,
    PolicyRef,
    Prompt,
    ResponseTree,
    StepCandidate,
    StepGroup,
    StepRequest,
    StepScore,
)

StepRule = Literal["sentence", "period"]
"""`sentence`: `csr.steps`' rule; `period`: any "." ends a step (the paper and its code)."""

Diversity = Literal["sample", "branch_first_token"]
"""`sample`: independent samples.
`branch_first_token`: the K likeliest first tokens, then greedy."""

TrainingTable = Literal["pairs", "demonstrations"]
"""What a source makes and a trainer reads: preferences, or responses to imitate."""

Progress = Callable[[int, int], None]
"""Called with (done, total) as work advances."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSettings:
    """How next steps are sampled."""

    num_candidates: int
    temperature: float
    """0 is greedy."""
    top_p: float
    max_step_tokens: int
    max_response_tokens: int
    """Over the whole response, prefix included."""
    step_rule: StepRule = "sentence"
    diversity: Diversity = "sample"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateSettings:
    """How whole responses are sampled."""

    temperature: float
    """0 is greedy."""
    top_p: float
    max_response_tokens: int
    json_schema: str | None = None
    """A JSON schema, as JSON text, that each response follows; one that is cut follows it as far
    as it goes. Its log-probabilities are those among the tokens that the schema allows. Only the
    sampler 'vllm' can."""


class Sampler(Protocol):
    """Speaks for one policy at a time. Every call is one batch over all its requests."""

    def load_policy(self, policy: PolicyRef) -> None:
        """Make `policy` the one that speaks, as if nothing had been asked of the sampler before.

        Costs little where it speaks already. ModelError when it cannot be loaded.
        """

    def sample_steps(
        self, requests: Sequence[StepRequest], settings: StepSettings
    ) -> list[list[StepCandidate]]:
        """`settings.num_candidates` next steps for each request, in request order.

        A step is LENGTH where nothing may follow it, since the response or the model's context
        is full, and CUT where only its own limit was reached.
        """

    def stream_steps(self, settings: StepSettings) -> StepStream:
        """The same steps for requests that come one by one.

        Nothing else may be asked of the sampler while requests of the stream have not ended.
        """

    def cache_share(self, prompt: Prompt, num_tokens: int) -> float:
        """Share of the engine's cache that a prompt and `num_tokens` more take; 0 without one."""

    def generate(
        self, requests: Sequence[StepRequest], settings: GenerateSettings
    ) -> list[GeneratedResponse]:
        """One whole response for each request (its prefix included), in request order.

        ConfigError where there is a schema that the sampler cannot follow.
        """

    def score(
        self,
        prompts: Sequence[Prompt],
        token_ids: Sequence[Sequence[int]],
        *,
        with_image: bool = True,
    ) -> list[tuple[float, ...]]:
        """Raw log-probability of each given response token, in nats, one tuple a prompt.

        Without the image the prompt is the same user turn, and no image stands in it.
        """

    def encode(self, prompt: Prompt, response: str) -> tuple[int, ...]:
        """The token ids of a text as a whole response to `prompt`, the end token included.

        DataError where no response could say it.
        """

    def encode_beginning(self, prompt: Prompt, text: str) -> tuple[int, ...]:
        """The token ids of a text right behind `prompt`, as it is written: what a response may
        begin with. Neither a space nor the end token is added.

        Empty where no response can begin so, as where the tokenizer would join the text with the
        prompt's last token.
        """

    def room(self, prompt: Prompt) -> int:
        """Tokens that a response to the prompt may have; below 1 it cannot be asked.

        DataError where the prompt itself cannot be written, as with an image marker inside.
        """

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text without special tokens, and without a last letter that is not complete.

        Such a letter belongs to the step that holds its last token.
        """

    def stats(self) -> dict[str, float]:
        """Counts since it was built, among them `num_prompt_tokens` and `num_generated_tokens`."""

    def close(self) -> None:
        """Free the engine. Safe to call twice."""


class Similarity(Protocol):
    """Compares images with sentences, and sentences with each other."""

    def image_text(self, images: Sequence[ImageRef], texts: Sequence[str]) -> list[float]:
        """Cosine in [-1, 1] of each (image, text) pair; each image is encoded once."""

    def text_text(self, left: Sequence[str], right: Sequence[str]) -> list[float]:
        """Cosine in [-1, 1] of each (left, right) pair; each text is encoded once."""

    def num_truncated(self, texts: Sequence[str]) -> int:
        """How many of these texts are longer than the encoder's context, and so are cut."""

    def close(self) -> None:
        """Free the model. Safe to call twice."""


class StepScorer(Protocol):
    """Turns candidate steps into rewards."""

    @property
    def asks_sampler(self) -> bool:
        """Whether scores need the sampler, which then samples nothing meanwhile."""

    def score(self, groups: Sequence[StepGroup]) -> list[list[StepScore]]:
        """One score for each candidate of each group, in order, in one batched pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTools:
    """What a source may use."""

    policy: PolicyRef
    """Who speaks; already loaded in `sampler`."""
    sampler: Sampler
    scorer: StepScorer | None
    """None where the source's `step_settings` are."""
    similarity: Similarity | None
    seed: int
    progress: Progress
    """Counts prompts."""


class PreferenceSource(Protocol):
    """One paper's way to make preference pairs: `generate` is slow, `pair` pure and instant.

    A source that asks more than a prompt's own text offers `asked(prompt)`, the prompt as it is
    asked: people who judge the responses see that.
    """

    @property
    def step_settings(self) -> StepSettings | None:
        """How `generate` samples the steps that are rewarded; the statistics of the policy's own
        captions are taken alike. None where no step is: then there is no scorer either, and
        rewards are the source's own.
        """

    def generate(self, prompts: Sequence[Prompt], tools: SourceTools) -> list[ResponseTree]:
        """One tree for each prompt, in prompt order, whatever else is asked beside it."""

    @property
    def makes(self) -> TrainingTable:
        """Which table its results are for."""

    @property
    def needs_critic(self) -> bool:
        """Whether `pair` goes by a critic's annotations."""

    def pair(self, trees: Sequence[ResponseTree], evidence: Evidence) -> PairingResult:
        """Pairs or demonstrations from stored trees. No engine, no clock, no randomness."""


class Critic(Protocol):
    """Says of sampled responses whether they are fit to learn from."""

    @property
    def quota(self) -> Quota | None:
        """What people must say first; None where the critic needs nobody."""

    def judge(self, trees: Sequence[ResponseTree], given: Sequence[Annotation]) -> list[Annotation]:
        """All verdicts on the trees' complete responses.

        `given` is what people have said so far, which a critic that needs no people ignores.
        VerdictsWanted while it waits for more.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """What training left behind."""

    model_path: Path
    """Whole weights, adapter merged, as safetensors: the next policy."""
    adapter_path: Path
    metrics: dict[str, float]
    """Final figures: `loss`, `margin`, `reward_accuracy`, `num_steps`, ..."""
    history: list[dict[str, float]]
    """One row for each logged optimiser step."""


class Trainer(Protocol):
    """Updates a policy from a table: its module's `READS` says which."""

    def train(
        self,
        *,
        policy: PolicyRef,
        data_path: Path,
        output_dir: Path,
        seed: int,
        progress: Progress,
        checkpoint_dir: Path | None = None,
    ) -> TrainingResult:
        """Train on the Parquet files under `data_path`; a reference, if any, is `policy` itself.

        A trainer may keep checkpoints in `checkpoint_dir`, a folder of its own outside
        `output_dir`: a call with the same inputs then goes on from the newest, and gives
        what an undisturbed one gives. The caller removes the folder when it has the result.
        NumericalError when a loss or gradient is not finite; nothing is left under
        `output_dir` or `checkpoint_dir` then.
        """

    def score(
        self, model_path: str, prompts: Sequence[Prompt], token_ids: Sequence[Sequence[int]]
    ) -> list[tuple[float, ...]]:
        """Like `Sampler.score`, by the trainer's own forward pass: what the probe compares with."""


class Benchmark(Protocol):
    """Asks the policy questions on held-out images and scores its answers."""

    @property
    def max_response_tokens(self) -> int:
        """Where a greedy answer is cut."""

    @property
    def describe_first(self) -> str | None:
        """What asks for a description of the image, which then stands before each question; None
        asks the questions alone.
        """

    def prompts(self) -> Sequence[Prompt]:
        """What is asked, in a fixed order."""

    def label_queries(self) -> Sequence[LabelQuery]:
        """Whose labels' probabilities are asked for besides; none for most benchmarks."""

    def evaluate(
        self,
        responses: Sequence[GeneratedResponse],
        label_logprobs: Sequence[tuple[float, ...]] = (),
    ) -> dict[str, float]:
        """Metrics from one greedy response for each prompt, in prompt order.

        `label_logprobs` has one tuple for each label query, with one value a label, in nats.
        """

    def outcomes(
        self,
        responses: Sequence[GeneratedResponse],
        label_logprobs: Sequence[tuple[float, ...]] = (),
    ) -> Sequence[Outcome]:
        """What each response adds to the figures, for intervals and paired tests."""


Metrics = dict[str, float]
Json = dict[str, Any]
