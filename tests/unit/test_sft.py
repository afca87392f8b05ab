"""The loss of a demonstration, by hand."""

import math

import pytest
import torch

from csr.trainers._sft import response_losses


def test_only_the_responses_tokens_count_each_by_the_logits_before_it():
    """Two rows over a vocabulary of two; the second response is one token shorter."""
    third, two_thirds = math.log(1.0), math.log(2.0)  # p = 1/3 and 2/3
    logits = torch.tensor(
        [
            [[9.0, 0.0], [third, two_thirds], [two_thirds, third], [0.0, 9.0]],
            [[9.0, 0.0], [third, two_thirds], [5.0, 5.0], [0.0, 9.0]],
        ]
    )
    token_ids = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 1]])
    mask = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 0]])
    found = response_losses(logits, token_ids, mask)
    assert found.tolist() == pytest.approx(
        [-(math.log(2 / 3) + math.log(1 / 3)) / 2, -math.log(1 / 3)]
    )
