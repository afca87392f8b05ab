"""Sources of whole responses leave out pairs whose lengths differ too much, and count them."""

import pytest

from csr.annotations import Annotation, AnnotationVerdict, Evidence
from csr.protocols import PreferenceSource
from csr.sources import illume, sima, stic
from csr.sources._sampled import SampledResponse, tree_of_sampled
from csr.types import FinishReason, GeneratedResponse, ResponseTree
from tests.trees import make_prompt

SOURCES = {
    "sima": lambda limit: sima.build(sima.Config(max_length_difference=limit)),
    "stic": lambda limit: stic.build(stic.Config(max_length_difference=limit)),
    "illume": lambda limit: illume.build(illume.Config(makes="pairs", max_length_difference=limit)),
}
EVIDENCE = Evidence(
    annotations=tuple(
        Annotation(response_id=f"a/{n}", prompt_id="a", verdict=verdict, annotator="ada")
        for n, verdict in enumerate((AnnotationVerdict.ACCEPT, AnnotationVerdict.REFUSE))
    )
)


def sampled(text: str, num_tokens: int, reward: float) -> SampledResponse:
    response = GeneratedResponse(
        prompt_id="a",
        text=text,
        token_ids=(7,) * num_tokens,
        token_logprobs=(-0.5,) * num_tokens,
        finish_reason=FinishReason.EOS,
    )
    parts = {"judged": 1.0, "malformed_verdicts": 0.0, "first_place_verdicts": 1.0}
    return SampledResponse(response=response, reward=reward, parts=parts)


@pytest.fixture
def tree() -> ResponseTree:
    """Ten tokens that are preferred, and four."""
    both = [sampled("the longer", 10, 2.0), sampled("short", 4, 0.0)]
    return tree_of_sampled(make_prompt("a"), both, policy="base", origin="test")


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize(("limit", "num_pairs"), [(0.59, 0), (0.6, 1), (1.0, 1)])
def test_a_pair_may_differ_by_the_limit(
    name: str, limit: float, num_pairs: int, tree: ResponseTree
) -> None:
    source: PreferenceSource = SOURCES[name](limit)
    result = source.pair([tree], EVIDENCE)
    assert len(result.pairs) == num_pairs
    assert result.skipped == ({} if num_pairs else {"length_mismatch": 1})
    assert len(result.responses) == 2
