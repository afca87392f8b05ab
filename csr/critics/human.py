"""People as the critic, as ILLUME's human one (arXiv:2208.08241, section 3.3).

They judge on the page of `csr review`, which shows no reward and nobody else's verdict.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from csr.annotations import Annotation, Quota
from csr.config import ComponentConfig
from csr.errors import DataError, VerdictsWanted
from csr.protocols import Critic
from csr.responses import spoken_responses
from csr.types import ResponseTree


class Config(ComponentConfig):
    """How much people must have said before the run goes on."""

    num_annotators: int = Field(default=1, ge=1)
    """People who must have judged a response; one who says "skip" counts (the paper: one)."""
    num_responses: int | None = Field(default=None, ge=1)
    """Responses that need that many people; None is all. What is not judged teaches nothing."""


def build(config: Config) -> Critic:
    """The critic."""
    return HumanCritic(config)


class HumanCritic:
    """Implements `csr.protocols.Critic`."""

    def __init__(self, config: Config) -> None:
        self.quota = Quota(num_annotators=config.num_annotators, num_responses=config.num_responses)

    def judge(self, trees: Sequence[ResponseTree], given: Sequence[Annotation]) -> list[Annotation]:
        """What was said of the responses that enough people have judged.

        VerdictsWanted while those are too few. DataError for a verdict on an unknown response.
        """
        known = {
            response_id: tree.prompt.prompt_id
            for tree in trees
            for response_id, _ in spoken_responses(tree)
        }
        for verdict in given:
            if known.get(verdict.response_id) != verdict.prompt_id:
                raise DataError(
                    f"{verdict.annotator} judged the response {verdict.response_id!r} of the "
                    f"prompt {verdict.prompt_id!r}, which this attempt does not have. Verdicts of "
                    "another attempt are of no use here: take them out of the folder `verdicts`."
                )
        judged, num_wanted = self.quota.judged(given), self.quota.num_wanted(len(known))
        if len(judged) < num_wanted:
            people = self.quota.num_annotators
            raise VerdictsWanted(
                f"{len(judged)} of {num_wanted} responses have been judged by "
                f"{people} {'person' if people == 1 else 'people'}."
            )
        return [verdict for verdict in given if verdict.response_id in judged]
