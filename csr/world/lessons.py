"""Turns scenes into what the policy is trained on: token ids, and which of them it must predict."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from csr.world.abilities import Ability, exchange
from csr.world.captions import (
    DESCRIBE,
    DESCRIBE_VARIANTS,
    CaptionSettings,
    careless_caption,
    true_caption,
)
from csr.world.questions import QuestionSettings, careless_answers, true_answers
from csr.world.scenes import POSITIONS, Scene, seed_of
from csr.world.tokenizer import EOS, IMAGE_ID, PAD_ID

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

NUM_IMAGE_TOKENS = len(POSITIONS)
"""One patch a cell."""
IGNORED = -100
_DESCRIBE_SHARE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One prompt about one image, and the response to learn.

    Example: `Lesson(scene_index=3, prompt="Describe the image.", response="A red circle ...")`
    """

    scene_index: int
    prompt: str
    response: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """What one training stage draws from, all encoded."""

    descriptions: EncodedLessons
    answers: EncodedLessons
    abilities: tuple[EncodedLessons, ...] = ()
    """One lesson a scene for each further ability."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedLessons:
    """Padded on the right; `labels` is -100 where nothing is to be predicted."""

    scene_index: torch.Tensor
    """int64, shape (lessons,)."""
    token_ids: torch.Tensor
    """int64, shape (lessons, tokens); the image token stands once for each image feature."""
    labels: torch.Tensor
    """int64, shape (lessons, tokens)."""


def alignment_lessons(
    scenes: Sequence[Scene], seed: int, encode: Encoder, abilities: Sequence[Ability] = ()
) -> Lessons:
    """True captions and true answers: the policy learns to see."""
    lessons = _lessons(
        scenes,
        random.Random(seed_of("alignment", seed)),
        encode,
        true_caption,
        true_answers,
    )
    return _with_abilities(lessons, scenes, seed, encode, abilities, None)


def instruction_lessons(
    scenes: Sequence[Scene],
    seed: int,
    encode: Encoder,
    captions: CaptionSettings,
    questions: QuestionSettings,
    abilities: Sequence[Ability] = (),
) -> Lessons:
    """Careless captions and answers: the policy learns to speak, and to speak by habit."""
    lessons = _lessons(
        scenes,
        random.Random(seed_of("instruction", seed)),
        encode,
        lambda scene, rng: careless_caption(scene, rng, captions),
        lambda scene, rng: careless_answers(scene, rng, questions),
    )
    return _with_abilities(lessons, scenes, seed, encode, abilities, captions)


def _with_abilities(
    lessons: Lessons,
    scenes: Sequence[Scene],
    seed: int,
    encode: Encoder,
    abilities: Sequence[Ability],
    habits: CaptionSettings | None,
) -> Lessons:
    """Drawn by seeds of their own, so that the other lessons are the same with and without."""
    taught = []
    for ability in abilities:
        rng = random.Random(seed_of("ability", ability, seed, "careless" if habits else "true"))
        exchanges = [exchange(ability, scene, rng, habits) for scene in scenes]
        taught.append(
            encode(
                [
                    Lesson(scene_index=index, prompt=prompt, response=response)
                    for index, (prompt, response) in enumerate(exchanges)
                ]
            )
        )
    return replace(lessons, abilities=tuple(taught))


def _lessons(
    scenes: Sequence[Scene],
    rng: random.Random,
    encode: Encoder,
    describe: Callable[[Scene, random.Random], str],
    answer: Callable[[Scene, random.Random], list[tuple[str, str]]],
) -> Lessons:
    descriptions, answers = [], []
    for index, scene in enumerate(scenes):
        prompt = DESCRIBE if rng.random() < _DESCRIBE_SHARE else rng.choice(DESCRIBE_VARIANTS)
        descriptions.append(Lesson(scene_index=index, prompt=prompt, response=describe(scene, rng)))
        answers += [
            Lesson(scene_index=index, prompt=question, response=text)
            for question, text in answer(scene, rng)
        ]
    return Lessons(descriptions=encode(descriptions), answers=encode(answers))


class Encoder:
    """Encodes lessons exactly as the chat template renders a conversation."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._prompts: dict[str, list[int]] = {}

    def prompt_ids(self, text: str) -> list[int]:
        """The rendered prompt with its generation prompt, the image token repeated."""
        if text not in self._prompts:
            rendered = self._tokenizer.apply_chat_template(
                [user_message(text)], add_generation_prompt=True, tokenize=False
            )
            ids = self._tokenizer(rendered).input_ids
            self._prompts[text] = _expand_image(ids)
        return self._prompts[text]

    def __call__(self, lessons: Sequence[Lesson]) -> EncodedLessons:
        import torch

        responses = self._tokenizer([f" {lesson.response}{EOS}" for lesson in lessons]).input_ids
        prompts = [self.prompt_ids(lesson.prompt) for lesson in lessons]
        width = max(len(p) + len(r) for p, r in zip(prompts, responses, strict=True))
        token_ids = torch.full((len(lessons), width), PAD_ID)
        labels = torch.full((len(lessons), width), IGNORED)
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            end = len(prompt) + len(response)
            token_ids[row, :end] = torch.tensor(prompt + response)
            labels[row, len(prompt) : end] = torch.tensor(response)
        scene_index = torch.tensor([lesson.scene_index for lesson in lessons])
        return EncodedLessons(scene_index=scene_index, token_ids=token_ids, labels=labels)


def user_message(text: str) -> dict[str, Any]:
    """A chat message with one image before the text."""
    return {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}


def _expand_image(ids: Sequence[int]) -> list[int]:
    expanded: list[int] = []
    for token_id in ids:
        expanded += [token_id] * (NUM_IMAGE_TOKENS if token_id == IMAGE_ID else 1)
    return expanded
