"""POVID's rewrites by the policy: what is asked, and which answers count."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from csr.annotations import Evidence
from csr.errors import ConfigError, DataError
from csr.protocols import GenerateSettings, SourceTools
from csr.samplers import scripted, transformers
from csr.sources._policy_rewrites import (
    INSTRUCTION,
    SCHEMA,
    PolicyRewriteSettings,
    accepted,
    word_edits,
)
from csr.sources.povid import Config, build, check_prompts
from csr.types import FinishReason, GeneratedResponse, Prompt, SkipReason, StepRequest
from flows.config import load_recipe
from tests.trees import POLICY, TableSimilarity, make_prompt, no_progress

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = "A red circle is at the top. A ring is below it."
"""Twelve words."""
FALSE = "A blue circle is at the top. A ring is below it."
DEFAULT = PolicyRewriteSettings()


def response(text: str, reason: FinishReason = FinishReason.EOS) -> GeneratedResponse:
    return GeneratedResponse(
        prompt_id="42", text=text, token_ids=(1,), token_logprobs=(-0.5,), finish_reason=reason
    )


def answer(text: str, *edits: str) -> str:
    return json.dumps({"rewritten": text, "edits": edits})


@pytest.mark.parametrize(
    ("before", "after", "distance"),
    [
        ("a red circle", "a red circle", 0),
        ("a red circle", "a blue circle", 1),
        ("a red circle", "a circle", 1),
        ("a red circle", "a blue circle here", 2),
        ("a red circle", "", 3),
        ("", "a ring", 2),
        ("one two three four", "two three four five", 2),
    ],
)
def test_word_edits_by_hand(before: str, after: str, distance: int) -> None:
    assert word_edits(before.split(), after.split()) == distance
    assert word_edits(after.split(), before.split()) == distance


def test_one_word_of_twelve_is_accepted_with_its_edits() -> None:
    found = accepted(REFERENCE, response(answer(f" {FALSE}\n", "blue, not red", " ")), DEFAULT)
    assert found is not None
    assert found.text == FALSE
    assert found.edits == ("blue, not red",)


@pytest.mark.parametrize(
    ("text", "settings", "fits"),
    [
        # 3 of 12 words is 25 %, 4 of 12 is 33 %.
        ("A blue square is at the bottom. A ring is below it.", {}, True),
        ("A blue square is at the bottom. A cross is below it.", {}, False),
        ("A blue square is at the bottom. A cross is below it.", {"max_edit_ratio": 0.34}, True),
        # 1 of 12 words is 8.3 %.
        (FALSE, {"min_edit_ratio": 0.08}, True),
        (FALSE, {"min_edit_ratio": 0.09}, False),
        # 1 word more of 12 is 8.3 %, 2 words more are 16.7 %.
        ("A red circle is at the very top. A ring is below it.", {}, True),
        ("A red circle is at the very far top. A ring is below it.", {}, False),
        ("A red circle is at the very far top. A ring is below it.", {"max_word_difference": 0.17},
         True),
        ("A circle is at top. A ring is below it.", {}, False),
        # The same words with another space are 0 % changed.
        (REFERENCE.replace(". ", ".  "), {}, False),
    ],
)  # fmt: skip
def test_how_much_may_change(text: str, settings: dict[str, float], fits: bool) -> None:
    found = accepted(REFERENCE, response(answer(text, "one")), PolicyRewriteSettings(**settings))
    assert (found is not None) == fits


@pytest.mark.parametrize(
    "text",
    [
        answer(FALSE),
        answer(FALSE, "", " "),
        answer(FALSE, "one", "two", "three", "four"),
        answer(REFERENCE, "one"),
        answer(f" {REFERENCE} ", "one"),
        answer("", "one"),
        answer(FALSE, "one")[:-1],
        json.dumps({"rewritten": FALSE}),
        json.dumps({"rewritten": 3, "edits": ["one"]}),
        json.dumps([FALSE, ["one"]]),
        FALSE,
        "",
    ],
)
def test_junk_is_seen(text: str) -> None:
    lenient = PolicyRewriteSettings(
        min_edit_ratio=0, max_edit_ratio=1, max_word_difference=1, max_edits=3
    )
    assert accepted(REFERENCE, response(text), lenient) is None
    assert accepted(REFERENCE, response(answer(FALSE, "one", "two", "three")), lenient)


def test_an_answer_that_was_cut_is_junk_even_where_it_reads_whole() -> None:
    whole = answer(FALSE, "one")
    assert accepted(REFERENCE, response(whole, FinishReason.LENGTH), DEFAULT) is None


# ------------------------------------------------------------ the source


class Writer:
    """Gives its answers in turn, one a call for all prompts, and has so much room."""

    def __init__(self, *answers: str, room: int = 5000) -> None:
        self.answers, self.num_tokens = list(answers), room
        self.calls: list[tuple[Sequence[StepRequest], GenerateSettings]] = []

    def generate(
        self, requests: Sequence[StepRequest], settings: GenerateSettings
    ) -> list[GeneratedResponse]:
        self.calls.append((requests, settings))
        text = self.answers.pop(0)
        return [replace(response(text), prompt_id=r.prompt.prompt_id) for r in requests]

    def room(self, prompt: Prompt) -> int:
        if "<image>" in prompt.text:
            raise DataError("the prompt holds an image marker")
        return self.num_tokens - len(prompt.text)

    def encode(self, prompt: Prompt, text: str) -> tuple[int, ...]:
        if "<image>" in text:
            raise DataError("no response could say it")
        return (*(10 + ord(letter) for letter in text), 0)

    def score(
        self, prompts: Sequence[Prompt], token_ids: Sequence[Sequence[int]]
    ) -> list[tuple[float, ...]]:
        return [(-0.5,) * len(ids) for ids in token_ids]


def asked(prompt_id: str = "42", reference: str = REFERENCE) -> Prompt:
    return replace(make_prompt(prompt_id), reference=reference)


def tools(sampler: Any, similarity: TableSimilarity | None) -> SourceTools:
    return SourceTools(
        policy=POLICY, sampler=sampler, scorer=None, similarity=similarity, seed=0,
        progress=no_progress,
    )  # fmt: skip


FITS = TableSimilarity(image={"A red circle is at the top.": 0.3})
"""Every other sentence fits by 0."""


def test_the_policy_is_asked_until_the_image_refutes_a_rewrite_that_is_no_junk() -> None:
    similarity = TableSimilarity(
        image={"A red circle is at the top.": 0.3, "A ring is below it.": 0.1,
               "A ring is left of it.": 0.2}
    )  # fmt: skip
    unrefuted = "A red circle is at the top. A ring is left of it."
    writer = Writer(FALSE, answer(unrefuted, "left"), answer(FALSE, "blue", "two"))
    source = build(Config(rewriter="policy", num_rewrites=4))
    trees = source.generate([asked()], tools(writer, similarity))
    reference, rewrite = trees[0].nodes
    assert (reference.step.text, rewrite.step.text) == (REFERENCE, FALSE)
    assert rewrite.score.breakdown["num_edits"] == 2
    assert rewrite.score.breakdown["similarity_drop"] == pytest.approx(30)
    assert trees[0].skipped == {SkipReason.JUNK_REWRITE: 1, SkipReason.UNREFUTED_REWRITE: 1}
    (pair,) = source.pair(trees, Evidence()).pairs
    assert (pair.chosen.text, pair.rejected.text, pair.margin) == (REFERENCE, FALSE, 2)


def test_what_the_policy_is_shown_and_how_it_answers() -> None:
    writer = Writer("junk", answer(FALSE, "blue"))
    settings = PolicyRewriteSettings(
        instruction="Spoil: {reference}", temperature=1.5, top_p=0.7, max_rewrite_tokens=99
    )
    source = build(Config(rewriter="policy", policy_rewrites=settings))
    prompts = [asked("1"), asked("2")]
    source.generate(prompts, tools(writer, FITS))
    assert len(writer.calls) == 2
    requests, sampling = writer.calls[0]
    assert [r.prompt for r in requests] == [replace(p, text=f"Spoil: {REFERENCE}") for p in prompts]
    assert sampling == GenerateSettings(
        temperature=1.5, top_p=0.7, max_response_tokens=99, json_schema=SCHEMA
    )
    seeds = [request.seed for asking, _ in writer.calls for request in asking]
    assert len(set(seeds)) == 4


def test_a_prompt_for_which_only_junk_is_written_makes_no_pair() -> None:
    source = build(Config(rewriter="policy", num_rewrites=3, min_similarity_drop=None))
    trees = source.generate([asked()], tools(Writer("", "[]", FALSE), None))
    assert len(trees[0].nodes) == 1
    assert trees[0].skipped == {SkipReason.JUNK_REWRITE: 3}
    assert source.pair(trees, Evidence()).skipped == {SkipReason.TOO_FEW_RESPONSES: 1}


def test_a_text_that_no_response_could_say_is_junk() -> None:
    marked = FALSE.replace("ring", "<image>")
    endless = FALSE.replace("ring", "r" * 6000)
    source = build(Config(rewriter="policy", num_rewrites=2, min_similarity_drop=None))
    writer = Writer(answer(marked, "one"), answer(endless, "one"))
    trees = source.generate([asked()], tools(writer, None))
    assert trees[0].skipped == {SkipReason.JUNK_REWRITE: 2}


def test_a_reference_that_does_not_fit_beside_the_instruction_is_counted_and_not_asked() -> None:
    """The instruction leaves exactly as much room as the reference needs, or one token less."""
    needed = len(INSTRUCTION.format(reference=REFERENCE)) + len(REFERENCE) + 1
    source = build(Config(rewriter="policy", num_rewrites=1, min_similarity_drop=None))
    for room, fits in ((needed, True), (needed - 1, False)):
        writer = Writer(answer(FALSE, "blue"), room=room)
        (tree,) = source.generate([asked()], tools(writer, None))
        assert len(writer.calls) == int(fits)
        assert len(tree.nodes) == 1 + fits
        assert tree.skipped == ({} if fits else {SkipReason.REWRITE_PROMPT_TOO_LONG: 1})


# ------------------------------------------------------------ settings


def test_the_rules_say_which_files_they_need_and_the_policy_needs_none() -> None:
    with pytest.raises(ValidationError, match="vocabulary and references must be given where"):
        Config()
    with pytest.raises(ValidationError, match="references must be given where rules rewrite"):
        Config(vocabulary="vocabulary.json")
    check = check_prompts(Config(rewriter="policy"))
    check(asked(), (8, 8))


def test_a_recipe_whose_sampler_can_force_no_form_is_refused_as_it_is_read() -> None:
    path, policy = ROOT / "recipes/povid_tiny.yaml", "source.rewriter=policy"
    assert load_recipe(path, (policy,)).sampler.name == "vllm"
    assert load_recipe(path, ("sampler=transformers",)).sampler.name == "transformers"
    with pytest.raises(ConfigError, match="sampler 'transformers' cannot force"):
        load_recipe(path, (policy, "sampler=transformers"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"instruction": "Spoil it."}, "instruction lacks {reference}"),
        ({"instruction": "{reference} {image}"}, "instruction has {image}"),
        ({"instruction": "{reference} {"}, "instruction cannot be read"),
        ({"min_edit_ratio": 0.3}, "is above max_edit_ratio"),
        ({"temperature": 0.0}, "greater than 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PolicyRewriteSettings(**settings)


@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        ("scripted", scripted.build(scripted.Config())),
        ("transformers", transformers.build(transformers.Config())),
    ],
)
def test_samplers_that_can_force_no_form_say_which_can(name: str, sampler: Any) -> None:
    settings = GenerateSettings(temperature=1, top_p=1, max_response_tokens=9, json_schema=SCHEMA)
    with pytest.raises(ConfigError, match=f"'{name}' cannot make them. Set the sampler to 'vllm'"):
        sampler.generate([], settings)
