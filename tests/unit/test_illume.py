"""ILLUME: what is asked, what a critic's verdicts make of it, and what is trained on beside."""

import json
from pathlib import Path

import pytest

from csr.annotations import Annotation, AnnotationVerdict, Evidence
from csr.errors import DataError
from csr.protocols import GenerateSettings, SourceTools
from csr.records import BadRecordError
from csr.sources import illume
from csr.types import (
    REPLAY,
    FinishReason,
    GeneratedResponse,
    ResponseTree,
    SkipReason,
    StepRequest,
)
from tests.trees import POLICY, make_prompt, no_progress, tree_of_responses

ACCEPT, REFUSE, SKIP = AnnotationVerdict


class Explaining:
    """Says what it was asked, how warm it was, and which of two seeds it has."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []

    def generate(
        self, requests: list[StepRequest], settings: GenerateSettings
    ) -> list[GeneratedResponse]:
        self.asked += [(request.prompt.text, settings.temperature) for request in requests]
        warm = settings.temperature > 0.5
        return [
            GeneratedResponse(
                prompt_id=request.prompt.prompt_id,
                text=f"since {request.seed if warm else 'so'}",
                token_ids=(5, 6, 0),
                token_logprobs=(-0.5, -0.1, -0.3),
                finish_reason=FinishReason.EOS,
            )
            for request in requests
        ]


def answers_file(folder: Path, ids: str) -> str:
    path = folder / "answers.jsonl"
    path.write_text("".join(json.dumps({"id": i, "reference": f"A{i}."}) + "\n" for i in ids))
    return str(path)


def tools(sampler: Explaining) -> SourceTools:
    return SourceTools(
        policy=POLICY, sampler=sampler, scorer=None, similarity=None, seed=3, progress=no_progress
    )


def annotation(response_id: str, verdict: AnnotationVerdict, who: str = "ada") -> Annotation:
    prompt_id = response_id.partition("/")[0]
    return Annotation(response_id=response_id, prompt_id=prompt_id, verdict=verdict, annotator=who)


def test_each_answer_is_explained_at_every_temperature_and_each_wording_kept_once(
    tmp_path: Path,
) -> None:
    config = illume.Config(
        answers=answers_file(tmp_path, "ab"),
        rationale_prompt="Q: {question} A: {answer}, seeing that",
        num_samples=3,
        temperatures=(0.3, 0.8),
    )
    sampler = Explaining()
    trees = illume.build(config).generate([make_prompt("a"), make_prompt("b")], tools(sampler))
    asked = "Q: Describe the image. A: Aa., seeing that"
    assert sampler.asked[:3] == [(asked, 0.3)] * 3
    assert sorted(t for text, t in sampler.asked if text == asked) == [0.3] * 3 + [0.8] * 3
    (first, *others) = trees[0].nodes
    assert first.step.text == "since so"
    assert first.score.breakdown == {"likelihood": pytest.approx(-0.3), "temperature": 0.3}
    assert len({node.step.text for node in others}) == 3  # warm samples have seeds of their own
    assert trees[0].skipped == {"duplicate_sibling": 2}
    assert trees[0].prompt == make_prompt("a")  # the run's prompt, not what was made of it


@pytest.fixture
def trees() -> list[ResponseTree]:
    return [
        tree_of_responses(make_prompt("a"), ["true", "also true", "false"]),
        tree_of_responses(make_prompt("b"), ["unsure"]),
        tree_of_responses(make_prompt("c"), ["wrong"]),
        tree_of_responses(make_prompt("d"), ["unseen"]),
        tree_of_responses(make_prompt("e"), []),
    ]


VERDICTS = (
    annotation("a/0", ACCEPT),
    annotation("a/1", ACCEPT),
    annotation("a/2", REFUSE),
    annotation("b/0", ACCEPT),
    annotation("b/0", REFUSE, "bob"),
    annotation("c/0", REFUSE),
)


def test_accepted_rationales_are_imitated_and_every_other_prompt_says_why_not(
    trees: list[ResponseTree],
) -> None:
    result = illume.build(illume.Config()).pair(trees, Evidence(annotations=VERDICTS))
    assert [(d.text, d.kind, d.weight) for d in result.demonstrations] == [
        ("true", "rationale", 1.0),
        ("also true", "rationale", 1.0),
    ]
    assert result.demonstrations[0].token_ids == trees[0].nodes[0].step.token_ids
    assert result.skipped == {
        "disputed": 1, "refused": 1, "no_verdict": 1, "too_few_responses": 1,
    }  # fmt: skip


def test_answers_are_replayed_and_rationales_weigh_as_much_as_there_are_replayed(
    tmp_path: Path, trees: list[ResponseTree]
) -> None:
    """Two rationales, ratio 1.5: three answers replayed, of four; weight 3 / 2."""
    config = illume.Config(answers=answers_file(tmp_path, "abcde"), replay_ratio=1.5)
    result = illume.build(config).pair(trees, Evidence(annotations=VERDICTS))
    kinds = [(d.kind, d.weight, d.token_ids is None) for d in result.demonstrations]
    assert kinds == [
        ("rationale", 1.5, False),
        ("rationale", 1.5, False),
        ("answer", 1.0, True),
        *[(REPLAY, 1.0, True)] * 3,
    ]
    answer = result.demonstrations[2]
    assert (answer.prompt, answer.text) == (make_prompt("a"), "Aa.")
    assert result.demonstrations[0].prompt.text == "Describe the image. The answer: Aa. Why?"
    assert len(result.skipped) == 4


def test_rationales_of_earlier_iterations_stay_and_are_not_counted_twice(
    trees: list[ResponseTree],
) -> None:
    source = illume.build(illume.Config())
    before = source.pair(trees[:1], Evidence(annotations=VERDICTS)).demonstrations
    again = tree_of_responses(make_prompt("a"), ["true", "new"])
    other = tree_of_responses(make_prompt("z"), ["true"])
    verdicts = (annotation("a/0", ACCEPT), annotation("a/1", ACCEPT), annotation("z/0", REFUSE))
    result = source.pair([again, other], Evidence(annotations=verdicts, earlier=before))
    assert [d.text for d in result.demonstrations] == ["true", "new", "also true"]
    assert result.skipped == {"refused": 1}


def test_refused_rationales_give_pairs_where_the_trainer_compares(
    trees: list[ResponseTree],
) -> None:
    result = illume.build(illume.Config(makes="pairs")).pair(trees, Evidence(annotations=VERDICTS))
    (pair,) = result.pairs
    assert (pair.chosen.text, pair.rejected.text, pair.margin) == ("true", "false", 1.0)
    assert sum(result.skipped.values()) == 4


def test_prompts_without_an_answer_are_refused(tmp_path: Path) -> None:
    check = illume.check_prompts(illume.Config(answers=answers_file(tmp_path, "a")))
    check(make_prompt("a"), (8, 8))
    with pytest.raises(BadRecordError, match="nothing to explain") as refused:
        check(make_prompt("b"), (8, 8))
    assert refused.value.reason is SkipReason.MISSING_REFERENCE


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rationale_prompt": "{question} {anwser}"}, "cannot be filled in"),
        ({"rationale_prompt": "{question} {answer}"}, "no `answers` file"),
        ({"temperatures": ()}, "at least 1"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        illume.Config.model_validate(settings)


def test_an_answer_that_is_none_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"id": "a"}\n')
    with pytest.raises((DataError, BadRecordError), match="line 1: 'reference' is missing"):
        illume.check_prompts(illume.Config(answers=str(path)))
