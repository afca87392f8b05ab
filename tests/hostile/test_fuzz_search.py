"""The tree search with the scripted sampler and any settings: what holds of every tree."""

import math
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from csr.growth import SearchSettings
from csr.protocols import StepSettings
from csr.samplers import scripted
from csr.search import search
from csr.types import FinishReason, Prompt, ResponseTree, StepCandidate, StepNode, StepRequest
from csr.waves import in_waves
from tests.hostile.fuzz import bounded
from tests.trees import POLICY, FunctionScorer, make_prompt, no_progress
from tests.unit.test_search import text_reward

REPLIES = st.lists(
    st.text("ab .!?é🙂\n", min_size=1, max_size=24).filter(str.strip), min_size=1, max_size=4
)
steps = st.builds(
    StepSettings,
    num_candidates=st.integers(1, 5),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 5.0]),
    top_p=st.sampled_from([0.2, 0.9, 1.0]),
    max_step_tokens=st.integers(1, 15),
    max_response_tokens=st.sampled_from([1, 7, 20, 60, 60]),
    step_rule=st.sampled_from(["sentence", "period"]),
    diversity=st.sampled_from(["sample", "branch_first_token"]),
)
any_settings = st.builds(
    SearchSettings,
    steps=steps,
    keep_top=st.sampled_from([0, 1, 2, 3]),
    keep_bottom=st.integers(0, 2),
    prune_by=st.sampled_from(["reward", "likelihood"]),
    path_score=st.sampled_from(["sum", "mean"]),
    max_steps=st.sampled_from([1, 2, 4, 6]),
    duplicate_retries=st.integers(0, 2),
)
languages = st.builds(
    scripted.Config,
    max_sentences=st.integers(1, 4),
    spread=st.sampled_from([0.0, 2.0, 20.0]),
    max_context_tokens=st.sampled_from([6, 20, 200, 200]),
    replies=st.just(()) | REPLIES.map(tuple),
)


class Recording(scripted.ScriptedSampler):
    """Keeps the prefix of every request."""

    prefixes: list[tuple[str, tuple[int, ...]]]

    def sample_steps(
        self, requests: Sequence[StepRequest], settings: StepSettings
    ) -> list[list[StepCandidate]]:
        self.prefixes += [(r.prompt.prompt_id, r.prefix_token_ids) for r in requests]
        return super().sample_steps(requests, settings)


def grow(
    prompts: Sequence[Prompt], sampler: Recording, settings: SearchSettings, seed: int
) -> list[ResponseTree]:
    return search(
        prompts,
        sampler=sampler,
        scorer=FunctionScorer(text_reward),
        settings=settings,
        seed=seed,
        policy_name="base",
        origin="csr",
        progress=no_progress,
    )


def speaker(language: scripted.Config) -> Recording:
    sampler = Recording(language)
    sampler.load_policy(POLICY)
    sampler.prefixes = []
    return sampler


@given(
    num_prompts=st.integers(1, 4), language=languages, settings=any_settings, seed=st.integers(0, 9)
)
@bounded(120)
def test_every_tree_is_well_formed(
    num_prompts: int, language: scripted.Config, settings: SearchSettings, seed: int
) -> None:
    sampler = speaker(language)
    prompts = [make_prompt(f"p{number}") for number in range(num_prompts)]
    trees = grow(prompts, sampler, settings, seed)
    assert [tree.prompt for tree in trees] == prompts
    for tree in trees:
        check_places(tree)
        check_values(tree, settings)
        check_kept(tree, settings)
        check_tokens(tree, sampler, settings)
    check_prefixes(trees, sampler, settings)
    event("deep" if any(node.depth > 2 for tree in trees for node in tree.nodes) else "flat")


def check_places(tree: ResponseTree) -> None:
    """Ids are unique and tell the path; parents stand before their children, one level up."""
    before: dict[str, StepNode] = {}
    assert tree.nodes
    for node in tree.nodes:
        assert node.node_id not in before
        assert node.node_id.startswith(f"{tree.prompt.prompt_id}/")
        if node.parent_id is None:
            assert node.depth == 1
        else:
            assert before[node.parent_id].depth + 1 == node.depth
            assert node.node_id.rpartition(".")[0] == node.parent_id
        before[node.node_id] = node


def check_values(tree: ResponseTree, settings: SearchSettings) -> None:
    for node in tree.nodes:
        path = tree.path(node.node_id)
        by_reward = settings.prune_by == "reward"
        values = [n.score.reward if by_reward else n.score.breakdown["likelihood"] for n in path]
        total = math.fsum(values)
        expected = total if settings.path_score == "sum" else total / len(values)
        assert node.cumulative_reward == pytest.approx(expected)


def check_kept(tree: ResponseTree, settings: SearchSettings) -> None:
    """Only kept nodes have children; a level keeps no more than it may, and all that ended."""
    by_id = {node.node_id: node for node in tree.nodes}
    assert all(by_id[node.parent_id].kept for node in tree.nodes if node.parent_id)
    growing = [n for n in tree.nodes if n.step.finish_reason is not FinishReason.EOS]
    kept = Counter(node.depth for node in growing if node.kept)
    assert all(count <= settings.keep_top + settings.keep_bottom for count in kept.values())
    assert all(n.kept for n in tree.nodes if n.step.finish_reason is FinishReason.EOS)
    assert max(node.depth for node in tree.nodes) <= settings.max_steps
    parents = {node.parent_id for node in tree.nodes}
    assert all(node.node_id in parents for node in growing if node.kept)
    families = Counter(node.parent_id for node in tree.nodes)
    assert max(families.values()) <= settings.steps.num_candidates


def check_tokens(tree: ResponseTree, sampler: Recording, settings: SearchSettings) -> None:
    """A path's tokens, one after another, are a response of the policy, with its probabilities.

    Texts that were put together and tokenised anew would not be: one reply has many spellings.
    """
    for node in tree.nodes:
        path = tree.path(node.node_id)
        ids = tuple(token for step in path for token in step.step.token_ids)
        logprobs = tuple(value for step in path for value in step.step.token_logprobs)
        assert len(ids) <= settings.steps.max_response_tokens
        assert len(node.step.token_ids) == len(node.step.token_logprobs) >= 1
        assert sampler.score([tree.prompt], [ids]) == [pytest.approx(logprobs)]
        # A letter that a limit cuts is in the text of the step that completes it.
        assert sampler.decode(ids) == "".join(step.step.text for step in path)


def check_prefixes(
    trees: Sequence[ResponseTree], sampler: Recording, settings: SearchSettings
) -> None:
    """What the sampler was asked to continue are the stored tokens of the kept paths."""
    stored = {
        (tree.prompt.prompt_id, tuple(t for n in tree.path(node.node_id) for t in n.step.token_ids))
        for tree in trees
        for node in tree.nodes
    } | {(tree.prompt.prompt_id, ()) for tree in trees}
    assert set(sampler.prefixes) <= stored


@given(
    language=languages,
    settings=any_settings,
    order=st.permutations(range(4)),
    num_waves=st.integers(1, 5),
    seed=st.integers(0, 3),
)
@bounded(60)
def test_a_tree_does_not_depend_on_what_is_sampled_beside_it(
    language: scripted.Config,
    settings: SearchSettings,
    order: list[int],
    num_waves: int,
    seed: int,
) -> None:
    prompts = [make_prompt(f"p{number}") for number in range(4)]
    expected = grow(prompts, speaker(language), settings, seed)
    shuffled = grow([prompts[n] for n in order], speaker(language), settings, seed)
    assert [shuffled[order.index(n)] for n in range(4)] == expected
    waves = in_waves(prompts, num_waves, no_progress)
    assert [
        tree for part, _ in waves for tree in grow(part, speaker(language), settings, seed)
    ] == expected
