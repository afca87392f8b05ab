"""SIMA: two responses, one critic, both orders."""

import random

import pytest

from csr.annotations import Evidence
from csr.errors import ConfigError
from csr.protocols import GenerateSettings, SourceTools
from csr.records import BadRecordError
from csr.sources import sima
from csr.types import FinishReason, GeneratedResponse, Prompt, ResponseTree, SkipReason, StepRequest
from flows.choices import SourceChoice
from flows.figures import pair_figures
from flows.validation import validate
from tests.trees import POLICY, make_prompt, no_progress

SHORT = "{question}|{reference}|{response_1}|{response_2}"
GREEDY, SAMPLED = "greedy words", "sampled words"


class Judge:
    """Says one thing when greedy, another when warm, and judges by `verdicts`.

    A verdict is what it writes when the greedy response stands first, and when it stands second.
    """

    def __init__(self, verdicts: tuple[str, str], *, room: int = 100, warm: str = SAMPLED) -> None:
        self.verdicts, self._room, self.warm = verdicts, room, warm
        self.asked: list[str] = []
        self.settings: list[GenerateSettings] = []

    def generate(
        self, requests: list[StepRequest], settings: GenerateSettings
    ) -> list[GeneratedResponse]:
        self.settings.append(settings)
        return [self._answer(request, settings) for request in requests]

    def _answer(self, request: StepRequest, settings: GenerateSettings) -> GeneratedResponse:
        text = GREEDY if settings.temperature == 0 else self.warm
        if "|" in request.prompt.text:
            self.asked.append(request.prompt.text)
            text = self.verdicts[not request.prompt.text.endswith(f"{GREEDY}|{self.warm}")]
        return GeneratedResponse(
            prompt_id=request.prompt.prompt_id,
            text=text,
            token_ids=tuple(map(ord, text)),
            token_logprobs=(-0.5,) * len(text),
            finish_reason=FinishReason.EOS,
        )

    def room(self, prompt: object) -> int:
        return self._room

    def encode(self, prompt: object, text: str) -> tuple[int, ...]:
        return (int(text[2]), 99)

    def score(self, prompts: list[Prompt], ids: list[tuple[int, ...]]) -> list[tuple[float, ...]]:
        """Likes the second place by two nats, and the sampled response by one."""
        return [
            (float(2 * (label == (2,)) + (prompt.text.split("|")[1 + label[0]] == SAMPLED)),)
            for prompt, label in zip(prompts, ids, strict=True)
        ]


def generate(judge: Judge, **settings: object) -> list[ResponseTree]:
    config = sima.Config.model_validate({"critic_template": SHORT, **settings})
    tools = SourceTools(
        policy=POLICY, sampler=judge, scorer=None, similarity=None, seed=3, progress=no_progress
    )
    return sima.build(config).generate([make_prompt("a", reference="truth")], tools)


def paired(judge: Judge, **settings: object):
    return sima.build(sima.Config()).pair(generate(judge, **settings), Evidence())


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("The better answer: [[1]]", 0),
        ("First [[1]], no: [[2]]", 1),
        ("[[ 2 ]]", 1),
        ("[[3]]", None),
        ("[[1]] or [[both]]", None),
        ("1", None),
        ("", None),
    ],
)
def test_the_last_brackets_decide(text: str, place: int | None) -> None:
    assert sima.parse_verdict(text) == place


def test_a_response_that_wins_in_both_orders_is_chosen() -> None:
    judge = Judge(("[[2]]", "[[1]]"))
    (pair,) = paired(judge).pairs
    assert (pair.chosen.text, pair.rejected.text, pair.margin) == (SAMPLED, GREEDY, 2.0)
    assert judge.asked == [
        f"Describe the image.|truth|{GREEDY}|{SAMPLED}",
        f"Describe the image.|truth|{SAMPLED}|{GREEDY}",
    ]
    assert [s.temperature for s in judge.settings] == [0.0, 0.8, 0.0]


@pytest.mark.parametrize(
    ("verdicts", "reason"),
    [
        (("[[1]]", "[[1]]"), SkipReason.DISAGREEING_VERDICTS),  # whatever stands first
        (("[[2]]", "none of them"), SkipReason.MALFORMED_VERDICT),
        (("?", "?"), SkipReason.MALFORMED_VERDICT),
    ],
)
def test_other_verdicts_make_no_pair_and_say_why(
    verdicts: tuple[str, str], reason: SkipReason
) -> None:
    result = paired(Judge(verdicts))
    assert result.pairs == ()
    assert result.skipped == {reason: 1}
    assert len(result.responses) == 2


def test_what_the_critic_said_is_kept_beside_the_responses() -> None:
    (tree,) = generate(Judge(("[[1]]", "[[1]]")))
    assert [node.score.reward for node in tree.nodes] == [1.0, 1.0]
    assert tree.nodes[0].score.breakdown == {
        "likelihood": -0.5, "judged": 1.0, "malformed_verdicts": 0.0, "first_place_verdicts": 2.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("verdicts", "malformed", "disagreeing", "first"),
    [
        (("[[2]]", "[[1]]"), 0, 0, 1 / 2),  # one response, in both places
        (("[[1]]", "[[1]]"), 0, 1, 1),  # the first place, whoever has it
        (("[[1]]", "none"), 1 / 2, 0, 1),
        (("none", "[[2]]"), 1 / 2, 0, 0),
        (("none", "none"), 1, 0, 0),
    ],
)
def test_what_the_critic_is_worth_is_told(
    verdicts: tuple[str, str], malformed: float, disagreeing: float, first: float
) -> None:
    result = paired(Judge(verdicts))
    assert result.figures == {
        "malformed_verdict_share": malformed,
        "disagreeing_verdict_share": disagreeing,
        "first_place_share": first,
    }
    assert pair_figures(result, 1).items() >= result.figures.items()


def test_a_critic_that_was_not_asked_has_no_figures_to_divide_by() -> None:
    assert set(paired(Judge(("[[1]]", "[[2]]"), room=0)).figures.values()) == {0}


def test_equal_responses_are_not_judged() -> None:
    judge = Judge(("[[1]]", "[[2]]"), warm=GREEDY)
    assert paired(judge).skipped == {SkipReason.EQUAL_TEXT: 1}
    assert judge.asked == []


def test_a_contest_that_does_not_fit_the_context_is_counted() -> None:
    judge = Judge(("[[1]]", "[[2]]"), room=0)
    assert paired(judge).skipped == {SkipReason.CRITIC_PROMPT_TOO_LONG: 1}
    assert judge.asked == []


def test_the_likelier_label_counts_without_the_liking_for_a_place() -> None:
    """Log-odds of the greedy one: -2 - 1 where it stands first, 2 - 1 where second; mean -1."""
    (pair,) = paired(Judge(("?", "?")), verdict="likelier").pairs
    assert (pair.chosen.text, pair.margin) == (SAMPLED, 2.0)


def test_prompts_without_a_reference_are_refused() -> None:
    check = sima.check_prompts(sima.Config())
    check(make_prompt("a", reference="truth"), (8, 8))
    with pytest.raises(BadRecordError) as refused:
        check(make_prompt("a"), (8, 8))
    assert refused.value.reason is SkipReason.MISSING_REFERENCE


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{question} {reference} {response_1}", "lacks {response_2}"),
        (SHORT + "{image}", "has {image}, which nothing fills in"),
        (SHORT + "{", "cannot be read"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(template: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(SourceChoice, {"name": "sima", "critic_template": template}, "recipe")


def test_the_default_template_survives_any_text() -> None:
    text = "".join(random.Random(0).choices("{}[] abc", k=50))
    filled = sima.Config().critic_template.format(
        question=text, reference=text, response_1=text, response_2=text
    )
    assert filled.count(text) == 4
