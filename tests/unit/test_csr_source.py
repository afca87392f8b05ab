import random
from statistics import mean
from typing import Any

import pytest
from pydantic import ValidationError

from csr.annotations import Evidence
from csr.protocols import SourceTools, StepSettings
from csr.samplers import scripted
from csr.sources.csr import (
    PRESETS,
    Config,
    PairFilter,
    build,
    pairing_settings,
    resolve,
    search_settings,
)
from csr.types import (
    PairingResult,
    Prompt,
    ResponseTree,
    StepCandidate,
    StepGroup,
    StepRequest,
)
from rewards.settings import REWARD_PRESETS
from tests.trees import (
    POLICY,
    FunctionScorer,
    SpeakingSampler,
    eos_step,
    make_prompt,
    make_step,
    no_progress,
)


def test_presets_name_the_same_settings():
    assert {frozenset(settings) for settings in PRESETS.values()} == {frozenset(PRESETS["default"])}
    fields = set(Config.model_fields) | set(PairFilter.model_fields)
    assert set(PRESETS["default"]) == fields - {"preset", "pair_filter"}


# What each preset decides, one column a preset (the paper's and the released code's figures).
ROWS = {
    "step_rule": ("sentence", "period", "period"),
    "num_candidates": (5, 5, 5),
    "diversity": ("sample", "sample", "branch_first_token"),
    "temperature": (1.0, 1.0, 1.0),
    "top_p": (0.95, 0.95, 1.0),
    "keep_top": (3, 3, 1),
    "keep_bottom": (2, 2, 2),
    "prune_by": ("reward", "reward", "likelihood"),
    "response_reward": ("sum", "sum", "sum_over_depth_plus_one"),
    "pairing": ("extremes", "extremes", "extremes"),
    "require_eos": (True, False, False),
    "clean_text": (False, False, True),
    "min_margin_quantile": (0.1, 0.0, 0.0),
    "max_length_difference": (0.6, 1.0, 1.0),
    "max_step_tokens": (74, 74, 70),
}
REWARD_ROWS = {
    "calibration": ("centred", "literal", "sibling_rank"),
    "likelihood": ("mean_logprob", "product", "mean_logprob"),
    "image_weight": (0.9, 0.9, 0.9),
    "clamp_similarity_at_zero": (True, True, False),
}


@pytest.mark.parametrize(("column", "preset"), [(0, "default"), (1, "paper"), (2, "released")])
def test_a_preset_is_its_column_of_the_table(column: int, preset: str):
    settings = resolve(Config(preset=preset))
    assert {name: settings[name] for name in ROWS} == {n: row[column] for n, row in ROWS.items()}
    reward = REWARD_PRESETS[preset].model_dump()
    expected = {name: row[column] for name, row in REWARD_ROWS.items()}
    assert {name: reward[name] for name in REWARD_ROWS} == expected


def test_released_search_and_pairing():
    config = Config(preset="released")
    search, pairing = search_settings(config), pairing_settings(config)
    assert (search.keep_top, search.keep_bottom, search.prune_by) == (1, 2, "likelihood")
    assert search.steps == StepSettings(
        num_candidates=5,
        temperature=1.0,
        top_p=1.0,
        max_step_tokens=70,
        max_response_tokens=256,
        step_rule="period",
        diversity="branch_first_token",
    )
    assert (pairing.response_reward, pairing.clean_text) == ("sum_over_depth_plus_one", True)
    assert pairing.max_steps == 64


def test_every_override_reaches_the_settings():
    """Each setting, given another value than the preset's, is that value and changes no other."""
    others = {
        "step_rule": "period", "num_candidates": 7, "diversity": "branch_first_token",
        "temperature": 0.6, "top_p": 0.5, "duplicate_retries": 4, "max_steps": 3,
        "max_step_tokens": 9, "max_response_tokens": 90, "keep_top": 5, "keep_bottom": 6,
        "prune_by": "likelihood", "path_score": "mean", "response_reward": "mean",
        "pairing": "random",
        "require_eos": False, "clean_text": True, "min_margin": 0.2, "min_margin_quantile": 0.4,
        "max_length_difference": 0.7, "max_repetition": 0.8,
    }  # fmt: skip
    assert set(others) == set(PRESETS["default"])
    for name, value in others.items():
        given = {name: value}
        filters = PairFilter(**given) if name in PairFilter.model_fields else PairFilter()
        config = Config(pair_filter=filters) if name in PairFilter.model_fields else Config(**given)
        assert resolve(config) == {**PRESETS["default"], name: value}
        seen = (search_settings(config), pairing_settings(config))
        assert seen != (search_settings(Config()), pairing_settings(Config())), name


def test_zero_and_false_are_values():
    config = Config(keep_bottom=0, pair_filter=PairFilter(require_eos=False, min_margin_quantile=0))
    assert search_settings(config).keep_bottom == 0
    assert pairing_settings(config).require_eos is False
    assert pairing_settings(config).min_margin_quantile == 0


def test_a_stored_configuration_reads_back_as_itself():
    config = Config(preset="paper", keep_top=4, pair_filter=PairFilter(min_margin=0.5))
    assert Config.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep_top": 0, "keep_bottom": 0}, "no tree would grow"),
        ({"temperature": 0.0}, "all candidates of a node the same"),
        ({"keep_topp": 1}, "Extra inputs"),
        ({"pair_filter": {"max_length_difference": 1.5}}, "less than or equal to 1"),
    ],
)
def test_what_cannot_work_is_refused(settings: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        Config.model_validate(settings)


def test_greedy_with_branching_is_allowed():
    assert Config(temperature=0.0, diversity="branch_first_token").temperature == 0.0


# ---------------------------------------------------------------- whole searches


def run(config: Config, reward: FunctionScorer, num_prompts: int) -> PairingResult:
    sampler = scripted.build(scripted.Config())
    sampler.load_policy(POLICY)
    return run_with(config, sampler, reward, num_prompts)[1]


def tools(sampler: Any, scorer: FunctionScorer, seed: int) -> SourceTools:
    return SourceTools(
        policy=POLICY,
        sampler=sampler,
        scorer=scorer,
        similarity=None,
        seed=seed,
        progress=no_progress,
    )


def run_with(
    config: Config, sampler: object, scorer: FunctionScorer, num_prompts: int
) -> tuple[list[ResponseTree], PairingResult]:
    source = build(config)
    trees = source.generate(
        [make_prompt(f"p{index}") for index in range(num_prompts)],
        tools(sampler, scorer, seed=3),
    )
    return trees, source.pair(trees, Evidence())


def by_text(group: StepGroup, step: StepCandidate) -> float:
    """Random rewards of mean 0; a bare end is worth nothing, as in `centred`."""
    if not step.text:
        return 0.0
    return random.Random(f"{group.prompt.prompt_id}{step.text}").gauss(0, 1)


@pytest.mark.parametrize("preset", ["default", "paper", "released"])
def test_a_preset_runs_from_prompts_to_pairs(preset: str):
    result = run(Config(preset=preset), FunctionScorer(by_text), 12)
    assert len(result.pairs) + sum(result.skipped.values()) == 12
    assert len(result.pairs) >= 6
    for pair in result.pairs:
        assert pair.chosen.reward > pair.rejected.reward
        assert pair.source == "csr"
        same_prompt = [r for r in result.responses if r.prompt_id == pair.prompt.prompt_id]
        assert pair.chosen.reward == max(r.reward for r in same_prompt)


def test_the_policys_name_and_the_source_are_stored():
    trees, _ = run_with(Config(), scripted_sampler(), FunctionScorer(by_text), 2)
    assert [(tree.policy, tree.origin) for tree in trees] == [("base", "csr")] * 2


def scripted_sampler() -> object:
    sampler = scripted.build(scripted.Config())
    sampler.load_policy(POLICY)
    return sampler


def up_to_eight_sentences(request: StepRequest, rng: random.Random) -> StepCandidate:
    """Each sentence has its own likelihood; the response ends by chance, at eight surely."""
    if len(request.prefix) == 8 or (request.prefix and rng.random() < 0.2):
        return eos_step()
    return make_step(
        f" {rng.randrange(10**9)}.", [-rng.random()] * 3, token_ids=rng.sample(range(9**9), 3)
    )


def rank_of_siblings(group: StepGroup, step: StepCandidate) -> float:
    """What the released code does with random scores: minus position over number."""
    if not step.text:
        return 0.0
    spoken = sorted(s.text for s in group.candidates if s.text)
    return -(1 + spoken.index(step.text)) / len(spoken)


def positive(group: StepGroup, step: StepCandidate) -> float:
    """What the literal formula does with random cosines: some 25 +- 6, never below 0."""
    if not step.text:
        return 0.0
    return max(random.Random(step.text).gauss(25, 6), 0.0)


def mean_lengths(config: Config, scorer: FunctionScorer) -> tuple[float, float]:
    """Mean number of sentences of chosen and of rejected responses."""
    _, result = run_with(config, SpeakingSampler(up_to_eight_sentences), scorer, 40)
    assert len(result.pairs) >= 25
    return (
        mean(pair.chosen.num_steps for pair in result.pairs),
        mean(pair.rejected.num_steps for pair in result.pairs),
    )


def test_the_papers_sum_teaches_length_and_the_released_rule_brevity():
    """Scores are random, so whatever separates chosen from rejected is the rule's own doing."""
    chosen, rejected = mean_lengths(Config(preset="paper"), FunctionScorer(positive))
    assert chosen > 2 * rejected
    chosen, rejected = mean_lengths(Config(preset="released"), FunctionScorer(rank_of_siblings))
    assert rejected > 1.3 * chosen


def test_the_default_rule_teaches_neither():
    """Centred random rewards: extremes of a sum are longer on both sides alike."""
    any_length = Config(pair_filter=PairFilter(max_length_difference=1.0))
    chosen, rejected = mean_lengths(any_length, FunctionScorer(by_text))
    assert 0.8 < chosen / rejected < 1.25


def test_prompts_are_named_as_given():
    prompt: Prompt = make_prompt("a/b#c")
    with_tools = tools(SpeakingSampler(up_to_eight_sentences), FunctionScorer(by_text), seed=0)
    trees = build(Config()).generate([prompt], with_tools)
    deepest = max(trees[0].nodes, key=lambda node: node.depth)
    assert [node.depth for node in trees[0].path(deepest.node_id)] == list(
        range(1, deepest.depth + 1)
    )
