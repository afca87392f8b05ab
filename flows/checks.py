"""What can be found wrong with a run before anything is written or any engine is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from csr.checkpoints import base_policy, check_weights, resolve_model
from csr.errors import ConfigError
from csr.prompt_files import PromptFiles, image_root
from csr.prompts import LoadedPrompts, PromptCheck, checked_prompts, require_image_folder
from csr.protocols import Json
from csr.rendering import load_processor
from csr.types import Prompt
from flows.choices import SimilarityChoice
from flows.config import WORLD_MARK, Recipe, of_iteration
from flows.faults import Faults
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

    One CSRError tells the first fault of each: model, similarities, benchmarks, prompts, image
    folder. Where there is one, the images are not looked at any more. Nothing is written.
    """
    faults = Faults()
    changed = {number: of_iteration(recipe, number) for number in recipe.per_iteration}
    model = _usable_model(recipe, [recipe, *changed.values()], faults)
    needed = SMALLEST_FREE_BYTES
    if model is not None:
        weight_bytes = sum(file.stat().st_size for file in model.glob("*.safetensors"))
        needed += int(weight_bytes * ITERATION_BYTES_PER_WEIGHT_BYTE * recipe.num_iterations)
        require_free_space(home, needed)
    held_out = _held_out(recipe, changed, faults)
    images = ImageStore(home)
    own = {
        number: _load(each, [each], model, images, faults)
        for number, each in changed.items()
        if _differs(each, recipe)
    }
    sharing = [each for number, each in changed.items() if number not in own]
    loaded = _load(recipe, [recipe, *sharing], model, images, faults)
    faults.raise_all()
    everything = [loaded, *own.values()]
    require_free_space(home, needed + images.missing_bytes([o.kept_images for o in everything]))
    refuse_leaks(held_out, [prompt for found in everything for prompt in found.prompts])
    policy = dataclasses.asdict(base_policy(recipe.policy.model))
    return CheckedInputs(prompts=loaded, own_prompts=own, base_policy=policy)


def _usable_model(recipe: Recipe, readers: Sequence[Recipe], faults: Faults) -> Path | None:
    """The model's directory; None where it, or what is to be used with it, has a fault."""
    found = None
    with faults.noted("policy", recipe.policy):
        model = resolve_model(recipe.policy.model)
        for each in readers:
            _check_model(each, model)
        check_weights(sorted(model.glob("*.safetensors")))
        found = model
    for each in readers:
        for section in ("similarity", "second_similarity"):
            choice: SimilarityChoice | None = getattr(each, section)
            if choice is not None:
                with faults.noted(section, choice.settings):
                    _check_similarity(choice)
    return found


def _held_out(
    recipe: Recipe, changed: Mapping[int, Recipe], faults: Faults
) -> list[tuple[str, Sequence[Prompt]]]:
    """Each benchmark's name and prompts; an iteration counts where it has its own benchmarks."""
    others = {n: each for n, each in changed.items() if each.evaluation != recipe.evaluation}
    sections = {"evaluation": recipe} | {f"per_iteration.{n}.evaluation": others[n] for n in others}
    found: list[tuple[str, Sequence[Prompt]]] = []
    for section, each in sections.items():
        for place, choice in enumerate(each.evaluation):
            with faults.noted(f"{section}.{place} ({choice.name})", choice.settings):
                found.append((choice.name, choice.build().prompts()))
    return found


def _differs(one: Recipe, other: Recipe) -> bool:
    """Whether the two read other prompts."""
    return any(
        getattr(one.data, name) != getattr(other.data, name) for name in PromptFiles.model_fields
    )


def _load(
    recipe: Recipe,
    readers: Sequence[Recipe],
    model: Path | None,
    images: ImageStore,
    faults: Faults,
) -> LoadedPrompts:
    """The recipe's prompts that every reader can use; none where there is a fault."""
    data, loaded, raw = recipe.data, LoadedPrompts(prompts=()), None
    checks = [check for reader in readers for check in _prompt_checks(reader, model, faults)]

    def check(prompt: Prompt, image_size: tuple[int, int]) -> None:
        for each in checks:
            each(prompt, image_size)

    with faults.noted("data", data):
        require_image_folder(image_root(data))
    with faults.noted("data", data):
        raw = read_records(data)
    if faults or raw is None:
        return loaded
    with faults.noted("data", data), stage_progress("check prompts and images") as progress:
        loaded = checked_prompts(
            raw,
            image_place=images.path,
            on_bad_record=data.on_bad_record,
            max_bad_share=data.max_bad_share,
            check=check,
            progress=progress,
        )
    return loaded


def refuse_leaks(
    held_out: Sequence[tuple[str, Sequence[Prompt]]], prompts: Sequence[Prompt]
) -> None:
    """ConfigError where one image, by content, serves both training and evaluation."""
    trained_on = {prompt.image.sha256: prompt.prompt_id for prompt in prompts}
    for benchmark, asked in held_out:
        for prompt in asked:
            if prompt.image.sha256 in trained_on:
                raise ConfigError(
                    f"The image {prompt.image.uri} of the benchmark {benchmark!r} is also the "
                    f"image of the training prompt {trained_on[prompt.image.sha256]!r}. Held-out "
                    "images are never trained on: remove it from one of the two files."
                )


def _prompt_checks(recipe: Recipe, model: Path | None, faults: Faults) -> list[PromptCheck]:
    """What sampler and source refuse; without this, it would be found after hours."""
    checks: list[PromptCheck] = []
    make = getattr(recipe.sampler.module, "check_prompts", None)
    if make is not None and model is not None:
        with faults.noted("sampler", recipe.sampler.settings):
            checks.append(make(model, recipe.sampler.settings))
    if make := getattr(recipe.source.module, "check_prompts", None):
        with faults.noted("source", recipe.source.settings):
            checks.append(make(recipe.source.settings))
    return checks


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


def _check_similarity(choice: SimilarityChoice) -> None:
    """Without this, a wrong name would be found only after the base model was evaluated."""
    check = getattr(choice.module, "check", None)
    if check is not None:
        check(choice.settings)
