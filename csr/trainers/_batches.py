"""Builds model inputs from prompts, images and sampled token ids. Nothing is re-tokenised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from csr.rendering import expanded_inputs
from csr.trainers._pairs import TrainingPair, corrupted_pair_image, pair_image

if TYPE_CHECKING:
    from PIL.Image import Image

COMPLETION_MASK = "completion_mask"
PAIR_ROWS = "pair_rows"
CORRUPTED = "corrupted"
REFERENCE_COLUMNS = "reference_columns"


def response_batch(
    processor: Any,
    texts: Sequence[str],
    images: Sequence[Image],
    responses: Sequence[Sequence[int]],
) -> dict[str, Any]:
    """One padded batch for the model's forward, with a mask over the responses' tokens.

    `responses` may hold several rounds over the prompts: with n prompts, response i
    belongs to prompt i % n. The processor runs once a prompt. Returns tensors:
    `input_ids`, `attention_mask`, `completion_mask` and any other per-token entry as
    (len(responses), longest), right-padded; image entries repeated once a round. No
    token is ever cut: an image's tokens and its features always match.
    """
    import torch

    assert len(responses) % len(texts) == 0, "whole rounds over the prompts"
    rounds = len(responses) // len(texts)
    prompts = expanded_inputs(processor, texts, images)
    prompt_ids = prompts.pop("input_ids") * rounds
    batch: dict[str, Any] = {
        "input_ids": _padded(prompt_ids, responses, _pad_token_id(processor)),
        "attention_mask": _padded(_like(prompt_ids, 1), _like(responses, 1), 0),
        COMPLETION_MASK: _padded(_like(prompt_ids, 0), _like(responses, 1), 0),
    }
    for name, value in prompts.items():
        if isinstance(value, torch.Tensor):
            batch[name] = torch.cat([value] * rounds)
        else:  # one number a prompt token, such as Qwen's `mm_token_type_ids`; 0 is text
            batch[name] = _padded(list(value) * rounds, _like(responses, 0), 0)
    return batch


@dataclass
class PairCollator:
    """Turns dataset rows `{"row": i}` into the batch that TRL's DPO loss expects.

    The first half of a batch holds the chosen responses, the second the rejected ones.
    `pair_rows` says which pairs they are. With a corruption, `corrupted` is a batch of its own:
    the chosen responses with their corrupted images. These, and `reference_columns`, must be
    taken out before the forward.
    """

    processor: Any
    pairs: Sequence[TrainingPair]
    corruption: str | None = None
    """What is done to the images of `corrupted`; None where no term looks at them."""
    reference_logprobs: Sequence[tuple[float, ...]] | None = field(default=None)
    """(chosen, rejected) summed log-probability under the reference policy, nats, a pair; then
    what the image terms want of the reference (`ImageTerms.reference_columns`)."""

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        import torch

        rows = [example["row"] for example in examples]
        pairs = [self.pairs[row] for row in rows]
        batch = response_batch(
            self.processor,
            [pair.prompt_text for pair in pairs],
            [pair_image(pair) for pair in pairs],
            [pair.chosen_token_ids for pair in pairs] + [p.rejected_token_ids for p in pairs],
        )
        batch[PAIR_ROWS] = torch.tensor(rows)
        if self.corruption is not None:
            batch[CORRUPTED] = self._corrupted(pairs, self.corruption)
        if self.reference_logprobs is not None:
            known = torch.tensor([self.reference_logprobs[row] for row in rows])
            batch["ref_chosen_logps"], batch["ref_rejected_logps"] = known[:, 0], known[:, 1]
            batch[REFERENCE_COLUMNS] = known[:, 2:]
        return batch

    def _corrupted(self, pairs: Sequence[TrainingPair], corruption: str) -> dict[str, Any]:
        return response_batch(
            self.processor,
            [pair.prompt_text for pair in pairs],
            [corrupted_pair_image(pair, corruption) for pair in pairs],
            [pair.chosen_token_ids for pair in pairs],
        )


def _padded(heads: Sequence[Any], tails: Sequence[Sequence[int]], pad: int) -> Any:
    import torch

    rows = [[*head, *tail] for head, tail in zip(heads, tails, strict=True)]
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [pad] * (longest - len(row)) for row in rows])


def _like(rows: Sequence[Any], value: int) -> list[list[int]]:
    return [[value] * len(row) for row in rows]


def _pad_token_id(processor: Any) -> int:
    """Padding is masked everywhere; the id must only be a valid one."""
    tokenizer = processor.tokenizer
    token_id = tokenizer.pad_token_id
    return int(tokenizer.eos_token_id if token_id is None else token_id)
