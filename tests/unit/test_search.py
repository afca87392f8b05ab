import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csr.errors import DataError, NumericalError
from csr.growth import SearchSettings
from csr.protocols import Sampler, StepSettings
from csr.samplers import scripted
from csr.search import search
from csr.types import FinishReason, Prompt, ResponseTree, StepCandidate, StepGroup, StepRequest
from tests.trees import (
    POLICY,
    FunctionScorer,
    SpeakingSampler,
    babble,
    eos_step,
    make_prompt,
    make_step,
    no_progress,
)

STEPS = StepSettings(
    num_candidates=4, temperature=1.0, top_p=1.0, max_step_tokens=50, max_response_tokens=500
)
SETTINGS = SearchSettings(
    steps=STEPS,
    keep_top=2,
    keep_bottom=1,
    prune_by="reward",
    path_score="sum",
    max_steps=5,
    duplicate_retries=1,
)


def text_reward(group: StepGroup, step: StepCandidate) -> float:
    """A reward that looks random and depends on prompt and text alone."""
    return random.Random(f"{group.prompt.prompt_id}/{step.text}").uniform(-1, 1)


def grow(
    prompts: list[Prompt],
    sampler: Sampler | None = None,
    scorer: FunctionScorer | None = None,
    settings: SearchSettings = SETTINGS,
    seed: int = 0,
) -> list[ResponseTree]:
    return search(
        prompts,
        sampler=sampler or SpeakingSampler(babble),
        scorer=scorer or FunctionScorer(text_reward),
        settings=settings,
        seed=seed,
        policy_name="base",
        origin="csr",
        progress=no_progress,
    )


def some_prompts(num_prompts: int) -> list[Prompt]:
    return [make_prompt(f"p{index}") for index in range(num_prompts)]


# ---------------------------------------------------------------- a tree worked by hand


def fixed_speech(replies: dict[str, list[str]]) -> SpeakingSampler:
    """Answers a prefix's text with the listed steps in turn; "" is the end."""
    turn: dict[tuple[str, int], int] = {}

    def speak(request: StepRequest, rng: random.Random) -> StepCandidate:
        prefix = "".join(step.text for step in request.prefix)
        key = (prefix, request.seed)
        turn[key] = turn.get(key, -1) + 1
        text = replies[prefix][turn[key] % len(replies[prefix])]
        return make_step(text) if text else eos_step()

    return SpeakingSampler(speak)


REWARDS = {" a.": 3.0, " b.": 1.0, " c.": 2.0, " d.": -4.0, "": 0.0, " e.": 1.0, " f.": -1.0}


def table_reward(group: StepGroup, step: StepCandidate) -> float:
    return REWARDS[step.text]


def test_two_levels_by_hand():
    """Level 1: a 3, c 2, b 1, d -4; top 2 = a, c, bottom 1 = d. b is left.

    Level 2 below a, c, d: e 1, f -1, end 0. Growing: a.e 4, a.f 2, c.e 3, c.f 1, d.e -3, d.f -5.
    Top 2 = a.e, c.e, bottom 1 = d.f; below them there is only the end.
    """
    first, below = [" a.", " b.", " c.", " d."], [" e.", "", " f.", ""]
    sampler = fixed_speech({"": first, " a.": below, " c.": below, " d.": below})
    settings = replace(SETTINGS, max_steps=3)
    for prefix in (" a. e.", " c. e.", " d. f."):
        sampler_replies_end(sampler, prefix)
    (tree,) = grow([make_prompt("42")], sampler, FunctionScorer(table_reward), settings)
    assert [(n.node_id, n.step.text, n.kept) for n in tree.nodes if n.depth == 1] == [
        ("42/0", " a.", True),
        ("42/1", " b.", False),
        ("42/2", " c.", True),
        ("42/3", " d.", True),
    ]
    second = [n for n in tree.nodes if n.depth == 2]
    assert {n.node_id: (n.step.text, n.cumulative_reward, n.kept) for n in second} == {
        "42/0.0": (" e.", 4.0, True), "42/0.1": ("", 3.0, True), "42/0.2": (" f.", 2.0, False),
        "42/2.0": (" e.", 3.0, True), "42/2.1": ("", 2.0, True), "42/2.2": (" f.", 1.0, False),
        "42/3.0": (" e.", -3.0, False), "42/3.1": ("", -4.0, True), "42/3.2": (" f.", -5.0, True),
    }  # fmt: skip
    assert [n.parent_id for n in tree.nodes if n.depth == 3] == ["42/0.0", "42/2.0", "42/3.2"]
    # The second bare end below a, c and d, met once and again in the resampling; the one
    # below the level-2 nodes is said four times, and four times more: 3 x (1 + 4) + 3 x (3 + 4).
    assert tree.skipped == {"duplicate_sibling": 3 * 5 + 3 * 7}


def sampler_replies_end(sampler: SpeakingSampler, prefix: str) -> None:
    """Let the sampler answer `prefix` with the end alone."""
    before = sampler.speak

    def speak(request: StepRequest, rng: random.Random) -> StepCandidate:
        text = "".join(step.text for step in request.prefix)
        return eos_step() if text == prefix else before(request, rng)

    sampler.speak = speak


def test_pruning_by_likelihood_ignores_the_reward():
    """Likelihoods -1, -2, -3, -4 against rewards the other way round: 1 + 1 kept."""

    def speak(request: StepRequest, rng: random.Random) -> StepCandidate:
        if request.prefix:
            return eos_step()
        speak.count += 1  # type: ignore[attr-defined]
        return make_step(f" {speak.count}.", [-float(speak.count)] * 3)  # type: ignore[attr-defined]

    speak.count = 0  # type: ignore[attr-defined]
    settings = replace(SETTINGS, keep_top=1, keep_bottom=2, prune_by="likelihood")
    scorer = FunctionScorer(lambda group, step: float(step.text[1:] or 0))
    (tree,) = grow(some_prompts(1), SpeakingSampler(speak), scorer, settings)
    assert [n.step.text for n in tree.nodes if n.depth == 1 and n.kept] == [" 1.", " 3.", " 4."]


@pytest.mark.parametrize(("path_score", "expected"), [("sum", 4.0), ("mean", 2.0)])
def test_cumulative_reward(path_score: str, expected: float):
    sampler = fixed_speech({"": [" a."], " a.": [" e."], " a. e.": [""]})
    one = replace(STEPS, num_candidates=1)
    settings = replace(SETTINGS, steps=one, path_score=path_score)
    (tree,) = grow([make_prompt("42")], sampler, FunctionScorer(table_reward), settings)
    assert tree.nodes[1].cumulative_reward == expected


# ---------------------------------------------------------------- calls and independence


@pytest.mark.parametrize("num_prompts", [1, 3, 40])
def test_calls_do_not_grow_with_the_prompts(num_prompts: int):
    def speak(request: StepRequest, rng: random.Random) -> StepCandidate:
        if len(request.prefix) == 3:
            return eos_step()
        return make_step(f" {rng.random()}.")

    sampler, scorer = SpeakingSampler(speak), FunctionScorer(text_reward)
    settings = replace(SETTINGS, duplicate_retries=0)
    grow(some_prompts(num_prompts), sampler, scorer, settings)
    assert [len(call) for call in sampler.calls] == [num_prompts * n for n in (1, 3, 3, 3)]
    assert scorer.calls == [num_prompts * n for n in (1, 3, 3, 3)]


def test_duplicates_cost_one_more_call_a_level_for_the_nodes_concerned():
    """Prompt p0 says one thing only, the others never repeat themselves."""

    def speak(request: StepRequest, rng: random.Random) -> StepCandidate:
        same = request.prompt.prompt_id == "p0"
        return make_step(" same." if same else f" {rng.random()}.")

    sampler = SpeakingSampler(speak)
    settings = replace(SETTINGS, max_steps=1, duplicate_retries=2)
    trees = grow(some_prompts(3), sampler, settings=settings)
    assert [len(call) for call in sampler.calls] == [3, 1, 1]
    assert trees[0].skipped == {"duplicate_sibling": 3 + 4 + 4}
    assert [len(tree.nodes) for tree in trees] == [1, 4, 4]
    assert len({call[-1].seed for call in sampler.calls[1:]} | {sampler.calls[0][0].seed}) == 3


@pytest.mark.parametrize(
    "steps", [replace(STEPS, temperature=0.0), replace(STEPS, diversity="branch_first_token")]
)
def test_deterministic_candidates_are_not_asked_for_again(steps: StepSettings):
    sampler = SpeakingSampler(lambda request, rng: make_step(" same."))
    grow(some_prompts(1), sampler, settings=replace(SETTINGS, steps=steps, max_steps=1))
    assert len(sampler.calls) == 1


def test_one_text_in_two_spellings_is_one_candidate():
    spellings = [make_step(" a.", token_ids=[1, 2, 3]), make_step(" a.", token_ids=[4, 5])]
    ended = make_step(" a.", reason=FinishReason.EOS, token_ids=[4, 5, 0])
    answers = iter([*spellings, ended, spellings[0]])
    sampler = SpeakingSampler(lambda request, rng: next(answers))
    settings = replace(SETTINGS, max_steps=1, duplicate_retries=0)
    (tree,) = grow(some_prompts(1), sampler, settings=settings)
    assert [n.step.token_ids for n in tree.nodes] == [(1, 2, 3), (4, 5, 0)]
    assert tree.skipped == {"duplicate_sibling": 2}


def test_trees_do_not_depend_on_order_or_shard():
    prompts = some_prompts(9)
    together = grow(prompts)
    shuffled = [prompts[i] for i in (4, 0, 8, 2, 6, 1, 7, 3, 5)]
    assert sorted(grow(shuffled), key=lambda tree: tree.prompt.prompt_id) == together
    assert [*grow(prompts[:2]), *grow(prompts[2:])] == together
    assert grow(prompts, seed=1) != together


def test_progress_counts_prompts_that_are_done():
    def speak(request: StepRequest, rng: random.Random) -> StepCandidate:
        over = len(request.prefix) > int(request.prompt.prompt_id[1:])
        return eos_step() if over else make_step(f" {rng.random()}.")

    seen: list[tuple[int, int]] = []
    search(
        some_prompts(3),
        sampler=SpeakingSampler(speak),
        scorer=FunctionScorer(text_reward),
        settings=SETTINGS,
        seed=0,
        policy_name="base",
        origin="csr",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == sorted(seen)
    assert set(seen) == {(0, 3), (1, 3), (2, 3), (3, 3)}


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize(("max_response_tokens", "deepest"), [(10, 2), (11, 3)])
def test_a_response_stops_at_the_token_limit(max_response_tokens: int, deepest: int):
    """Five tokens a step: 5, 10, 15. Where they run out, the sampler says LENGTH."""

    def speak(request: StepRequest, rng: random.Random) -> StepCandidate:
        full = len(request.prefix_token_ids) + 5 >= max_response_tokens
        reason = FinishReason.LENGTH if full else FinishReason.STEP
        return make_step(f" {rng.randrange(1000):03}.", reason=reason)

    settings = replace(SETTINGS, max_steps=9)
    (tree,) = grow(some_prompts(1), SpeakingSampler(speak), settings=settings)
    assert max(node.depth for node in tree.nodes) == deepest
    assert not any(node.kept for node in tree.nodes if node.depth == deepest)


def test_a_step_cut_at_its_own_limit_goes_on_and_a_full_response_does_not():
    def depth(reason: FinishReason) -> int:
        def speak(request: StepRequest, rng: random.Random) -> StepCandidate:
            return make_step(f"{rng.randrange(10**6):06}", reason=reason)

        settings = replace(SETTINGS, max_steps=3)
        (tree,) = grow(some_prompts(1), SpeakingSampler(speak), settings=settings)
        return max(node.depth for node in tree.nodes)

    assert depth(FinishReason.CUT) == 3
    assert depth(FinishReason.LENGTH) == 1


@pytest.mark.parametrize("max_context_tokens", range(8, 30))
def test_a_context_that_fills_anywhere_ends_the_response_there(max_context_tokens: int):
    """A step that is cut exactly where the context ends goes no further either."""
    sampler = scripted.build(scripted.Config(max_context_tokens=max_context_tokens))
    sampler.load_policy(POLICY)
    settings = replace(SETTINGS, steps=replace(STEPS, max_step_tokens=3), max_steps=9)
    (tree,) = grow(some_prompts(1), sampler, settings=settings)
    num_prompt_tokens = 4
    for leaf in tree.leaves():
        steps = [node.step for node in tree.path(leaf.node_id)]
        left = max_context_tokens - num_prompt_tokens - sum(len(s.token_ids) for s in steps)
        assert left >= 0
        if left == 0:
            assert leaf.step.finish_reason in (FinishReason.LENGTH, FinishReason.EOS)


# ---------------------------------------------------------------- what must hold of any tree


@settings(max_examples=40, deadline=None)
@given(
    num_prompts=st.integers(1, 4),
    num_candidates=st.integers(1, 6),
    keep_top=st.integers(0, 3),
    keep_bottom=st.integers(0, 3),
    max_steps=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_every_tree_is_well_formed(
    num_prompts: int,
    num_candidates: int,
    keep_top: int,
    keep_bottom: int,
    max_steps: int,
    seed: int,
):
    chosen = SearchSettings(
        steps=replace(STEPS, num_candidates=num_candidates),
        keep_top=keep_top,
        keep_bottom=keep_bottom,
        prune_by="reward",
        path_score="sum",
        max_steps=max_steps,
        duplicate_retries=1,
    )
    prompts = some_prompts(num_prompts)
    for prompt, tree in zip(prompts, grow(prompts, settings=chosen, seed=seed), strict=True):
        assert tree.prompt == prompt
        check_tree(tree, chosen)


def check_tree(tree: ResponseTree, settings: SearchSettings) -> None:
    by_id = {node.node_id: node for node in tree.nodes}
    assert len(by_id) == len(tree.nodes)
    for node in tree.nodes:
        path = tree.path(node.node_id)
        assert node.depth == len(path) <= settings.max_steps
        assert node.node_id.startswith(tree.prompt.prompt_id + "/")
        assert node.node_id.count(".") == node.depth - 1
        assert node.parent_id is None or node.node_id.rpartition(".")[0] == node.parent_id
        assert node.cumulative_reward == pytest.approx(sum(n.score.reward for n in path))
        ended = node.step.finish_reason is FinishReason.EOS
        has_children = any(other.parent_id == node.node_id for other in tree.nodes)
        assert node.kept == (ended or has_children)
        assert not (ended and has_children)
    for parent in {node.parent_id for node in tree.nodes}:
        family = [node for node in tree.nodes if node.parent_id == parent]
        assert 1 <= len(family) <= settings.steps.num_candidates
        assert len({node.step.text for node in family}) == len(family)
    for depth in range(1, settings.max_steps):
        growing = [
            n for n in tree.nodes
            if n.depth == depth and n.step.finish_reason is not FinishReason.EOS
        ]  # fmt: skip
        check_kept([n.cumulative_reward for n in growing], [n.kept for n in growing], settings)


def check_kept(scores: list[float], kept: list[bool], settings: SearchSettings) -> None:
    """Exactly the best and the worst are kept: whatever is left lies between them."""
    wanted = min(len(scores), settings.keep_top + settings.keep_bottom)
    assert sum(kept) == wanted
    ranked = sorted(zip(scores, kept, strict=True), reverse=True)
    left = [place for place, (_, is_kept) in enumerate(ranked) if not is_kept]
    if left:
        assert left[0] == settings.keep_top
        assert left[-1] == len(ranked) - settings.keep_bottom - 1


# ---------------------------------------------------------------- errors


def test_a_reward_that_is_not_finite_stops_with_prompt_and_node():
    scorer = FunctionScorer(lambda group, step: math.nan if group.prefix else 1.0)
    with pytest.raises(NumericalError, match=r"reward of node 'p0/0\.0' of prompt 'p0' is nan"):
        grow(some_prompts(2), scorer=scorer, sampler=SpeakingSampler(endless))


def endless(request: StepRequest, rng: random.Random) -> StepCandidate:
    return make_step(f" {rng.random()}.")


def test_a_logprob_that_is_not_finite_stops():
    sampler = SpeakingSampler(lambda request, rng: make_step(" a.", [-0.1, -math.inf, -0.1]))
    scorer = FunctionScorer(text_reward)
    scorer.score = lambda groups: [  # type: ignore[method-assign]
        [FunctionScorer._score(scorer, group, make_step(" a.")) for _ in group.candidates]
        for group in groups
    ]
    with pytest.raises(NumericalError, match="log-probability of node 'p0/0'"):
        grow(some_prompts(1), sampler, scorer)


def test_two_prompts_of_one_id_are_refused():
    with pytest.raises(DataError, match="first is '7'"):
        grow([make_prompt("7"), make_prompt("8"), make_prompt("7")])
