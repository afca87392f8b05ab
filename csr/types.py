"""The nouns: plain data that travels between stages.

Every type is a frozen, keyword-only dataclass of plain Python values: no torch,
no arrays. Log-probabilities are natural logs. The examples follow one prompt
through the pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from csr.skip_reasons import SkipReason as SkipReason


class FinishReason(StrEnum):
    """Why a step stopped."""

    STEP = "step"  # a sentence ended
    EOS = "eos"  # the response ended
    CUT = "cut"  # the step's own token limit; the next step goes on
    LENGTH = "length"  # the response or the model's context is full


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRef:
    """An image by content.

    Example: `ImageRef(uri="/data/coco/000000000042.jpg", sha256="9f86d0...")`
    """

    uri: str
    """Absolute path of the file."""
    sha256: str
    """Hex digest of the file's bytes; the identity of the image."""
    corruption: str | None = None
    """A name of `csr.corruptions`, applied after decoding; None is the clean image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One image and what is asked of it, without any image marker or template.

    Example: `Prompt(prompt_id="42", text="Describe the image.", image=...)`
    """

    prompt_id: str
    text: str
    image: ImageRef
    reference: str | None = None
    dataset: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRef:
    """Which weights speak.

    Example: `PolicyRef(name="tiny/01", model_path="runs/tiny/.../policy", sha256="ab12...",
    iteration=1)`
    """

    name: str
    model_path: str
    """Directory or hub id of whole weights (an adapter is merged before it samples)."""
    sha256: str
    """Digest over the weight files; equal digests are equal weights."""
    iteration: int
    """0 is the base model."""
    adapter_path: str | None = None
    """The LoRA adapter which, applied to the previous policy, gives this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCandidate:
    """One sampled next step. Its token ids are kept: nothing is ever re-tokenised.

    Example: `StepCandidate(text=" A red circle is at the top left.", token_ids=(14, 9, 31),
    token_logprobs=(-0.1, -0.7, -0.2), finish_reason=FinishReason.STEP)`

    A bare end of response has text "" and only the EOS token in `token_ids`.
    """

    text: str
    token_ids: tuple[int, ...]
    token_logprobs: tuple[float, ...]
    """Raw model log-probabilities (temperature 1, nats), one per token id."""
    finish_reason: FinishReason

    @property
    def has_words(self) -> bool:
        """Whether the step says anything: it holds a letter or a digit."""
        return any(map(str.isalnum, self.text))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRequest:
    """What a sampler is asked: continue `prefix` for `prompt`."""

    prompt: Prompt
    prefix: tuple[StepCandidate, ...] = ()
    seed: int = 0
    """Seeds this request alone, so results do not depend on batch or order."""

    @property
    def prefix_token_ids(self) -> tuple[int, ...]:
        """The response's token ids so far."""
        return tuple(token_id for step in self.prefix for token_id in step.token_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepGroup:
    """The candidates that share one prefix: what a `StepScorer` scores together."""

    prompt: Prompt
    prefix: tuple[StepCandidate, ...]
    candidates: tuple[StepCandidate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepScore:
    """A step's reward and the parts it was made of.

    Example: `StepScore(reward=0.81, breakdown={"likelihood": -0.4, "image_similarity": 27.5,
    "redundancy": 0.31, "likelihood_calibrated": 0.2, "image_similarity_calibrated": 0.88})`
    """

    reward: float
    breakdown: dict[str, float]
    """Raw parts under their own names, calibrated ones with the suffix `_calibrated`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNode:
    """One row of a response tree. The root is implicit: first steps have `parent_id` None.

    Example: `StepNode(node_id="42/0.2", parent_id="42/0", depth=2, step=..., score=...,
    cumulative_reward=1.3, kept=True)`
    """

    node_id: str
    """`<prompt_id>/<child index>.<child index>...`, so the id is the path from the root."""
    parent_id: str | None
    depth: int
    """1 for a first sentence."""
    step: StepCandidate
    score: StepScore
    cumulative_reward: float
    """The search's running score of the path that ends here."""
    kept: bool
    """Whether the search expanded it, or keeps it as a finished response."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseTree:
    """All that was sampled for one prompt. A source without steps returns depth one."""

    prompt: Prompt
    policy: str
    """`PolicyRef.name` of the policy that sampled it."""
    origin: str
    """The source's name, e.g. "csr"."""
    nodes: tuple[StepNode, ...]
    skipped: dict[str, int] = field(default_factory=dict)
    """`SkipReason` -> count of candidates dropped before they became nodes."""

    def path(self, node_id: str) -> tuple[StepNode, ...]:
        """The nodes from the first sentence to `node_id`. KeyError on an unknown id."""
        by_id = {node.node_id: node for node in self.nodes}
        steps: list[StepNode] = []
        cursor: str | None = node_id
        while cursor is not None:
            steps.append(by_id[cursor])
            cursor = by_id[cursor].parent_id
        return tuple(reversed(steps))

    def leaves(self) -> tuple[StepNode, ...]:
        """Nodes without children, in stored order."""
        parents = {node.parent_id for node in self.nodes}
        return tuple(node for node in self.nodes if node.node_id not in parents)

    def finished(self) -> tuple[StepNode, ...]:
        """Nodes where the response ended by EOS."""
        return tuple(n for n in self.nodes if n.step.finish_reason is FinishReason.EOS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredResponse:
    """A root-to-leaf path as one response.

    Example: `ScoredResponse(response_id="42/0.2.1", prompt_id="42", text="A red circle ...",
    token_ids=(...), num_steps=3, num_tokens=27, sum_logprob=-9.3, reward=2.1, breakdown={...},
    finish_reason=FinishReason.EOS, origin="csr")`
    """

    response_id: str
    """The leaf's node id."""
    prompt_id: str
    text: str
    """The text without special tokens, outer white space removed."""
    token_ids: tuple[int, ...]
    num_steps: int
    """Sentences; a bare EOS is not one."""
    num_tokens: int
    sum_logprob: float
    reward: float
    breakdown: dict[str, float]
    """Means over the path's sentences of the steps' breakdown values."""
    finish_reason: FinishReason
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencePair:
    """A chosen and a rejected response to one prompt.

    Example: `PreferencePair(pair_id="42#0", prompt=..., chosen=..., rejected=..., margin=1.4,
    source="csr")`
    """

    pair_id: str
    prompt: Prompt
    chosen: ScoredResponse
    rejected: ScoredResponse
    margin: float
    """`chosen.reward - rejected.reward`."""
    source: str
    rejected_image: ImageRef | None = None
    """The image the rejected side saw where it differs; None means the prompt's own."""


REPLAY = "replay"
"""The `kind` of a demonstration that only keeps an older ability alive: its prompt yielded it no
more than any other would have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """A prompt and a response to imitate.

    Example: `Demonstration(demonstration_id="42/3", prompt=..., text="A red circle ...",
    token_ids=(...), weight=1.0, kind="rationale", source="illume")`
    """

    demonstration_id: str
    """Unique in an iteration's table; of a sampled response the leaf's node id."""
    prompt: Prompt
    """What is asked; its `prompt_id` is that of the run's prompt it comes from."""
    text: str
    token_ids: tuple[int, ...] | None
    """As they were sampled, the end included; None for a text that nobody sampled: the trainer
    writes it by the model's chat template."""
    weight: float
    """Of its loss."""
    kind: str
    """What it teaches, e.g. "rationale" or "answer"."""
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PairingResult:
    """What pairing made of a set of trees: prompts in = prompts that yield something + skipped."""

    pairs: tuple[PreferencePair, ...]
    responses: tuple[ScoredResponse, ...]
    skipped: dict[str, int]
    """`SkipReason` -> number of prompts that yield neither pair nor demonstration."""
    demonstrations: tuple[Demonstration, ...] = ()
    """Of the trees' prompts, each with the prompt's own id."""
    figures: dict[str, float] = field(default_factory=dict)
    """What else the source can tell of these trees, by metric name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelQuery:
    """How likely a policy gives each of a closed question's labels.

    Example: `LabelQuery(prompt=..., forms=((" Yes", "Yes"), (" No", "No")), with_image=False)`
    """

    prompt: Prompt
    forms: tuple[tuple[str, ...], ...]
    """For each label the texts that a response giving it may begin with."""
    with_image: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedResponse:
    """A whole response sampled in one go, as evaluation needs it."""

    prompt_id: str
    text: str
    token_ids: tuple[int, ...]
    token_logprobs: tuple[float, ...]
    finish_reason: FinishReason
