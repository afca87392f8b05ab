"""The engines of this process: built on first use, kept warm, closed together."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from csr.checkpoints import weights_sha256
from csr.errors import ModelError
from csr.protocols import Sampler, Similarity
from csr.types import PolicyRef
from flows.config import Recipe
from storage.manifest import fingerprint

TOKEN_COUNTS = ("num_prompt_tokens", "num_cached_tokens", "num_generated_tokens")
"""Tokens read, those of them found in the prefix cache, and tokens written."""

FAULT_COUNTS = ("num_retries", "num_set_aside")
"""Requests that were asked again, and servers that were given up, of a sampler that asks any."""


class Engines:
    """Hands stages a sampler that speaks for the wanted policy, and a similarity."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._sampler: Sampler | None = None
        self._policy: PolicyRef | None = None
        self._similarity: Similarity | None = None
        self._second_similarity: Similarity | None = None

    def sampler(self, policy: PolicyRef) -> Sampler:
        """The sampler with `policy` loaded; weights are reloaded only when they change.

        A stage asks once, when it begins: what it makes then depends on no stage before it.
        ModelError where the policy's files are no longer those that were recorded.
        """
        if self._sampler is None:
            self._sampler = self._recipe.sampler.build()
        if self._policy is None or self._policy.sha256 != policy.sha256:
            _check_weights(policy)
        self._policy = None  # a failing load leaves none in force
        self._sampler.load_policy(policy)
        self._policy = policy
        return self._sampler

    def similarity(self) -> Similarity | None:
        """The recipe's image-text similarity; None when it names none."""
        if self._similarity is None and self._recipe.similarity is not None:
            self._similarity = self._recipe.similarity.build()
        return self._similarity

    def second_similarity(self) -> Similarity | None:
        """The recipe's second one; None when it names none."""
        if self._second_similarity is None and self._recipe.second_similarity is not None:
            self._second_similarity = self._recipe.second_similarity.build()
        return self._second_similarity

    def counts(self) -> Counter[str]:
        """What the sampler has done so far, and what went wrong for it, by the names above."""
        stats = self._sampler.stats() if self._sampler is not None else {}
        names = (*TOKEN_COUNTS, *(name for name in FAULT_COUNTS if name in stats))
        return Counter({name: int(stats.get(name, 0)) for name in names})

    def close(self) -> None:
        """Free every engine. Safe to call twice."""
        for engine in (self._sampler, self._similarity, self._second_similarity):
            if engine is not None:
                engine.close()
        self._sampler = self._similarity = self._second_similarity = self._policy = None


def tokens_spent(engines: Engines, before: Counter[str]) -> dict[str, float]:
    """What the sampler did since `before` was counted."""
    spent = engines.counts()
    spent.subtract(before)
    return {name: float(count) for name, count in spent.items()}


_warm: dict[str, Engines] = {}


def warm_engines(recipe: Recipe) -> Engines:
    """This process's engines for a recipe; those of another recipe are closed first."""
    key = fingerprint(
        sampler=recipe.sampler.model_dump(mode="json"),
        similarities=[
            choice.model_dump(mode="json") if choice else None
            for choice in (recipe.similarity, recipe.second_similarity)
        ],
    )
    if key not in _warm:
        close_engines()
        _warm[key] = Engines(recipe)
    return _warm[key]


def close_engines() -> None:
    """Free all engines of this process."""
    while _warm:
        _warm.popitem()[1].close()


def _check_weights(policy: PolicyRef) -> None:
    if not Path(policy.model_path).is_dir():
        raise ModelError(
            f"The policy {policy.name} is not in {policy.model_path} any more. Put it back there: "
            "a run's records name its models by absolute paths, so a home stays where it began."
        )
    found = weights_sha256(Path(policy.model_path))
    if found != policy.sha256:
        raise ModelError(
            f"The weights of the policy {policy.name} in {policy.model_path} changed since they "
            f"were recorded (sha256 {policy.sha256[:12]}..., now {found[:12]}...). Put the old "
            "files back, or start a new run."
        )
