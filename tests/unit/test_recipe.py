"""Recipes: every shipped one parses, faults name their place, paths and presets are resolved."""

import json
from pathlib import Path

import pytest
import yaml

from csr.config import ComponentConfig, Location, locations
from csr.errors import ConfigError
from flows.choices import BenchmarkChoice, SamplerChoice, SimilarityChoice
from flows.components import load
from flows.config import Recipe, load_recipe, resolve_world, run_id_of
from flows.inputs import component_inputs
from flows.validation import validate
from tests.scripted_run import write_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_parses_and_survives_storage(path: Path) -> None:
    recipe = load_recipe(path)
    stored = json.loads(recipe.model_dump_json())
    assert validate(Recipe, stored, "stored") == recipe
    assert path.read_text().startswith("#"), "a recipe says what it is for and how to launch it"


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 3


def test_all_faults_are_told_at_once_each_with_its_place(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "data", num_iterations=-1, probe_tolerance="x")
    overrides = ("source.pair_filter.min_magin=1", "reward.offest=1")
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe, overrides)
    lines = sorted(str(caught.value).splitlines())
    assert [line.split(": ")[:2] for line in lines] == [
        ["scripted.yaml", "num_iterations"],
        ["scripted.yaml", "probe_tolerance"],
        ["scripted.yaml", "reward.offest"],
        ["scripted.yaml", "source.pair_filter.min_magin"],
    ]
    assert "Did you mean 'offset'?" in lines[2]
    assert "Did you mean 'min_margin'?" in lines[3]


def test_an_override_makes_the_mappings_on_its_way(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path / "data"), ("reward.image_weight=0.25", "seed=7"))
    assert recipe.reward.image_weight == 0.25
    assert recipe.seed == 7


def test_the_sources_preset_decides_the_reward_unless_the_recipe_does(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "data")
    released = load_recipe(path, ("source.preset=released", "reward.image_weight=0.5"))
    assert released.reward.calibration == "sibling_rank"
    assert released.reward.image_weight == 0.5
    assert load_recipe(path).reward.calibration == "centred"


def test_the_run_id_follows_the_recipe_and_not_the_order_of_its_keys(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "data")
    run_id = run_id_of(load_recipe(path))
    assert run_id.startswith("scripted-")
    lines = path.read_text()
    path.write_text("seed: 0\n" + lines)
    assert run_id_of(load_recipe(path)) == run_id
    assert run_id_of(load_recipe(path, ("seed=1",))) != run_id


def test_the_worlds_directory_is_put_in(tmp_path: Path) -> None:
    recipe = load_recipe(next(path for path in RECIPES if path.name == "tiny.yaml"))
    directory = tmp_path / 'a "world"'
    resolved = resolve_world(recipe, directory)
    assert resolved.policy.model == f"{directory}/policy"
    assert resolved.evaluation[0].settings.vocabulary == f"{directory}/data/vocabulary.json"
    assert resolved.world == recipe.world


def test_a_component_is_its_module_and_may_be_named_alone() -> None:
    choice = SamplerChoice.model_validate("scripted")
    assert choice == SamplerChoice.model_validate({"name": "scripted"})
    assert choice.model_dump()["spread"] == 2.0
    assert type(choice.build()).__name__ == "ScriptedSampler"
    with pytest.raises(ConfigError, match="Known: scripted, server, transformers, vllm"):
        load("csr.samplers", "_shared")


class Places(ComponentConfig):
    """A configuration of every kind of location."""

    plain: Location
    optional: Location | None = None
    text: str = "here"


def test_locations_are_the_declared_and_given_ones() -> None:
    assert locations(Places(plain="a")) == {"plain": "a"}
    assert locations(Places(plain="a", optional="b")) == {"plain": "a", "optional": "b"}


def test_a_file_counts_by_content_not_by_place(tmp_path: Path) -> None:
    def inputs(folder: str, text: str) -> object:
        (tmp_path / folder / "images").mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "q.jsonl").write_text(text)
        files = {"prompts": str(tmp_path / folder / "q.jsonl"), "images": str(tmp_path / folder)}
        return component_inputs(BenchmarkChoice.model_validate({"name": "captions", **files}))

    assert inputs("one", "a") == inputs("two", "a")
    assert inputs("one", "a") != inputs("one", "bc")


def test_a_model_directory_counts_by_its_weights_and_configuration(tmp_path: Path) -> None:
    def inputs() -> object:
        choice = {"name": "clip", "model": str(tmp_path)}
        return component_inputs(SimilarityChoice.model_validate(choice))

    (tmp_path / "open_clip_model.safetensors").write_bytes(b"one")
    first = inputs()
    (tmp_path / "README.md").write_text("about")
    assert inputs() == first
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"two!")
    assert inputs() != first


def test_a_name_that_is_no_path_stays_a_name() -> None:
    choice = SimilarityChoice.model_validate(
        {"name": "clip", "model": "ViT-L-14-336", "pretrained": "openai"}
    )
    assert component_inputs(choice)["model"] == "ViT-L-14-336"
    assert component_inputs(None) is None


def test_a_recipe_names_servers_and_a_wrong_address_is_told_with_its_place(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    servers = 'sampler={"name": "server", "endpoints": ["http://gpu-1:8000/v1"], "num_retries": 1}'
    recipe = load_recipe(path, (servers,))
    assert recipe.sampler.settings.endpoints == ("http://gpu-1:8000",)
    assert validate(Recipe, json.loads(recipe.model_dump_json()), "stored") == recipe
    for wrong, said in (("gpu-1:8000", "not the address"), ("http://a:b@gpu-1", "api_key_env")):
        named = f'sampler={{"name": "server", "endpoints": ["{wrong}"]}}'
        with pytest.raises(ConfigError, match=rf"sampler.*{said}") as caught:
            load_recipe(path, (named,))
        assert "a:b" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"sampler\.endpoint: .*Did you mean 'endpoints'"):
        load_recipe(path, ('sampler={"name": "server", "endpoint": "http://gpu-1:8000"}',))


def test_a_time_limit_needs_a_process_to_end(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    with pytest.raises(
        ConfigError, match=r"stage_timeout_seconds is 5\.0, .* isolation to process"
    ):
        load_recipe(recipe, ("stage_timeout_seconds=5",))
    limited = load_recipe(recipe, ("stage_timeout_seconds=5", "isolation=process"))
    assert limited.stage_timeout_seconds == 5
    assert load_recipe(recipe).isolation == "inline"


def test_dates_stay_dates_whatever_another_package_does_to_yaml(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that vLLM loads for structured output reads them as text everywhere."""
    as_text = yaml.SafeLoader.yaml_constructors["tag:yaml.org,2002:str"]
    tag = "tag:yaml.org,2002:timestamp"
    monkeypatch.setitem(yaml.SafeLoader.yaml_constructors, tag, as_text)
    (tmp_path / "recipe.yaml").write_text("name: 2024-99-99\n")
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        load_recipe(tmp_path / "recipe.yaml")
