"""What can be found wrong with a run before anything is written or any engine is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from csr.checkpoints import base_policy, check_weights, resolve_model
from csr.errors import ConfigError
from csr.prompt_files import PromptFiles
from csr.prompts import LoadedPrompts, PromptCheck, checked_prompts
from csr.protocols import Json
from csr.rendering import load_processor
from csr.types import Prompt
from flows.choices import SimilarityChoice
from flows.config import WORLD_MARK, Recipe, of_iteration
from flows.progress import stage_progress
from flows.reading import read_records
from storage.atomic import require_free_space
from storage.images import ImageStore

ITERATION_BYTES_PER_WEIGHT_BYTE = 1.5
"""A merged checkpoint, its adapter, and the tables beside them."""


SMALLEST_FREE_BYTES = 2**29
"""For what any run writes beside weights: tables, images in pairs, report, Prefect's database."""


@dataclass(frozen=True, slots=True)
class CheckedInputs:
    """What a run starts from, proved to be usable."""

    prompts: LoadedPrompts
    own_prompts: dict[int, LoadedPrompts]
    """Iteration -> its prompts, where they are not the run's."""
    base_policy: Json
    """The `PolicyRef` of the user's own model, as the manifest stores it."""


def check_without_world(recipe: Recipe, home: Path) -> None:
    """What can be found wrong before the embedded world is built, which takes minutes."""
    require_free_space(home, SMALLEST_FREE_BYTES)
    if recipe.world is None:
        return  # `check_inputs` follows at once
    if WORLD_MARK not in recipe.policy.model:
        _check_model(recipe, resolve_model(recipe.policy.model))
    for choice in (recipe.similarity, recipe.second_similarity):
        if choice is not None and WORLD_MARK not in choice.model_dump_json():
            _check_similarity(choice)


def check_inputs(recipe: Recipe, home: Path) -> CheckedInputs:
    """Read the model's directory, the prompts and every image, and look at the disk.

    CSRError names the first thing that cannot work. Nothing is written.
    """
    model = resolve_model(recipe.policy.model)
    changed = {number: of_iteration(recipe, number) for number in recipe.per_iteration}
    for each in (recipe, *changed.values()):
        _check_model(each, model)
        for choice in (each.similarity, each.second_similarity):
            if choice is not None:
                _check_similarity(choice)
    check_weights(sorted(model.glob("*.safetensors")))
    weight_bytes = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    needed = int(weight_bytes * ITERATION_BYTES_PER_WEIGHT_BYTE * recipe.num_iterations)
    require_free_space(home, SMALLEST_FREE_BYTES + needed)
    images = ImageStore(home)
    own = {
        number: _load(each, [each], model, images)
        for number, each in changed.items()
        if _differs(each, recipe)
    }
    sharing = [each for number, each in changed.items() if number not in own]
    loaded = _load(recipe, [recipe, *sharing], model, images)
    image_bytes = images.missing_bytes([loaded.kept_images, *(o.kept_images for o in own.values())])
    require_free_space(home, SMALLEST_FREE_BYTES + needed + image_bytes)
    everything = [prompt for found in (loaded, *own.values()) for prompt in found.prompts]
    for each in (recipe, *changed.values()):
        refuse_leaks(each, everything)
    policy = dataclasses.asdict(base_policy(recipe.policy.model))
    return CheckedInputs(prompts=loaded, own_prompts=own, base_policy=policy)


def _differs(one: Recipe, other: Recipe) -> bool:
    """Whether the two read other prompts."""
    return any(
        getattr(one.data, name) != getattr(other.data, name) for name in PromptFiles.model_fields
    )


def _load(
    recipe: Recipe, readers: Sequence[Recipe], model: Path, images: ImageStore
) -> LoadedPrompts:
    """The recipe's prompts that every reader can use."""
    checks = [_prompt_check(reader, model) for reader in readers]

    def check(prompt: Prompt, image_size: tuple[int, int]) -> None:
        for each in checks:
            each(prompt, image_size)

    with stage_progress("check prompts and images") as progress:
        return checked_prompts(
            read_records(recipe.data),
            image_place=images.path,
            on_bad_record=recipe.data.on_bad_record,
            max_bad_share=recipe.data.max_bad_share,
            check=check,
            progress=progress,
        )


def refuse_leaks(recipe: Recipe, prompts: Sequence[Prompt]) -> None:
    """ConfigError where one image, by content, serves both training and evaluation."""
    trained_on = {prompt.image.sha256: prompt.prompt_id for prompt in prompts}
    for choice in recipe.evaluation:
        for prompt in choice.build().prompts():
            if prompt.image.sha256 in trained_on:
                raise ConfigError(
                    f"The image {prompt.image.uri} of the benchmark {choice.name!r} is also the "
                    f"image of the training prompt {trained_on[prompt.image.sha256]!r}. Held-out "
                    "images are never trained on: remove it from one of the two files."
                )


def _check_model(recipe: Recipe, model: Path) -> None:
    """A sampler and a trainer may have their own tests; most need the checkpoint's processor."""
    check = getattr(recipe.sampler.module, "check_model", None)
    if check is not None:
        check(model)
    else:
        load_processor(str(model))
    check = getattr(recipe.trainer.module, "check_model", None)
    if check is not None:
        check(model)


def _prompt_check(recipe: Recipe, model: Path) -> PromptCheck:
    """What sampler and source refuse; without this, it would be found after hours."""
    checks: list[PromptCheck] = []
    if make := getattr(recipe.sampler.module, "check_prompts", None):
        checks.append(make(model, recipe.sampler.settings))
    if make := getattr(recipe.source.module, "check_prompts", None):
        checks.append(make(recipe.source.settings))

    def check(prompt: Prompt, image_size: tuple[int, int]) -> None:
        for each in checks:
            each(prompt, image_size)

    return check


def _check_similarity(choice: SimilarityChoice) -> None:
    """Without this, a wrong name would be found only after the base model was evaluated."""
    check = getattr(choice.module, "check", None)
    if check is not None:
        check(choice.settings)
