"""Steps while an engine samples them, request by request, in one round or several.

All candidates of a request are one round. A candidate that stopped where `csr.steps` sees no end
(".", which also stands inside "3.5" and "Mr.") is continued by a round of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from csr.errors import ConfigError, ModelError
from csr.protocols import StepSettings
from csr.samplers._prompted_policy import PromptedPolicy, Spoken
from csr.samplers._shared import (
    TokenLimits,
    check_tokens,
    derived_seed,
    finish_reason,
    step_limits,
    text_after,
)
from csr.step_streams import Steps
from csr.steps import stop_strings
from csr.types import FinishReason, Prompt, StepCandidate, StepRequest

_TAKEN_SHARE = 8


def num_taken(num_asked: int) -> int:
    """For how many of the requests that are asked `take` waits: a share of them, rounded up.

    The scorer then gets whole batches, and the engine is never drained.
    """
    return -(-num_asked // _TAKEN_SHARE)


@dataclass(slots=True)
class Chain:
    """A candidate while it grows."""

    request: StepRequest
    index: int
    """Which of its request's candidates it is."""
    limits: TokenLimits
    """Before its first token."""
    prefix_text: str
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: str = ""
    reason: FinishReason | None = None

    @property
    def all_ids(self) -> tuple[int, ...]:
        """The response's token ids so far, its prefix included."""
        return (*self.request.prefix_token_ids, *self.token_ids)

    def candidate(self) -> StepCandidate:
        """The finished step."""
        assert self.reason is not None
        return StepCandidate(
            text=self.text,
            token_ids=tuple(self.token_ids),
            token_logprobs=tuple(self.logprobs),
            finish_reason=self.reason,
        )


@dataclass(frozen=True, slots=True)
class Round:
    """One request to the engine: chains that share all ids so far."""

    ticket: int
    chains: Sequence[Chain]
    number: int

    @property
    def prompt(self) -> Prompt:
        """What is asked."""
        return self.chains[0].request.prompt

    @property
    def response_ids(self) -> tuple[int, ...]:
        """What the engine continues."""
        return self.chains[0].all_ids


class StepRounds:
    """A stream's requests, each from its first round to its steps."""

    def __init__(
        self, policy: PromptedPolicy, settings: StepSettings, *, max_logprobs: int | None = None
    ) -> None:
        """`max_logprobs` is the most alternatives that the engine reports for one token."""
        self._policy = policy
        self._max_logprobs = max_logprobs
        self._branching = settings.diversity == "branch_first_token"
        if self._branching:
            settings = replace(settings, temperature=0.0, top_p=1.0)
        # Greedy candidates are all equal, and sampled once.
        self._repeats = 1
        if settings.temperature == 0 and not self._branching:
            self._repeats = settings.num_candidates
            settings = replace(settings, num_candidates=1)
        self._settings = settings
        self._families: list[list[Chain]] = []
        self.num_open: dict[int, int] = {}
        """Ticket -> its chains that have not ended, for requests not all of whose have."""

    def begin(self, request: StepRequest) -> Round:
        """A request's first round, under a ticket of its own."""
        num_prompt = len(self._policy.expanded_ids(request.prompt))
        limits = step_limits(request, self._settings, num_prompt, self._policy.max_context_tokens)
        prefix_text = self._policy.decode(request.prefix_token_ids)
        chains = [
            Chain(request, index, limits, prefix_text)
            for index in range(self._settings.num_candidates)
        ]
        ticket = len(self._families)
        self._families.append(chains)
        self.num_open[ticket] = len(chains)
        return Round(ticket, chains, 0)

    def params(self, asked: Round) -> dict[str, Any]:
        """vLLM's sampling parameters for a round, by name, besides those of every request."""
        if self._branching and asked.number == 0:
            return {"temperature": 0.0, "max_tokens": 1, "logprobs": self._num_first_tokens()}
        first = asked.chains[0]
        return {
            "n": len(asked.chains),
            "temperature": self._settings.temperature,
            "top_p": self._settings.top_p,
            "seed": derived_seed(first.request.seed, first.index, asked.number),
            "max_tokens": first.limits.after(len(first.token_ids)).next,
            "stop": list(stop_strings(self._settings.step_rule)),
            "include_stop_str_in_output": True,
        }

    def go_on(self, asked: Round, answers: Sequence[Spoken]) -> list[Round]:
        """Put what was said into its chains. The rounds of those that have not ended."""
        if self._branching and asked.number == 0:
            self._branch(asked.chains, answers[0].first_row)
        else:
            for chain, said in zip(asked.chains, answers, strict=True):
                self._extend(chain, said.token_ids, said.logprobs, at_eos=said.at_eos)
        further = [chain for chain in asked.chains if chain.reason is None]
        self.num_open[asked.ticket] -= len(asked.chains) - len(further)
        if not self.num_open[asked.ticket]:
            del self.num_open[asked.ticket]
        return [Round(asked.ticket, [chain], asked.number + 1) for chain in further]

    def steps(self, ticket: int) -> Steps:
        """The steps of a request that has ended; asked for once."""
        chains, self._families[ticket] = self._families[ticket], []
        return [chain.candidate() for chain in chains] * self._repeats

    def _branch(self, chains: Sequence[Chain], row: Mapping[int, float]) -> None:
        """Give each chain one of the likeliest first tokens."""
        media = set(self._policy.media_ids)
        known = {i: value for i, value in row.items() if i not in media}
        ranked = sorted(known, key=lambda i: (-known[i], i))
        if len(ranked) < len(chains):
            raise ModelError(
                f"The engine named {len(ranked)} first tokens where {len(chains)} were asked for. "
                "Install the pinned vLLM there."
            )
        for chain in chains:
            token = ranked[chain.index]
            self._extend(chain, [token], [known[token]], at_eos=token in self._policy.eos_ids)

    def _num_first_tokens(self) -> int:
        num_media = len(set(self._policy.media_ids))
        num_wanted = self._settings.num_candidates + num_media
        if self._max_logprobs is not None and num_wanted > self._max_logprobs:
            raise ConfigError(
                f"branch_first_token with {self._settings.num_candidates} candidates is more than "
                f"the engine reports ({self._max_logprobs - num_media}). Use fewer candidates or "
                "'sample'."
            )
        return num_wanted

    def _extend(
        self, chain: Chain, token_ids: Sequence[int], logprobs: Sequence[float], *, at_eos: bool
    ) -> None:
        check_tokens(token_ids, logprobs, media_ids=self._policy.media_ids)
        chain.token_ids += token_ids
        chain.logprobs += logprobs
        chain.text = text_after(
            self._policy.decode, chain.request.prefix_token_ids, chain.token_ids
        )
        chain.reason = finish_reason(
            chain.text,
            prefix_text=chain.prefix_text,
            at_eos=at_eos,
            rule=self._settings.step_rule,
            left=chain.limits.after(len(chain.token_ids)),
        )
