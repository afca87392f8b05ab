"""Step-wise search: every prompt's tree grows by itself, as many at once as the cache holds.

    open nodes -> candidates -> drop duplicates -> score -> keep best and worst -> open nodes

A tree whose level is sampled is scored while the others' sampling goes on, and then asks for its
next level: no tree waits for another. As many trees grow at once as have room in the engine's
cache, so that what a level has computed is still there for the next. A sampler that knows only
batches gets all trees' levels together, and a scorer that asks the sampler itself has it alone.

Every request has its own seed, made of the prompt and its place in the tree: a tree is the same
whatever else is sampled beside it. What is asked when depends on what has ended, never on the
clock, so that a rerun asks the same in the same order.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing

from csr.errors import DataError
from csr.growth import GrowingTree, OpenNode, SearchSettings
from csr.protocols import Progress, Sampler, StepScorer
from csr.step_streams import Steps, StepStream
from csr.types import Prompt, ResponseTree, StepRequest, StepScore


def search(
    prompts: Sequence[Prompt],
    *,
    sampler: Sampler,
    scorer: StepScorer,
    settings: SearchSettings,
    seed: int,
    policy_name: str,
    origin: str,
    progress: Progress,
) -> list[ResponseTree]:
    """One tree for each prompt, in prompt order. `progress` counts prompts that are done.

    DataError where two prompts share an id; NumericalError names the prompt and the node
    where a reward or a log-probability is not finite.
    """
    _check_ids(prompts)
    trees = [GrowingTree(prompt, settings) for prompt in prompts]
    stream = sampler.stream_steps(settings.steps)
    with ThreadPoolExecutor(max_workers=1) as pool, closing(stream):
        growth = _Growth(trees, sampler, stream, scorer, pool, settings, seed)
        while growth.num_done < len(trees):
            growth.advance()
            progress(growth.num_done, len(trees))
    return [tree.tree(policy_name, origin) for tree in trees]


class _Growth:
    """Which trees are sampled, which are scored, and which still wait for room."""

    def __init__(
        self,
        trees: Sequence[GrowingTree],
        sampler: Sampler,
        stream: StepStream,
        scorer: StepScorer,
        pool: Executor,
        settings: SearchSettings,
        seed: int,
    ) -> None:
        self.num_done = 0
        self._waiting = deque(trees)
        self._room = 1.0
        """Share of the engine's cache that no growing tree has."""
        self._shares: dict[int, float] = {}
        self._sampler, self._stream, self._seed = sampler, stream, seed
        self._scorer, self._pool, self._settings = scorer, pool, settings
        self._asked: dict[int, tuple[GrowingTree, OpenNode]] = {}
        self._num_asked: Counter[int] = Counter()
        """Tree -> open nodes that have not all their candidates yet."""
        self._sampled: list[GrowingTree] = []
        self._scored: tuple[list[GrowingTree], Future[list[list[StepScore]]]] | None = None

    def advance(self) -> None:
        """Sample on while the trees of the last call are scored; then let those grow."""
        self._admit()
        for ticket, candidates in self._stream.take():
            self._answered(*self._asked.pop(ticket), candidates)
        self._grow_scored()
        self._score()

    def _admit(self) -> None:
        """Begin as many trees as the cache has room for; one at least."""
        while self._waiting:
            tree = self._waiting[0]
            share = self._sampler.cache_share(tree.prompt, self._settings.max_level_tokens)
            if share > self._room and self._shares:
                return
            self._waiting.popleft()
            self._room -= share
            self._shares[id(tree)] = share
            self._ask_level(tree)

    def _ask_level(self, tree: GrowingTree) -> None:
        self._num_asked[id(tree)] = len(tree.open)
        for opened in tree.open:
            self._ask(tree, opened)

    def _ask(self, tree: GrowingTree, opened: OpenNode) -> None:
        # All candidates are asked for again, not just the missing ones: the answer to a
        # request then depends on its seed alone, not on how many were new.
        place = (tree.prompt.prompt_id, opened.name, opened.num_samplings)
        request = StepRequest(
            prompt=tree.prompt, prefix=opened.prefix, seed=request_seed(self._seed, *place)
        )
        self._asked[self._stream.add(request)] = tree, opened

    def _answered(self, tree: GrowingTree, opened: OpenNode, candidates: Steps) -> None:
        if tree.add_candidates(opened, candidates):
            self._ask(tree, opened)
            return
        self._num_asked[id(tree)] -= 1
        if self._num_asked[id(tree)] == 0:
            self._sampled.append(tree)

    def _score(self) -> None:
        """Score the trees whose level is sampled, in the background where that is possible."""
        alone = self._stream.works_in_batches or self._scorer.asks_sampler
        if not self._sampled or (alone and self._asked):
            return
        trees, self._sampled = self._sampled, []
        groups = [group for tree in trees for group in tree.groups()]
        if alone:
            # In this thread: an engine keeps the order of its work for each thread by itself.
            self._grow(trees, self._scorer.score(groups))
        else:
            self._scored = trees, self._pool.submit(self._scorer.score, groups)

    def _grow_scored(self) -> None:
        """Go on with the trees that were scored in the background."""
        if self._scored is not None:
            (trees, future), self._scored = self._scored, None
            self._grow(trees, future.result())

    def _grow(self, trees: Sequence[GrowingTree], scored: Sequence[Sequence[StepScore]]) -> None:
        """Give trees their next level."""
        scores = iter(scored)
        for tree in trees:
            tree.grow([list(next(scores)) for _ in tree.open])
            if tree.open:
                self._ask_level(tree)
            else:
                self.num_done += 1
                self._room += self._shares.pop(id(tree))


def request_seed(seed: int, prompt_id: str, node: str, attempt: int) -> int:
    """A seed in [0, 2^32) that belongs to this request and to no other."""
    name = json.dumps([seed, prompt_id, node, attempt])
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def _check_ids(prompts: Sequence[Prompt]) -> None:
    repeated = [name for name, n in Counter(p.prompt_id for p in prompts).items() if n > 1]
    if repeated:
        raise DataError(
            f"{len(repeated)} prompt ids occur more than once, the first is {repeated[0]!r}: their "
            "trees could not be told apart. Give every prompt an id of its own."
        )
