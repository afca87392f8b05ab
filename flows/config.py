"""A recipe: an experiment as data, validated before anything starts."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, model_validator

from csr.config import ComponentConfig, Location, Probability, locations
from csr.errors import ConfigError, shown
from csr.gates import Config as GatesConfig
from csr.prompt_files import PromptFiles
from csr.protocols import PreferenceSource
from csr.world.settings import Config as WorldConfig
from flows.choices import (
    BenchmarkChoice,
    CriticChoice,
    SamplerChoice,
    SimilarityChoice,
    SourceChoice,
    TrackerChoice,
    TrainerChoice,
)
from flows.per_iteration import merged, refuse_fixed
from flows.ray_settings import Config as RayConfig
from flows.reading import absolute_pattern, check_settings
from flows.recipe_file import apply_override, read_document
from flows.stopping import Config as StopConfig
from flows.validation import validate
from rewards.settings import REWARD_PRESETS
from rewards.settings import Config as RewardConfig

WORLD_MARK = "${world}"
COMPONENT_FIELDS = (
    "sampler", "source", "similarity", "second_similarity", "critic", "trainer", "tracker",
)  # fmt: skip
C = TypeVar("C", bound=ComponentConfig)


class DataConfig(PromptFiles):
    """Where prompts come from."""

    num_prompts_per_iteration: int = Field(default=128, ge=1)
    """Prompts sampled in one iteration."""
    prompt_order: Literal["fresh", "same"] = "fresh"
    """`fresh`: each iteration takes the next slice, cyclically; `same`: always the first
    slice, as the paper does (section 4.1)."""
    on_bad_record: Literal["error", "skip"] = "error"
    """`error`: a record that cannot be used (not JSON, a wrong or missing field, an id again, an
    unreadable image) stops the run before it starts; `skip`: it goes into the quarantine table."""
    max_bad_share: Probability = 0.05
    """Fraction of the prompt file's records that `skip` may leave out. Where more are bad, the
    run stops before anything is written: then the file is at fault, not a record."""

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        check_settings(self)
        return self


class PolicyConfig(ComponentConfig):
    """The model that improves itself."""

    model: Location
    """Directory or hub id of a Hugging Face vision-language model."""


class Recipe(ComponentConfig):
    """Everything that decides a run's result."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,47}$")
    """Names the run: lower-case letters, digits, "-" and "_". Runs of one name differ by seed."""
    seed: int = 0
    """Seeds sampling, pairing, training order and adapter initialisation."""
    num_iterations: int = Field(default=3, ge=0, le=99)
    """0 only evaluates the policy."""
    shard_size: int = Field(default=128, ge=1)
    """Prompts searched together; a shard is the unit that a resumed run keeps."""
    num_statistics_prompts: int = Field(default=128, ge=8)
    """Prompts whose sampled captions give the calibration its mean and deviation."""
    isolation: Literal["inline", "process"] = "inline"
    """`inline`: one process, whose engines stay warm beside the trainer. `process`: measure,
    sample, train and evaluate run in child processes, so that all memory is free before training,
    an engine that crashes fails one stage and not the run, and stages can have a time limit."""
    stage_timeout_seconds: float | None = Field(default=None, gt=0)
    """A stage (or shard) that takes longer, its engine's start included, is ended and counts as a
    lost engine: it is tried once more. Only with isolation `process` or `ray`; None is no limit."""
    ray: RayConfig | None = None
    """Workers of a Ray cluster that measure, sample and evaluate; null does it on this machine."""
    world: WorldConfig | None = None
    """The embedded world to build; `${world}` in any path below is its directory."""
    data: DataConfig
    policy: PolicyConfig
    sampler: SamplerChoice
    source: SourceChoice
    similarity: SimilarityChoice | None = None
    second_similarity: SimilarityChoice | None = None
    """Another image-text model beside it, which `reward.second_similarity_weight` counts."""
    reward: RewardConfig = RewardConfig()
    """Starts from the reward of the source's preset, where it names one."""
    per_iteration: dict[int, dict[str, Any]] = Field(default_factory=dict)
    """Iteration -> the settings that it alone has otherwise, e.g. `{2: {trainer: {name: sft}}}`. A
    section that names another component replaces the one above whole; others are merged."""
    critic: CriticChoice | None = None
    """Who says which responses are fit to learn from, for sources that go by such verdicts."""
    trainer: TrainerChoice
    evaluation: tuple[BenchmarkChoice, ...] = ()
    stop: StopConfig | None = None
    """What ends the run before its last iteration; null always goes on to that."""
    gates: GatesConfig | None = GatesConfig()
    """What stops the loop before it does harm; null judges nothing."""
    tracker: TrackerChoice | None = Field(default=None, exclude=True)
    """Where the figures are shown besides, such as `tensorboard`. It decides nothing of what a run
    makes: it is no part of the run's ID or its stored configuration, and may change at any time."""
    probe_tolerance: float = Field(default=1e-3, gt=0)
    """Largest difference in nats per token allowed between the sampler's and the trainer's
    log-probabilities of a freshly loaded policy (fp32; use about 0.1 in bf16)."""

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        source = self.source.build()
        if (
            source.step_settings is not None
            and self.similarity is None
            and self.reward.image_weight > 0
        ):
            raise ValueError(
                f"reward.image_weight is {self.reward.image_weight}, but there is no `similarity` "
                "to compare image and text. Name one, or set reward.image_weight to 0."
            )
        self._check_source(source)
        wanted = source.step_settings is not None and self.reward.second_similarity_weight > 0
        if wanted != (self.second_similarity is not None):
            raise ValueError(
                "second_similarity and a reward.second_similarity_weight above 0 go together, for "
                "sources whose steps are rewarded. Give both, or neither."
            )
        away = self.isolation == "process" or self.ray is not None
        if not away and self.stage_timeout_seconds is not None:
            raise ValueError(
                f"stage_timeout_seconds is {self.stage_timeout_seconds}, but a stage that runs "
                "inline cannot be ended. Set isolation to process, or leave the limit out."
            )
        refuse_fixed(self.per_iteration, self.num_iterations)
        names = [choice.name for choice in self.evaluation]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"evaluation names {repeated[0]!r} twice, and the figures of one would overwrite "
                "those of the other. Keep one, or put the questions into one file."
            )
        figures = [getattr(choice.module, "FIGURES", choice.name) for choice in self.evaluation]
        if len(set(figures)) < len(figures):
            raise ValueError(f"of {', '.join(names)} two report figures of one name. Keep one.")
        return self

    def _check_source(self, source: PreferenceSource) -> None:
        name, trainer = self.source.name, self.trainer.name
        if source.needs_critic and self.critic is None:
            raise ValueError(
                f"the source {name!r} goes by a critic's verdicts, and there is no `critic`. Name "
                "one, such as `human`."
            )
        if self.critic is not None and not source.needs_critic:
            raise ValueError(
                f"the source {name!r} asks no critic, so `critic` would have no effect. Leave it "
                "out."
            )
        asks = getattr(self.source.module, "needs_json_schema", None)
        follows = getattr(self.sampler.module, "FOLLOWS_JSON_SCHEMA", False)
        if asks is not None and asks(self.source.settings) and not follows:
            raise ValueError(
                f"the source {name!r} asks for responses that follow a JSON schema, which the "
                f"sampler {self.sampler.name!r} cannot force. Set the sampler to `vllm`."
            )
        if source.makes != self.trainer.module.READS:
            raise ValueError(
                f"the trainer {trainer!r} learns from {self.trainer.module.READS}, and the source "
                f"{name!r} makes {source.makes}. Choose a trainer and a source that go together."
            )

    @model_validator(mode="before")
    @classmethod
    def _start_from_preset(cls, value: Any) -> Any:
        source = value.get("source") if isinstance(value, dict) else None
        preset = source.get("preset") if isinstance(source, dict) else None
        if not isinstance(preset, str) or preset not in REWARD_PRESETS:
            return value
        given = value.get("reward") or {}
        if not isinstance(given, dict):
            return value
        return {**value, "reward": {**REWARD_PRESETS[preset].model_dump(), **given}}


def of_iteration(recipe: Recipe, iteration: int) -> Recipe:
    """The recipe as that iteration follows it. ConfigError where the two do not go together."""
    document = json.loads(recipe.model_dump_json())
    changes = document.pop("per_iteration").get(str(iteration), {})
    return validate(Recipe, merged(document, changes), f"{recipe.name}, iteration {iteration}")


def load_recipe(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """The recipe in a YAML file with `a.b=value` overrides applied and its paths absolute.

    ConfigError names the file, the place and the nearest valid setting.
    """
    recipe = validate(Recipe, read_document(path, overrides, COMPONENT_FIELDS), path.name)
    if recipe.world is None and WORLD_MARK in recipe.model_dump_json():
        raise ConfigError(
            f"{path.name}: a path begins with {WORLD_MARK}, but the recipe has no `world`. Add "
            "`world: {}` to build the embedded world, or name your own files."
        )
    for iteration in recipe.per_iteration:
        of_iteration(recipe, iteration)
    return resolve_paths(recipe)


def overridden(config: dict[str, Any], overrides: tuple[str, ...], where: str) -> Recipe:
    """A stored configuration with `a.b=value` overrides applied. ConfigError as `load_recipe`."""
    document = copy.deepcopy(config)
    for override in overrides:
        apply_override(document, override)
    return resolve_paths(validate(Recipe, document, where))


def resolve_world(recipe: Recipe, world_dir: Path) -> Recipe:
    """The recipe with `${world}` replaced by the world's directory."""
    document = json.loads(recipe.model_dump_json())
    world = document.pop("world")
    text = json.dumps(document).replace(WORLD_MARK, json.dumps(str(world_dir))[1:-1])
    resolved = validate(Recipe, {**json.loads(text), "world": world}, recipe.name)
    return resolved.model_copy(update={"tracker": recipe.tracker})


def resolve_paths(recipe: Recipe) -> Recipe:
    """The recipe with every existing path made absolute: a resumed run may start elsewhere."""

    def component(choice: Any) -> Any:
        return choice and choice.with_settings(absolute_paths(choice.settings))

    return recipe.model_copy(
        update={
            "data": absolute_paths(recipe.data),
            "policy": absolute_paths(recipe.policy),
            **{name: component(getattr(recipe, name)) for name in COMPONENT_FIELDS},
            "evaluation": tuple(component(choice) for choice in recipe.evaluation),
            "per_iteration": {
                iteration: _sections(resolve_paths(of_iteration(recipe, iteration)), changes)
                for iteration, changes in recipe.per_iteration.items()
            },
        }
    )


def _sections(recipe: Recipe, names: Iterable[str]) -> dict[str, Any]:
    document = json.loads(recipe.model_dump_json())
    return {name: document[name] for name in names}


def recipe_sha256(recipe: Recipe) -> str:
    """Digest of the resolved recipe, independent of key order."""
    document = json.loads(recipe.model_dump_json())
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def run_id_of(recipe: Recipe) -> str:
    """`<name>-<four hex digits of the recipe>`: the same command finds the same run."""
    return f"{recipe.name}-{recipe_sha256(recipe)[:4]}"


def absolute_paths(settings: C) -> C:
    """With every location that exists as an absolute path; `~` is the user's home."""
    found = {name: _existing(name, value) for name, value in locations(settings).items()}
    return settings.model_copy(update={name: path for name, path in found.items() if path})


def _existing(name: str, value: str) -> str | None:
    """The absolute path of what exists; None for what may be a name of something elsewhere."""
    try:
        path = Path(value).expanduser()
        absolute = os.path.abspath(path) if path.exists() else absolute_pattern(path)
        (absolute or value).encode()  # records are kept as UTF-8
    except (OSError, RuntimeError, UnicodeEncodeError) as error:
        reason = getattr(error, "strerror", error)
        raise ConfigError(
            f"{name}: {shown(value)} is not a usable path ({reason}). Give another."
        ) from None
    return absolute
