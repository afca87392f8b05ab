"""Batches for the transformers sampler: rows that grow together, and rows that are scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from csr import rendering
from csr.protocols import StepRule
from csr.samplers._contrast import Contrast, contrasted, views
from csr.samplers._loading import load_complete
from csr.samplers._shared import (
    ImageCache,
    TokenLimits,
    check_tokens,
    decoded,
    finish_reason,
)
from csr.types import FinishReason, Prompt, StepRequest

if TYPE_CHECKING:
    import torch

_LEAST_NOISE = 1e-30
"""Keeps the logarithm of an exponential draw finite."""


@dataclass(slots=True)
class Row:
    """A candidate while it grows."""

    request: StepRequest
    limits: TokenLimits
    seed: int
    first_rank: int = 0
    """Which of the likeliest first tokens a greedy row takes; 0 is the best."""
    prefix_text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: str = ""
    reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A model with what belongs to it."""

    model: Any
    processor: Any
    eos_ids: frozenset[int]
    media_ids: tuple[int, ...]
    max_context_tokens: int
    images: ImageCache

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `Sampler.decode`."""
        return decoded(self.processor, token_ids)

    def prompt_length(self, prompt: Prompt, *, with_image: bool = True) -> int:
        """Tokens of the prompt with its image expanded."""
        image = self.images.load(prompt.image) if with_image else None
        inputs = rendering.expanded_inputs(self.processor, [prompt.text], [image])
        return len(inputs["input_ids"][0])


def load_model(model_path: str, dtype: str, device: str) -> Any:
    """The model in evaluation mode, without sampling settings of its own. ModelError if not."""
    import torch
    from transformers import GenerationConfig

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_complete(model_path, dtype=dtype)
    # A checkpoint's own penalties or suppressed tokens would enter the raw log-probabilities.
    model.generation_config = GenerationConfig()
    return model.to(device).eval()


def grow(
    policy: LoadedPolicy,
    rows: Sequence[Row],
    *,
    temperature: float,
    top_p: float,
    rule: StepRule | None,
    contrast: Contrast | None = None,
) -> int:
    """Continue all rows to their ends in one batch; with `rule` None, to the response's end.

    With `contrast` the batch holds the rows' content-free views too. Returns how many prompt and
    prefix tokens were read.
    """
    import torch
    from transformers import LogitsProcessorList, StoppingCriteriaList

    prompts, with_image = views([row.request.prompt for row in rows], contrast)
    prefixes = [row.request.prefix_token_ids for row in rows] * (len(prompts) // len(rows))
    inputs, lengths = _model_inputs(policy, prompts, with_image, prefixes, left=True)
    choice = _Choice(policy, rows, temperature, top_p, rule, contrast)
    with torch.inference_mode():
        policy.model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=max(row.limits.next for row in rows),
            eos_token_id=sorted(policy.eos_ids),
            pad_token_id=_pad_id(policy),
            logits_processor=LogitsProcessorList([choice]),
            stopping_criteria=StoppingCriteriaList([_RowsAreOver(rows)]),
        )
    assert all(row.reason is not None for row in rows), "a row has no limit left only when over"
    return sum(lengths) + sum(map(len, prefixes))


def score(
    policy: LoadedPolicy,
    prompts: Sequence[Prompt],
    responses: Sequence[Sequence[int]],
    *,
    with_image: bool = True,
) -> list[tuple[float, ...]]:
    """Raw log-probabilities of the responses' tokens, in one forward pass.

    Padded on the right, so that positions are those of the sequence alone.
    """
    import torch

    inputs, starts = _model_inputs(
        policy, prompts, [with_image] * len(prompts), responses, left=False
    )
    total = inputs["input_ids"].shape[1]
    kept = total - min(starts) + 1  # the logits before a token are those that speak of it
    with torch.inference_mode():
        logits = policy.model(**inputs, logits_to_keep=kept).logits
    first = total - logits.shape[1]
    scores = []
    for row, (start, response) in enumerate(zip(starts, responses, strict=True)):
        here = logits[row, start - 1 - first : start - 1 - first + len(response)].float()
        ids = torch.tensor(response, dtype=torch.long, device=here.device)
        values = here.log_softmax(-1).gather(1, ids[:, None])[:, 0].tolist()
        check_tokens(response, values, media_ids=())
        scores.append(tuple(values))
    return scores


class _Choice:
    """A logits processor that chooses each row's next token, so that its raw value is at hand."""

    def __init__(
        self,
        policy: LoadedPolicy,
        rows: Sequence[Row],
        temperature: float,
        top_p: float,
        rule: StepRule | None,
        contrast: Contrast | None,
    ) -> None:
        import torch

        self._policy, self._rows, self._rule = policy, rows, rule
        self._contrast = contrast
        self._temperature, self._top_p = temperature, top_p
        self._generators = [torch.Generator().manual_seed(row.seed) for row in rows]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores`: raw logits [rows, vocabulary], the content-free views' behind the rows' own.

        Returns scores that allow the choice alone, in every view of a row.
        """
        logprobs = scores[: len(self._rows)].float().log_softmax(-1)
        allowed = self._choosable(scores, logprobs)
        chosen = self._greedy(allowed) if self._temperature == 0 else self._drawn(allowed)
        values = logprobs.gather(1, chosen[:, None])[:, 0].tolist()
        for row, token_id, value in zip(self._rows, chosen.tolist(), values, strict=True):
            if row.reason is None:
                self._take(row, token_id, value)
        everywhere = chosen.repeat(len(scores) // len(chosen))
        return scores.new_full(scores.shape, float("-inf")).scatter(1, everywhere[:, None], 0.0)

    def _choosable(self, scores: torch.Tensor, logprobs: torch.Tensor) -> torch.Tensor:
        """What to choose by: the raw log-probabilities unless contrasted, no media marker."""
        import torch

        allowed = logprobs.clone()
        allowed[:, list(self._policy.media_ids)] = float("-inf")
        if self._contrast is None:
            return allowed
        both = torch.cat([allowed, scores[len(allowed) :].float().log_softmax(-1)])
        return contrasted(both, len(allowed), self._contrast).log_softmax(-1)

    def _greedy(self, allowed: torch.Tensor) -> torch.Tensor:
        best = allowed.argmax(-1)
        for index, row in enumerate(self._rows):
            if row.first_rank and not row.token_ids:
                best[index] = allowed[index].sort(descending=True, stable=True)[1][row.first_rank]
        return best

    def _drawn(self, allowed: torch.Tensor) -> torch.Tensor:
        """An exact sample of each row's tempered nucleus, by the row's own noise."""
        import torch

        warped = _nucleus(allowed / self._temperature, self._top_p)
        noise = torch.ones(warped.shape)
        for index, (row, generator) in enumerate(zip(self._rows, self._generators, strict=True)):
            if row.reason is None:
                noise[index].exponential_(generator=generator)
        gumbel = -noise.clamp_min(_LEAST_NOISE).log()
        return (warped + gumbel.to(warped.device)).argmax(-1)

    def _take(self, row: Row, token_id: int, value: float) -> None:
        check_tokens([token_id], [value], media_ids=self._policy.media_ids)
        row.token_ids.append(token_id)
        row.logprobs.append(value)
        at_eos = token_id in self._policy.eos_ids
        left = row.limits.after(len(row.token_ids))
        if self._rule is None:
            row.reason = _response_reason(at_eos, left)
            return
        whole = self._policy.decode([*row.request.prefix_token_ids, *row.token_ids])
        row.text = whole[len(row.prefix_text) :]
        row.reason = finish_reason(
            row.text, prefix_text=row.prefix_text, at_eos=at_eos, rule=self._rule, left=left
        )


class _RowsAreOver:
    """A stopping criterion: which rows are over."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __call__(self, input_ids: torch.Tensor, scores: Any, **unused: Any) -> torch.Tensor:
        import torch

        over = [row.reason is not None for row in self._rows]
        over *= len(input_ids) // len(over)
        return torch.tensor(over, dtype=torch.bool, device=input_ids.device)


def _response_reason(at_eos: bool, left: TokenLimits) -> FinishReason | None:
    if at_eos:
        return FinishReason.EOS
    return FinishReason.LENGTH if left.response <= 0 else None


def _nucleus(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """Logits [rows, vocabulary] with -inf outside the smallest set of probability `top_p`."""
    if top_p >= 1:
        return logits
    ranked, order = logits.sort(descending=True, stable=True)
    probabilities = ranked.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    ranked = ranked.masked_fill(before >= top_p, float("-inf"))
    return logits.scatter(1, order, ranked)


def _model_inputs(
    policy: LoadedPolicy,
    prompts: Sequence[Prompt],
    with_image: Sequence[bool],
    responses: Sequence[Sequence[int]],
    *,
    left: bool,
) -> tuple[dict[str, torch.Tensor], list[int]]:
    """Padded inputs of prompt + response rows, and each row's number of prompt tokens."""
    texts = [prompt.text for prompt in prompts]
    images = [
        policy.images.load(prompt.image) if sees else None
        for prompt, sees in zip(prompts, with_image, strict=True)
    ]
    parts = rendering.expanded_inputs(policy.processor, texts, images)
    lengths = [len(ids) for ids in parts["input_ids"]]
    device, dtype = policy.model.device, policy.model.dtype
    batch = {}
    for name, part in parts.items():
        if isinstance(part, list):  # one value a token: the response has plain text, type 0
            tail = responses if name == "input_ids" else [[0] * len(ids) for ids in responses]
            rows = [[*row, *more] for row, more in zip(part, tail, strict=True)]
            fill = _pad_id(policy) if name == "input_ids" else 0
            batch[name] = _padded(rows, fill, left).to(device)
        else:
            batch[name] = part.to(device, dtype) if part.is_floating_point() else part.to(device)
    ones = [[1] * (n + len(ids)) for n, ids in zip(lengths, responses, strict=True)]
    batch["attention_mask"] = _padded(ones, 0, left).to(device)
    return batch, lengths


def _padded(rows: Sequence[Sequence[int]], fill: int, left: bool) -> torch.Tensor:
    import torch

    width = max(map(len, rows))
    pads = [[fill] * (width - len(row)) for row in rows]
    return torch.tensor(
        [[*pad, *row] if left else [*row, *pad] for row, pad in zip(rows, pads, strict=True)]
    )


def _pad_id(policy: LoadedPolicy) -> int:
    pad = policy.processor.tokenizer.pad_token_id
    return min(policy.eos_ids) if pad is None else int(pad)
