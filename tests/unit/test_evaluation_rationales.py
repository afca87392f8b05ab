"""The likeness of rationales to their references, by hand."""

import json

import pytest
from PIL import Image

from csr.errors import DataError
from csr.evaluation import rationales
from csr.types import FinishReason, GeneratedResponse


@pytest.fixture
def write(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")

    def config(*extras):
        lines = [
            {"id": str(n), "image": "a.png", "input": "Why?", **extra}
            for n, extra in enumerate(extras)
        ]
        path = tmp_path / "rationales.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return rationales.Config(prompts=str(path), images=str(tmp_path))

    return config


def response(number, text, reason=FinishReason.EOS):
    return GeneratedResponse(
        prompt_id=str(number),
        text=text,
        token_ids=tuple(range(len(text.split()))),
        token_logprobs=(-0.1,) * len(text.split()),
        finish_reason=reason,
    )


def test_the_best_of_several_references_counts(write):
    benchmark = rationales.build(
        write({"reference": "a red ring"}, {"references": ["a blue ring", "the sky"]})
    )
    assert [prompt.text for prompt in benchmark.prompts()] == ["Why?", "Why?"]
    figures = benchmark.evaluate(
        [response(0, "A red ring."), response(1, "a red ring", FinishReason.LENGTH)]
    )
    assert figures == {
        "rationale_rouge_l": pytest.approx((1 + 2 / 3) / 2),
        "rationale_match_share": 0.5,
        "mean_rationale_tokens": 3.0,
        "rationale_truncated_share": 0.5,
    }


@pytest.mark.parametrize("extra", [{}, {"reference": " "}, {"references": []}])
def test_a_record_without_a_reference_is_refused(write, extra):
    with pytest.raises(DataError, match="record '0': it has no `reference`"):
        rationales.build(write(extra)).prompts()
