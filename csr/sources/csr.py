"""CSR: calibrated self-rewarding (arXiv:2405.14622).

The policy grows a tree of sentences for each prompt. Each sentence is rewarded when it
is sampled; the best and the worst of a level go on. The best and the worst complete
response of a prompt become its preference pair.

What differs between the paper, its released code and our recommendation is a row of
`PRESETS`; all three run the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Literal

from pydantic import Field, model_validator

from csr.annotations import Evidence
from csr.config import ComponentConfig
from csr.growth import PathScore, PruneBy, SearchSettings
from csr.pairing import PairChoice, PairingSettings, pair_trees
from csr.planning import ExpectedResponse, PlannedWork, tree_calls
from csr.protocols import (
    Diversity,
    PreferenceSource,
    SourceTools,
    StepRule,
    StepSettings,
    TrainingTable,
)
from csr.responses import ResponseReward
from csr.search import search
from csr.types import PairingResult, Prompt, ResponseTree

Preset = Literal["default", "paper", "released"]
PAIRING_SETTINGS = ("response_reward", "pairing", "pair_filter")

PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        "step_rule": "sentence",
        "num_candidates": 5, "diversity": "sample", "temperature": 1.0, "top_p": 0.95,
        "duplicate_retries": 1,
        "max_steps": 12, "max_step_tokens": 74, "max_response_tokens": 512,
        "keep_top": 3, "keep_bottom": 2, "prune_by": "reward", "path_score": "sum",
        "response_reward": "sum", "pairing": "extremes",
        "require_eos": True, "clean_text": False,
        "min_margin": 0.0, "min_margin_quantile": 0.1,
        "max_length_difference": 0.6, "max_repetition": 0.5,
    },
    "paper": {
        "step_rule": "period",
        "num_candidates": 5, "diversity": "sample", "temperature": 1.0, "top_p": 0.95,
        "duplicate_retries": 1,
        "max_steps": 64, "max_step_tokens": 74, "max_response_tokens": 1024,
        "keep_top": 3, "keep_bottom": 2, "prune_by": "reward", "path_score": "sum",
        "response_reward": "sum", "pairing": "extremes",
        "require_eos": False, "clean_text": False,
        "min_margin": 0.0, "min_margin_quantile": 0.0,
        "max_length_difference": 1.0, "max_repetition": 1.0,
    },
    "released": {
        "step_rule": "period",
        "num_candidates": 5, "diversity": "branch_first_token", "temperature": 1.0, "top_p": 1.0,
        "duplicate_retries": 0,
        "max_steps": 64, "max_step_tokens": 70, "max_response_tokens": 256,
        "keep_top": 1, "keep_bottom": 2, "prune_by": "likelihood", "path_score": "sum",
        "response_reward": "sum_over_depth_plus_one", "pairing": "extremes",
        "require_eos": False, "clean_text": True,
        "min_margin": 0.0, "min_margin_quantile": 0.0,
        "max_length_difference": 1.0, "max_repetition": 1.0,
    },
}  # fmt: skip
"""Every setting of every preset. The reward that goes with each is configured apart:
`REWARD_PRESETS` in rewards/settings.py has the same names.

- `default` sums rewards that are centred, so that stopping is worth 0 and a poor sentence
  costs: a sum of literal rewards pays for length, a mean for brevity (docs/rewards.md). Its
  filters are wide: of short responses, a narrow one drops just the pairs whose rejected side
  says one false thing more.
- `paper`: the text of arXiv:2405.14622. It samples with group beam search, which current
  engines no longer have; independent samples stand in.
- `released`: the published code. Its 1,024 characters, prompt included, are about 256 tokens.
  Where five or fewer nodes are unfinished it keeps them all; we keep one and two. It takes
  unclean steps out before it ranks their siblings; here they keep their rank, and the
  responses that hold one are left out of the pairs.
"""


class PairFilter(ComponentConfig):
    """Which responses and pairs are fit to train on. None takes the preset's value."""

    require_eos: bool | None = None
    """Whether only responses that ended by themselves are compared."""
    min_margin: float | None = Field(default=None, ge=0)
    """Smallest difference of the two response rewards. A difference of 0 never makes a pair."""
    min_margin_quantile: float | None = Field(default=None, ge=0, lt=1)
    """Share of the pairs, those with the smallest margins, that is left out."""
    max_length_difference: float | None = Field(default=None, ge=0, le=1)
    """Largest difference in tokens over the longer response; 1 allows any."""
    max_repetition: float | None = Field(default=None, ge=0, le=1)
    """Largest share of a response's four-word runs that repeat an earlier one; 1 allows any."""
    clean_text: bool | None = None
    """Whether responses with foreign scripts, junk or endless repetition are left out."""


class Config(ComponentConfig):
    """A preset, and whatever departs from it. None takes the preset's value."""

    preset: Preset = "default"
    """`default`: our recommendation; `paper`: arXiv:2405.14622; `released`: its public code."""
    step_rule: StepRule | None = None
    """Where a step ends: at the end of a sentence, or at any "."."""
    num_candidates: int | None = Field(default=None, ge=1)
    """Next steps sampled for each node (5 in section 4.1)."""
    diversity: Diversity | None = None
    """How the candidates differ: independent samples, or the likeliest first tokens."""
    temperature: float | None = Field(default=None, ge=0)
    """Sampling temperature; 0 is greedy."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Probability mass that is sampled from."""
    duplicate_retries: int | None = Field(default=None, ge=0)
    """Further samplings of a node whose candidates coincide."""
    max_steps: int | None = Field(default=None, ge=1)
    """Steps of a response, a bare end included."""
    max_step_tokens: int | None = Field(default=None, ge=1)
    """Tokens of one step; a longer one is cut and goes on as the next."""
    max_response_tokens: int | None = Field(default=None, ge=1)
    """Tokens of a whole response."""
    keep_top: int | None = Field(default=None, ge=0)
    """Best unfinished nodes of a level that are expanded, for each prompt (section 3.1)."""
    keep_bottom: int | None = Field(default=None, ge=0)
    """Worst unfinished nodes that are expanded too."""
    prune_by: PruneBy | None = None
    """What ranks the nodes of a level."""
    path_score: PathScore | None = None
    """How step values make the stored `cumulative_reward`; it does not change what is kept."""
    response_reward: ResponseReward | None = None
    """How step rewards make a response's."""
    pairing: PairChoice | None = None
    """Which responses are compared; see `csr.pairing.PairChoice`. `random` is the control that
    any gain must be measured against."""
    pair_filter: PairFilter = PairFilter()
    """Which pairs are kept."""

    @model_validator(mode="after")
    def _check(self) -> Config:
        settings = search_settings(self)
        if settings.keep_top + settings.keep_bottom == 0:
            raise ValueError("keep_top and keep_bottom are both 0: no tree would grow past a step")
        steps = settings.steps
        if steps.temperature == 0 and steps.diversity == "sample" and steps.num_candidates > 1:
            raise ValueError(
                "temperature 0 makes all candidates of a node the same: raise it, or set "
                "diversity to branch_first_token"
            )
        return self


def resolve(config: Config) -> dict[str, Any]:
    """Every setting by name: the preset's, unless the configuration gives another."""
    given = {**dict(config), **dict(config.pair_filter)}
    return {
        name: value if given[name] is None else given[name]
        for name, value in PRESETS[config.preset].items()
    }


def resolved(config: Config) -> Config:
    """The same configuration with every preset value written out."""
    values = resolve(config)
    own = {name: value for name, value in values.items() if name in Config.model_fields}
    pair_filter = {name: value for name, value in values.items() if name not in own}
    return config.model_copy(update={**own, "pair_filter": PairFilter(**pair_filter)})


def search_settings(config: Config) -> SearchSettings:
    """How trees grow under this configuration."""
    settings = resolve(config)
    steps = StepSettings(**_only(StepSettings, settings))
    return SearchSettings(steps=steps, **_only(SearchSettings, settings))


def pairing_settings(config: Config) -> PairingSettings:
    """How pairs are made under this configuration."""
    return PairingSettings(**_only(PairingSettings, resolve(config)))


def _only(settings_class: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that are fields of `settings_class`."""
    return {f.name: settings[f.name] for f in fields(settings_class) if f.name in settings}


def build(config: Config) -> PreferenceSource:
    """The source with its settings resolved."""
    return CSRSource(search_settings(config), pairing_settings(config))


def planned_work(config: Config, expected: ExpectedResponse) -> PlannedWork:
    """A tree whose every path has the expected sentences, and ends with the last of them."""
    search = search_settings(config)
    calls = tree_calls(
        expected,
        num_candidates=search.steps.num_candidates,
        num_kept=search.keep_top + search.keep_bottom,
        max_steps=search.max_steps,
        max_step_tokens=search.steps.max_step_tokens,
        max_response_tokens=search.steps.max_response_tokens,
    )
    num_nodes = sum(call.num_sequences for call in calls)
    return PlannedWork(
        calls=calls,
        in_waves=True,
        num_compared_texts=num_nodes,
        num_nodes=num_nodes,
        node_tokens=calls[0].generated_tokens,
        num_responses=calls[-1].num_sequences,
        lesson_tokens=len(calls) * calls[0].generated_tokens,
        notes=(
            "No path of a tree ends before its last sentence, and no two candidates of a node "
            "are the same: a real tree is smaller by the first, and retries make it larger by the "
            "second.",
            "Every prompt gives a pair; the pair filter leaves some out.",
        ),
    )


class CSRSource:
    """Step-wise search, then the best against the worst. Implements `PreferenceSource`."""

    makes: TrainingTable = "pairs"
    needs_critic = False

    def __init__(self, search_settings: SearchSettings, pairing_settings: PairingSettings) -> None:
        self.search_settings = search_settings
        self.pairing_settings = pairing_settings

    @property
    def step_settings(self) -> StepSettings:
        """How `generate` samples steps."""
        return self.search_settings.steps

    def generate(self, prompts: Sequence[Prompt], tools: SourceTools) -> list[ResponseTree]:
        """One tree for each prompt, in prompt order."""
        assert tools.scorer is not None, "there are step settings"
        return search(
            prompts,
            sampler=tools.sampler,
            scorer=tools.scorer,
            settings=self.search_settings,
            seed=tools.seed,
            policy_name=tools.policy.name,
            origin="csr",
            progress=tools.progress,
        )

    def pair(self, trees: Sequence[ResponseTree], evidence: Evidence) -> PairingResult:
        """At most one pair for each tree, and the reason for each tree without one."""
        return pair_trees(trees, self.pairing_settings)
