"""What every benchmark of captions does with them, whatever the ground truth is."""

from __future__ import annotations

from collections.abc import Sequence

from csr.evaluation._diversity import diversity_metrics
from csr.steps import split_steps, step_end
from csr.types import FinishReason, GeneratedResponse


def scored_sentences(response: GeneratedResponse, *, drop_unfinished: bool) -> list[str]:
    """A response's sentences, without the last where the token limit cut it short.

    What holds no letter or digit is not a sentence.
    """
    sentences = split_steps(response.text, "sentence")
    if drop_unfinished and sentences and response.finish_reason is FinishReason.LENGTH:
        *before, last = sentences
        if step_end(last, "sentence", "".join(before)) is None:
            sentences = before
    return [sentence for sentence in sentences if any(map(str.isalnum, sentence))]


def caption_figures(
    responses: Sequence[GeneratedResponse], captions: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Lengths and diversity of responses whose scored sentences are `captions`.

    `mean_response_tokens` counts whole responses with their end token, and is absent where tokens
    are not known, as of captions that come from a file; `truncated_share` is too.
    """
    metrics = diversity_metrics(captions)
    if knows_tokens(responses):
        cut = sum(response.finish_reason is FinishReason.LENGTH for response in responses)
        metrics["mean_response_tokens"] = sum(len(r.token_ids) for r in responses) / len(responses)
        metrics["truncated_share"] = cut / len(responses)
    metrics["num_captions"] = float(len(responses))
    return metrics


def length_ratios(
    response: GeneratedResponse, sentences: Sequence[str], *, with_tokens: bool
) -> list[tuple[str, float, float]]:
    """One response's part in the mean lengths."""
    lengths: list[tuple[str, float, float]] = [("mean_response_sentences", len(sentences), 1)]
    if with_tokens:
        lengths.append(("mean_response_tokens", len(response.token_ids), 1))
    return lengths


def knows_tokens(responses: Sequence[GeneratedResponse]) -> bool:
    """Whether an engine made the responses: each then has its end token at least."""
    return any(response.token_ids for response in responses)
