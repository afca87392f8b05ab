"""A critic that goes by likeness to the prompt's reference, as ILLUME's automated one
(arXiv:2208.08241, section 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from csr.annotations import Annotation, AnnotationVerdict
from csr.config import ComponentConfig
from csr.errors import DataError
from csr.protocols import Critic
from csr.responses import spoken_responses
from csr.rouge import rouge_l
from csr.types import Prompt, ResponseTree

NAME = "rouge_l"


class Config(ComponentConfig):
    """What counts as fitting."""

    threshold: float = Field(default=0.7, ge=0, le=1)
    """Least ROUGE-L with the reference (ILLUME's code: 0.7). A wrong word in a sentence of eight
    still scores 0.87, so short references need more."""
    min_characters: int = Field(default=3, ge=0)
    """A shorter response scores 0 (ILLUME's code: 3)."""


def build(config: Config) -> Critic:
    """The critic."""
    return RougeCritic(config)


class RougeCritic:
    """Implements `csr.protocols.Critic`."""

    quota = None

    def __init__(self, config: Config) -> None:
        self._config = config

    def judge(self, trees: Sequence[ResponseTree], given: Sequence[Annotation]) -> list[Annotation]:
        """A verdict on every response. DataError for a prompt without a reference."""
        return [
            self._verdict(tree.prompt, response_id, text)
            for tree in trees
            for response_id, text in spoken_responses(tree)
        ]

    def _verdict(self, prompt: Prompt, response_id: str, text: str) -> Annotation:
        if prompt.reference is None:
            raise DataError(
                f"The prompt {prompt.prompt_id!r} has no reference, which the critic 'rouge_l' "
                "compares with. Add a `reference`, or ask the critic 'human'."
            )
        long_enough = len(text) >= self._config.min_characters
        score = rouge_l(text, prompt.reference) if long_enough else 0.0
        fits = score >= self._config.threshold
        return Annotation(
            response_id=response_id,
            prompt_id=prompt.prompt_id,
            verdict=AnnotationVerdict.ACCEPT if fits else AnnotationVerdict.REFUSE,
            annotator=NAME,
            score=score,
        )
