"""What a component can tell of its work before anything runs: the words of `csr plan`.

A component's module may offer one function, and knows best what it asks of an engine:

- a source: `planned_work(config, expected) -> PlannedWork`
- a sampler: `planned_engine(config) -> PlannedEngine`
- a trainer: `planned_training(config, num_lessons) -> PlannedTraining`
- a similarity: `planned_similarity(config) -> PlannedSimilarity | None`
- a benchmark: `planned_questions(config, expected) -> PlannedQuestions`

Where there is none, the plan says so and counts nothing for it. All figures are means a prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Shared = Literal["nothing", "image", "prompt"]
"""What a call has in common with those before it for the same prompt, from the first token on:
nothing (another image, or none), the image (another question about it), or all of the prompt."""

CHARACTERS_PER_TOKEN = 4.0
"""Of English text in the vocabularies of current models; for texts that a recipe holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedResponse:
    """How long a whole response is taken to be."""

    num_sentences: int
    tokens_per_sentence: float

    @property
    def num_tokens(self) -> float:
        """Of all sentences."""
        return self.num_sentences * self.tokens_per_sentence

    def cut(self, max_tokens: int) -> float:
        """Tokens of a response that may have `max_tokens`."""
        return min(self.num_tokens, max_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCall:
    """One call of the sampler over many prompts, as far as one prompt goes."""

    name: str
    num_contexts: float = 1.0
    """Texts that are continued or scored: prompt, and response so far."""
    num_candidates: int = 1
    """Continuations of each context."""
    generated_tokens: float = 0.0
    """Of each candidate; 0 where given tokens are scored alone."""
    prefix_tokens: float = 0.0
    """Tokens of the response so far, in each context; where tokens are scored, those."""
    distinct_prefix_tokens: float = 0.0
    """The same over all contexts, with what they share counted once."""
    question_tokens: float | None = None
    """Prompt tokens beside the image; None is the prompt's own."""
    num_questions: float = 1.0
    """Different questions among the contexts; below 1 where some prompts are left out."""
    shared: Shared = "prompt"
    prefix_known: bool = True
    """Whether the prefix was sampled behind this very prompt, so that a cache may have it."""
    with_image: bool = True

    @property
    def num_sequences(self) -> float:
        """Candidates of all contexts."""
        return self.num_contexts * self.num_candidates

    @property
    def all_generated_tokens(self) -> float:
        """Of all candidates of all contexts."""
        return self.num_sequences * self.generated_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedWork:
    """What a source asks of the engine for one prompt, and what it makes of the answers."""

    calls: tuple[PlannedCall, ...]
    """In order."""
    in_waves: bool = False
    """Whether prompts go through their calls each by itself, as many at once as the cache holds.
    Else a call goes over all prompts of a shard before the next begins."""
    num_compared_texts: float = 0.0
    """Texts that a similarity compares with the prompt's image."""
    num_nodes: float
    """Rows of the table `nodes`."""
    node_tokens: float
    """Tokens of each."""
    num_responses: float
    """Rows of the table `responses`."""
    max_lessons: float = 1.0
    """Pairs or demonstrations to train on, at most."""
    lesson_tokens: float
    """Response tokens of one side of a pair, or of a demonstration."""
    lesson_extra_tokens: float = 0.0
    """Of a lesson's prompt, beyond the prompt's own."""
    notes: tuple[str, ...] = ()
    """What is assumed, or left out, one sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCache:
    """A KV cache that keeps what was read."""

    num_bytes: float | None
    """None is what the engine's share of GPU memory leaves beside the weights."""
    block_tokens: int
    """What is kept is kept in whole blocks of tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedEngine:
    """How a sampler uses its GPU."""

    dtype: str
    """"auto" is the checkpoint's own."""
    num_gpus: int = 1
    num_gpus_setting: str = ""
    """The component's setting that decides it; empty where none does."""
    num_engines: int = 1
    """That share one shard's requests, each with the whole policy on `num_gpus`."""
    is_running: bool = False
    """Whether it runs before the pipeline starts, on machines of its own, so that nothing waits
    for its start."""
    num_views: int = 1
    """Passes for each token, as with a contrast of several inputs."""
    max_sequences: int
    """That decode at once."""
    max_batch_requests: int | None = None
    """Requests whose decoded images are held at once; None: as many as sequences."""
    memory_share: float = 1.0
    """Fraction of GPU memory for weights and KV cache together."""
    cache: PlannedCache | None = None
    """None where nothing read for one call is kept for the next."""
    cpu_cache: PlannedCache | None = None
    """The same where there is no GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTraining:
    """What a trainer does with its lessons."""

    num_updates: float
    """Lessons that pass in all, repetitions counted."""
    num_reference_rows: float
    """Lessons that pass once before, without a gradient."""
    sequences: float
    """Of a lesson with a gradient: two for a pair, one for a demonstration."""
    reference_sequences: float
    """Of a lesson in the pass before."""
    batch_size: int
    """Lessons in one forward pass of one process."""
    num_processes: int = 1
    num_processes_setting: str = ""
    """The component's setting that decides it."""
    is_sharded: bool = False
    """Whether each process holds a part of the weights alone."""
    lora_rank: int
    gradient_checkpointing: bool
    checkpointing_setting: str = ""
    dtype: str
    """Of the frozen weights; "auto" as stored, float16 widened to float32."""
    dtype_setting: str = ""
    num_checkpoints: int = 0
    """Kept while it trains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSimilarity:
    """An image-text model."""

    flops_per_image: float
    flops_per_text: float
    num_parameters: float
    dtype: str
    dtype_setting: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedQuestions:
    """What a benchmark asks."""

    num_prompts: int | None
    """None where its file is not here."""
    calls: tuple[PlannedCall, ...]
    """For each prompt."""


def num_distinct_parents(num_parents: int, num_children: int, num_chosen: float) -> float:
    """Mean number of parents of `num_chosen` nodes drawn at random from all their children.

    Each parent has `num_children`. A parent is missed with the chance C(all - own, chosen) /
    C(all, chosen) that none of its own is drawn; a mean number of draws need not be whole.

    Example: of 3 parents with 5 children each, 3 draws hit 3 (1 - 120/455) = 2.21.
    """
    others = num_children * (num_parents - 1)
    if num_chosen > others:
        return float(num_parents)
    missed = _log_choose(others, num_chosen) - _log_choose(others + num_children, num_chosen)
    return num_parents * (1.0 - math.exp(missed))


def _log_choose(among: float, chosen: float) -> float:
    return math.lgamma(among + 1) - math.lgamma(chosen + 1) - math.lgamma(among - chosen + 1)


def tree_calls(
    expected: ExpectedResponse,
    *,
    num_candidates: int,
    num_kept: int,
    max_steps: int,
    max_step_tokens: int,
    max_response_tokens: int,
) -> tuple[PlannedCall, ...]:
    """The levels of a tree whose `num_kept` nodes of each level get `num_candidates` children.

    Nodes of a level share ancestors as nodes drawn at random would.
    """
    step_tokens = min(expected.tokens_per_sentence, max_step_tokens)
    most_steps = math.ceil(max_response_tokens / step_tokens)
    levels = min(expected.num_sentences, max_steps, most_steps)
    calls: list[PlannedCall] = []
    opened: list[int] = [1]  # contexts of each level so far
    for level in range(levels):
        distinct = _distinct_ancestors(opened, num_candidates) * step_tokens
        calls.append(
            PlannedCall(
                name=f"level {level + 1}",
                num_contexts=opened[-1],
                num_candidates=num_candidates,
                generated_tokens=step_tokens,
                prefix_tokens=level * step_tokens,
                distinct_prefix_tokens=distinct,
            )
        )
        opened.append(min(num_kept, opened[-1] * num_candidates))
    return tuple(calls)


def _distinct_ancestors(opened: Sequence[int], num_candidates: int) -> float:
    """Sentences in the prefixes of the newest level's contexts, shared ones counted once."""
    total, nodes = 0.0, float(opened[-1])
    for parents in reversed(opened[:-1]):
        total += nodes
        nodes = num_distinct_parents(parents, num_candidates, nodes)
    return total


def encoder_flops(*, num_layers: int, width: int, mlp_width: int, num_tokens: float) -> float:
    """FLOPs of a transformer's encoder on one input: matrix products, and attention to all tokens.

    A layer has four width x width matrices, and two of width x mlp_width.
    """
    matrices = num_layers * encoder_layer_parameters(width, mlp_width)
    return 2 * matrices * num_tokens + 4 * num_layers * width * num_tokens**2


def encoder_layer_parameters(width: int, mlp_width: int) -> int:
    """Weights of a layer's matrices."""
    return 4 * width * width + 2 * width * mlp_width


def text_tokens(text: str) -> float:
    """About how many tokens a recipe's text has."""
    return len(text) / CHARACTERS_PER_TOKEN


def scoring_call(name: str, num_texts: float, num_tokens: float, **more: Any) -> PlannedCall:
    """One call that scores given texts, of which the engine has seen none behind its prompt."""
    return PlannedCall(
        name=name,
        num_contexts=num_texts,
        prefix_tokens=num_tokens,
        distinct_prefix_tokens=num_texts * num_tokens,
        prefix_known=False,
        **more,
    )
