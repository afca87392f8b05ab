"""STIC: careful against misled responses, descriptions before questions, and asking with one."""

from collections import Counter
from dataclasses import replace

import pytest

from csr.annotations import Evidence
from csr.descriptions import described, infused
from csr.errors import DataError
from csr.protocols import GenerateSettings, SourceTools
from csr.records import BadRecordError
from csr.sources import stic
from csr.types import FinishReason, GeneratedResponse, Prompt, SkipReason, StepRequest
from tests.trees import POLICY, make_prompt, no_progress

PROMPTS = [make_prompt(str(number), reference=f"answer {number}") for number in range(200)]


class Seeing:
    """Says what it was asked and what was done to the image; scores by the plain prompt alone."""

    def __init__(self, reason: FinishReason = FinishReason.EOS) -> None:
        self.asked: list[Prompt] = []
        self.scored: list[Prompt] = []
        self.settings: list[GenerateSettings] = []
        self.reason = reason

    def generate(
        self, requests: list[StepRequest], settings: GenerateSettings
    ) -> list[GeneratedResponse]:
        self.settings.append(settings)
        self.asked += [request.prompt for request in requests]
        return [
            GeneratedResponse(
                prompt_id=request.prompt.prompt_id,
                text=f"{request.prompt.text} {request.prompt.image.corruption}",
                token_ids=(7, 0),
                token_logprobs=(-9.0, -9.0),
                finish_reason=self.reason,
            )
            for request in requests
        ]

    def room(self, prompt: Prompt) -> int:
        return 100 if "longest" not in prompt.text else 2

    def score(self, prompts: list[Prompt], ids: list[object]) -> list[tuple[float, ...]]:
        self.scored += prompts
        return [(-1.0, -2.0) for _ in ids]


def tools(sampler: Seeing) -> SourceTools:
    return SourceTools(
        policy=POLICY, sampler=sampler, scorer=None, similarity=None, seed=3, progress=no_progress
    )


def test_half_are_misled_by_words_and_half_by_the_image() -> None:
    stage = stic.PreferenceStage(stic.Config(bad_prompts=("bad 1", "bad 2")))
    misled = [stage.misled(prompt, 3) for prompt in PROMPTS]
    kinds = Counter((each.text, each.image.corruption) for each in misled)
    plain = "Describe the image."
    assert set(kinds) == {
        ("bad 1", None), ("bad 2", None),
        (plain, "resize:20"), (plain, "colour_jitter:0.5:0.3"),
    }  # fmt: skip
    assert all(30 <= count <= 70 for count in kinds.values())
    again = stage.misled(PROMPTS[17], 3)  # whatever else is asked beside it
    assert again == misled[17]


def test_both_sides_are_responses_to_the_plain_prompt_and_the_clean_image() -> None:
    sampler = Seeing()
    source = stic.build(stic.Config(good_prompt="good", bad_prompts=("bad",)))
    trees = source.generate(PROMPTS[:8], tools(sampler))
    assert {settings.temperature for settings in sampler.settings} == {0.2}
    assert sampler.scored == PROMPTS[:8] * 2
    result = source.pair(trees, Evidence())
    assert len(result.pairs) == 8
    for pair, prompt in zip(result.pairs, PROMPTS, strict=False):
        assert pair.prompt == prompt
        assert pair.chosen.text == "good None"
        assert pair.rejected.text in (
            "bad None", "Describe the image. resize:20",
            "Describe the image. colour_jitter:0.5:0.3",
        )  # fmt: skip
        assert (pair.chosen.sum_logprob, pair.margin) == (-3.0, 1.0)
    corrupted = [tree.nodes[1].score.breakdown["corrupted"] for tree in trees]
    said = [":" in pair.rejected.text for pair in result.pairs]
    assert corrupted == [float(each) for each in said]


def test_equal_responses_are_counted() -> None:
    source = stic.build(stic.Config(good_prompt="same", bad_prompts=("bad",), bad_prompt_share=1.0))
    sampler = Seeing()
    trees = source.generate(PROMPTS[:2], tools(sampler))
    alike = [type(tree)(**{**{f: getattr(tree, f) for f in ("prompt", "policy", "origin")},
                           "nodes": tree.nodes[:1]}) for tree in trees]  # fmt: skip
    result = source.pair([alike[0], trees[1]], Evidence())
    assert result.skipped == {"equal_text": 1}
    assert len(result.pairs) == 1


def test_the_second_stage_imitates_references_behind_descriptions() -> None:
    sampler = Seeing()
    source = stic.build(stic.Config(stage="description", description_prompts=("Tell.",)))
    result = source.pair(source.generate(PROMPTS[:2], tools(sampler)), Evidence())
    first = result.demonstrations[0]
    assert first.prompt.text == "Image description:\nTell. None\n\nDescribe the image."
    assert (first.text, first.token_ids, first.weight) == ("answer 0", None, 1.0)
    assert first.prompt.prompt_id == "0"
    assert result.skipped == {}


def test_a_description_that_was_cut_is_not_used() -> None:
    source = stic.build(stic.Config(stage="description"))
    trees = source.generate(PROMPTS[:2], tools(Seeing(FinishReason.LENGTH)))
    result = source.pair(trees, Evidence())
    assert result.demonstrations == ()
    assert result.skipped == {"unfinished": 2}


def test_the_second_stage_needs_references() -> None:
    check = stic.check_prompts(stic.Config(stage="description"))
    with pytest.raises(BadRecordError) as refused:
        check(make_prompt("a"), (8, 8))
    assert refused.value.reason is SkipReason.MISSING_REFERENCE
    stic.check_prompts(stic.Config())(make_prompt("a"), (8, 8))  # the first one does not


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"corruptions": ["blur:3"]}, "blur"),
        ({"good_prompt": "x", "bad_prompts": ["x"]}, "both sides would be the same"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stic.Config.model_validate(settings)


def test_an_image_is_described_once_and_stands_before_each_of_its_questions() -> None:
    sampler = Seeing()
    one, other = make_prompt("a"), make_prompt("b")
    questions = [one, other, one]
    asked = described(questions, sampler, question="Tell.", max_response_tokens=9, batch_size=1)
    assert [p.text for p in sampler.asked] == ["Tell.", "Tell."]
    assert asked == [infused(prompt, "Tell. None") for prompt in questions]
    assert [(s.temperature, s.max_response_tokens) for s in sampler.settings] == [(0.0, 9)] * 2


def test_a_response_that_does_not_fit_behind_the_plain_prompt_counts_as_cut() -> None:
    """Two tokens, and room for two in all: none is left to score the second by."""
    prompt = replace(make_prompt("a"), text="the longest prompt")
    sampler = Seeing()
    source = stic.build(stic.Config(bad_prompt_share=1.0))
    trees = source.generate([prompt, make_prompt("b")], tools(sampler))
    assert {p.prompt_id for p in sampler.scored} == {"b"}
    assert source.pair(trees, Evidence()).skipped == {"unfinished": 1}


def test_a_question_that_cannot_stand_behind_its_description_is_asked_alone() -> None:
    class Narrow(Seeing):
        def room(self, prompt: Prompt) -> int:
            if prompt.prompt_id == "b":
                raise DataError("an image marker")
            return 0 if "description" in prompt.text else 9

    prompts = [make_prompt("a"), make_prompt("b")]
    assert (
        described(prompts, Narrow(), question="Tell.", max_response_tokens=9, batch_size=8)
        == prompts
    )
    source = stic.build(stic.Config(stage="description"))
    trees = source.generate([make_prompt("a", reference="x")], tools(Narrow()))
    assert source.pair(trees, Evidence()).skipped == {"unfinished": 1}
