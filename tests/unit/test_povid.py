"""POVID's text injection: references against their rewrites."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from csr.annotations import Evidence
from csr.errors import ConfigError, DataError
from csr.protocols import SourceTools
from csr.records import BadRecordError
from csr.sources._rewrites import Knowledge
from csr.sources.povid import Config, build, check_prompts
from csr.types import Prompt, SkipReason
from tests.trees import POLICY, TableSimilarity, make_prompt, no_progress

VOCABULARY = {
    "objects": {"circle": ["circle"], "ring": ["ring"], "cross": ["cross"]},
    "attributes": {"colour": {"red": ["red"], "blue": ["blue"]}},
}
REFERENCES = ["A red circle. A ring.", "A circle and a cross.", "A ring and a cross."]


class Speaker:
    """Says a text as one token a letter, each as likely as any other."""

    def __init__(self) -> None:
        self.num_calls = 0

    def encode(self, prompt: Prompt, response: str) -> tuple[int, ...]:
        return (*(10 + ord(letter) for letter in response), 0)

    def score(
        self, prompts: Sequence[Prompt], token_ids: Sequence[Sequence[int]]
    ) -> list[tuple[float, ...]]:
        self.num_calls += 1
        return [(-0.5,) * len(ids) for ids in token_ids]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    vocabulary, references = tmp_path / "vocabulary.json", tmp_path / "train.jsonl"
    vocabulary.write_text(json.dumps(VOCABULARY))
    lines = [json.dumps({"id": n, "reference": text}) for n, text in enumerate(REFERENCES)]
    references.write_text("\n".join(lines))
    return Config(vocabulary=str(vocabulary), references=str(references), num_edits=1)


def asked(text: str | None, prompt_id: str = "42") -> Prompt:
    return replace(make_prompt(prompt_id), reference=text)


def tools(similarity: TableSimilarity | None, sampler: Any = None, seed: int = 0) -> SourceTools:
    return SourceTools(
        policy=POLICY,
        sampler=sampler or Speaker(),
        scorer=None,
        similarity=similarity,
        seed=seed,
        progress=no_progress,
    )


def test_a_reference_is_chosen_and_its_rewrite_rejected(config: Config) -> None:
    similarity = TableSimilarity(image={"A red circle.": 0.3, "A ring.": 0.2})
    source = build(config)
    trees = source.generate([asked("A red circle. A ring.")], tools(similarity))
    reference, other = trees[0].nodes
    assert reference.step.text == "A red circle. A ring."
    assert other.step.text != reference.step.text
    assert other.score.breakdown["num_edits"] == 1
    drop = 30 if other.step.text.endswith("A ring.") else 20
    assert other.score.breakdown["similarity_drop"] == pytest.approx(drop)
    (pair,) = source.pair(trees, Evidence()).pairs
    assert (pair.chosen.text, pair.rejected.text) == (reference.step.text, other.step.text)
    assert pair.margin == 1
    assert pair.chosen.sum_logprob == -0.5 * (len("A red circle. A ring.") + 1)


def test_a_rewrite_that_fits_the_image_as_well_is_not_used(config: Config) -> None:
    """All sentences fit alike, so nothing is refuted."""
    source = build(config)
    trees = source.generate([asked("A red circle.")], tools(TableSimilarity()))
    assert len(trees[0].nodes) == 1
    assert trees[0].skipped == {SkipReason.UNREFUTED_REWRITE: config.num_rewrites}
    result = source.pair(trees, Evidence())
    assert result.pairs == ()
    assert result.skipped == {SkipReason.TOO_FEW_RESPONSES: 1}


def test_another_rewrite_is_tried_where_the_image_does_not_refute_one(config: Config) -> None:
    fits = {"A red circle.": 0.3, "A blue circle.": 0.4, "A red ring.": 0.4, "A red cross.": 0.1}
    found = [
        build(config).generate([asked("A red circle.")], tools(TableSimilarity(fits), seed=s))[0]
        for s in range(12)
    ]
    used = [tree for tree in found if len(tree.nodes) == 2]
    assert used
    assert {tree.nodes[1].step.text for tree in used} == {"A red cross."}
    assert any(tree.skipped for tree in used)


def test_what_holds_nothing_to_exchange_makes_no_pair(config: Config) -> None:
    source = build(config)
    prompts = [asked("It is a picture."), asked("A red circle.", "43")]
    trees = source.generate(prompts, tools(TableSimilarity({"A red circle.": 0.9})))
    assert [len(tree.nodes) for tree in trees] == [1, 2]
    result = source.pair(trees, Evidence())
    assert [pair.prompt.prompt_id for pair in result.pairs] == ["43"]
    assert result.skipped == {SkipReason.TOO_FEW_RESPONSES: 1}


def test_a_prompts_rewrite_depends_on_no_other_prompt(config: Config) -> None:
    similarity = TableSimilarity({"A red circle.": 0.9, "A ring.": 0.8})
    prompts = [asked("A red circle.", "1"), asked("A ring.", "2"), asked("A red circle.", "3")]
    together = build(config).generate(prompts, tools(similarity))
    alone = [build(config).generate([prompt], tools(similarity))[0] for prompt in prompts]
    assert together == alone


def test_engines_are_asked_once_whatever_the_number_of_prompts(config: Config) -> None:
    similarity, sampler = TableSimilarity({"A red circle.": 0.9}), Speaker()
    prompts = [asked("A red circle.", str(number)) for number in range(5)]
    build(config).generate(prompts, tools(similarity, sampler))
    assert sampler.num_calls == 1
    assert len(similarity.image_calls) == 1


def test_unchecked_rewrites_need_no_similarity(config: Config) -> None:
    unchecked = config.model_copy(update={"min_similarity_drop": None})
    (tree,) = build(unchecked).generate([asked("A red circle.")], tools(None))
    assert len(tree.nodes) == 2
    with pytest.raises(ConfigError, match="no `similarity` is configured"):
        build(config).generate([asked("A red circle.")], tools(None))


def test_a_prompt_without_reference_is_refused_before_the_run(config: Config) -> None:
    check = check_prompts(config)
    check(asked("A red circle."), (8, 8))
    with pytest.raises(BadRecordError, match="has no reference") as caught:
        check(asked(None), (8, 8))
    assert caught.value.reason is SkipReason.MISSING_REFERENCE


def test_llavas_answers_tell_what_occurs_together(config: Config, tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "A circle and a square?"},
        {"from": "gpt", "value": "A circle and a ring."},
    ]
    path = tmp_path / "llava.json"
    path.write_text(json.dumps([{"id": "1", "image": "a.png", "conversations": turns}]))
    assert config.vocabulary is not None
    together = Knowledge(Path(config.vocabulary), path).together
    assert together == {("circle", "ring"): 1, ("ring", "circle"): 1}


def test_files_that_tell_nothing_are_refused_before_the_run(config: Config, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        check_prompts(config.model_copy(update={"vocabulary": str(tmp_path / "none.json")}))
    strangers = tmp_path / "strangers.jsonl"
    strangers.write_text('{"id": 1, "reference": "A dog and a cat."}')
    with pytest.raises(DataError, match="names two objects of the vocabulary"):
        check_prompts(config.model_copy(update={"references": str(strangers)}))
