"""The arithmetic of visual debias decoding, by hand."""

import math

import pytest
import torch
from pydantic import ValidationError

from csr.errors import ConfigError
from csr.protocols import StepSettings
from csr.samplers import transformers
from csr.samplers._contrast import Contrast, contrasted, views
from csr.types import StepRequest
from tests.trees import make_prompt

NEVER = float("-inf")


def test_contrasted_by_hand():
    seeing, free = [2.0, 1.0, 0.0], [3.0, 0.0, 0.0]
    # alpha 0.5: 1.5 x seeing - 0.5 x free
    found = contrasted(torch.tensor([seeing, free]), 1, Contrast(alpha=0.5, beta=0))
    assert found.tolist() == [[1.5, 1.5, 0.0]]
    # alpha 1: 2 x seeing - free: the habit's own favourite is no longer first
    found = contrasted(torch.tensor([seeing, free]), 1, Contrast(alpha=1, beta=0))
    assert found.tolist() == [[1.0, 2.0, 0.0]]


def test_beta_forbids_what_the_image_makes_unlikely():
    """1 below the best is a share of 0.37, 2 below 0.14, 3 below 0.05."""
    seeing, free = [0.0, -1.0, -2.0, -3.0], [0.0, 0.0, -9.0, -9.0]
    found = contrasted(torch.tensor([seeing, free]), 1, Contrast(alpha=1, beta=0.1))
    assert found.tolist() == [[0.0, -2.0, 5.0, NEVER]]
    found = contrasted(torch.tensor([seeing, free]), 1, Contrast(alpha=1, beta=0.2))
    assert found.tolist() == [[0.0, -2.0, NEVER, NEVER]]
    found = contrasted(torch.tensor([seeing, free]), 1, Contrast(alpha=1, beta=1))
    assert found.tolist() == [[0.0, NEVER, NEVER, NEVER]]


def test_two_views_count_by_the_mean_of_their_logits_row_by_row():
    rows = torch.tensor([[1.0, 0.0], [5.0, 5.0], [4.0, 0.0], [0.0, 8.0], [0.0, 2.0], [2.0, 0.0]])
    found = contrasted(rows, 2, Contrast(content_free="both", alpha=1, beta=0))
    # views of row 0: [4, 0] and [0, 2]; of row 1: [0, 8] and [2, 0]
    assert found.tolist() == [[2 - 2, 0 - 1], [10 - 1, 10 - 4]]


def test_alpha_zero_changes_nothing():
    rows = torch.randn(6, 9, generator=torch.Generator().manual_seed(1))
    for kind, num in (("none", 3), ("both", 2)):
        found = contrasted(rows, num, Contrast(content_free=kind, alpha=0, beta=0))
        assert found.equal(rows[:num])


def test_views_stand_kind_by_kind():
    prompts = [make_prompt("a"), make_prompt("b")]
    assert views(prompts, None) == (prompts, [True, True])
    asked, with_image = views(prompts, Contrast(content_free="both"))
    assert [p.prompt_id for p in asked] == list("ababab")
    assert with_image == [True, True, False, False, True, True]
    assert [p.image.corruption for p in asked] == [None] * 4 + ["blank"] * 2


def test_what_cannot_work_is_refused():
    for wrong in ({"alpha": -1}, {"beta": 1.5}, {"beta": math.nan}, {"content_free": "unk"}):
        with pytest.raises(ValidationError):
            Contrast.model_validate(wrong)
    sampler = transformers.build(transformers.Config(contrast=Contrast()))
    settings = StepSettings(
        num_candidates=2, temperature=0.0, top_p=1.0, max_step_tokens=9, max_response_tokens=9,
        diversity="branch_first_token",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="fewer first tokens"):
        sampler.sample_steps([StepRequest(prompt=make_prompt())], settings)
