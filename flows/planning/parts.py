"""What a recipe's components tell of their work, and what they leave untold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from csr.planning import (
    ExpectedResponse,
    PlannedCall,
    PlannedEngine,
    PlannedQuestions,
    PlannedSimilarity,
    PlannedTraining,
    PlannedWork,
    tree_calls,
)
from flows.components import Component
from flows.config import Recipe
from flows.reading import count_records
from rewards.statistics import MAX_CAPTION_STEPS


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """One iteration's components as they plan themselves; None is what one does not tell."""

    work: PlannedWork | None
    captions: tuple[PlannedCall, ...]
    """What is sampled for the calibration's statistics, for each caption; empty where none are."""
    num_captions: int
    engine: PlannedEngine | None
    num_workers: int
    """Engines that each sample a shard at the same time."""
    training: PlannedTraining | None
    similarities: tuple[PlannedSimilarity, ...]
    questions: tuple[tuple[PlannedQuestions, int], ...]
    """Each benchmark whose number of prompts is known, with that number."""
    not_counted: tuple[str, ...]
    """One sentence each."""


def parts_of(
    recipe: Recipe,
    expected: ExpectedResponse,
    num_prompts: int,
    *,
    num_questions: int | None = None,
    num_lessons: float | None = None,
) -> Parts:
    """The parts of an iteration over `num_prompts`.

    `num_questions` is of each benchmark, in place of its file's; `num_lessons` of each prompt, in
    place of the most that the source can make of it.
    """
    untold: list[str] = []

    def tell(component: Component | None, function: str, *details: Any) -> Any:
        if component is None:
            return None
        planned = getattr(component.module, function, None)
        told = planned(component.settings, *details) if planned else None
        if told is None:
            kind = component.package.rpartition(".")[2]
            untold.append(
                f"{component.name!r} of {kind} does not tell its work here ({function}), as where "
                "its files are missing: what it does is not counted."
            )
        return told

    work: PlannedWork | None = tell(recipe.source, "planned_work", expected)
    if work is not None and num_lessons is not None:
        work = replace(work, max_lessons=num_lessons)
    all_lessons = round(num_prompts * work.max_lessons) if work else 0
    similarities = [
        tell(choice, "planned_similarity")
        for choice in (recipe.similarity, recipe.second_similarity)
        if choice is not None
    ]
    training = tell(recipe.trainer, "planned_training", all_lessons) if all_lessons else None
    captions = _captions(recipe, expected)
    untold += _evidence(recipe)
    return Parts(
        work=work,
        captions=captions,
        num_captions=recipe.num_statistics_prompts if captions else 0,
        engine=tell(recipe.sampler, "planned_engine"),
        num_workers=recipe.ray.num_workers if recipe.ray else 1,
        training=training,
        similarities=tuple(each for each in similarities if each is not None),
        questions=tuple(_questions(recipe, expected, num_questions, tell, untold)),
        not_counted=tuple(untold),
    )


def count_prompts(recipe: Recipe, given: int | None) -> int:
    """Prompts of one iteration: what is given, else what the recipe asks for and the file has."""
    if given is not None:
        return given
    there = count_records(recipe.data)
    asked = recipe.data.num_prompts_per_iteration
    return asked if there is None else min(asked, there)


def _captions(recipe: Recipe, expected: ExpectedResponse) -> tuple[PlannedCall, ...]:
    """A sentence a call, as `rewards.statistics` samples; nothing where no step is rewarded."""
    settings = recipe.source.build().step_settings
    if settings is None or recipe.reward.calibration != "centred":
        return ()
    return tree_calls(
        expected,
        num_candidates=1,
        num_kept=1,
        max_steps=MAX_CAPTION_STEPS,
        max_step_tokens=settings.max_step_tokens,
        max_response_tokens=settings.max_response_tokens,
    )


def _questions(
    recipe: Recipe,
    expected: ExpectedResponse,
    given: int | None,
    tell: Any,
    untold: list[str],
) -> Sequence[tuple[PlannedQuestions, int]]:
    found = []
    for choice in recipe.evaluation:
        told: PlannedQuestions | None = tell(choice, "planned_questions", expected)
        if told is None:
            continue
        num = told.num_prompts if given is None else given
        if num is None:
            untold.append(
                f"The prompt file of the benchmark {choice.name!r} is not here, so its questions "
                "are not counted: --num-evaluation-prompts N says how many they are."
            )
        else:
            found.append((told, num))
    return found


def _evidence(recipe: Recipe) -> list[str]:
    """Parts of the reward that the policy itself gives, by further passes."""
    reward = recipe.reward
    asked = {"pmi_weight": reward.pmi_weight, "self_check_weight": reward.self_check_weight}
    return [
        f"reward.{name} is above 0: the passes of the policy that it needs are not counted."
        for name, weight in asked.items()
        if weight > 0
    ]
