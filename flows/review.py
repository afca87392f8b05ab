"""What people judge of an attempt, in which order, and how far they are. No page is drawn here.

Who comes next depends on the person: two who begin at once begin at different prompts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from csr.agreement import Agreement, agreement
from csr.annotations import Annotation, AnnotationVerdict, Quota
from csr.errors import ConfigError, CSRError, DataError
from csr.protocols import Critic
from csr.responses import spoken_responses
from csr.types import Prompt
from flows.context import IterationContext, open_attempt
from flows.home import open_store
from storage.attempt import AttemptDir, parse_iteration_id
from storage.manifest import utc_now
from storage.tables import read_table
from storage.trees import trees_from_table
from storage.verdicts import VerdictFolder


class Closed(CSRError):
    """The attempt went on, and hears no more verdicts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One response to judge."""

    response_id: str
    prompt: Prompt
    """As the policy was asked."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far people are."""

    num_mine: int
    """Responses that this person has judged."""
    num_responses: int
    num_judged: int
    """Responses that enough people have judged."""
    num_wanted: int
    """So many are needed before the run goes on."""
    agreement: Agreement

    @property
    def is_reached(self) -> bool:
        """Whether the run may go on."""
        return self.num_judged >= self.num_wanted


@dataclass(frozen=True)
class Desk:
    """One attempt's responses, and what is said of them."""

    attempt: AttemptDir
    responses: tuple[Response, ...]
    """In stored order, those of a prompt together."""
    quota: Quota
    verdicts: VerdictFolder

    @property
    def attempt_id(self) -> str:
        """Such as "tiny-b0f2/02.1"."""
        return str(self.attempt.id)

    @cached_property
    def by_id(self) -> dict[str, Response]:
        """Response id -> response."""
        return {response.response_id: response for response in self.responses}

    def is_closed(self) -> bool:
        """Whether the run has heard enough and went on."""
        record = self.attempt.manifest.read().stage("review")
        return record is not None and record.status == "done"

    def give(
        self, annotator: str, response_id: str, verdict: AnnotationVerdict, seen: str | None = None
    ) -> None:
        """Keep a verdict. Errors as `keep`."""
        judged = Annotation(
            response_id=response_id,
            prompt_id=self.by_id[response_id].prompt.prompt_id,
            verdict=verdict,
            annotator=annotator,
            created_at=utc_now(),
        )
        self.keep(judged, seen)

    def keep(self, verdict: Annotation, seen: str | None = None) -> None:
        """Keep a verdict. Closed after the stage is done; else errors as `VerdictFolder.add`."""
        self._refuse_if_closed()
        self.verdicts.add(verdict, seen)

    def take_back(self, annotator: str, seen: str | None = None) -> str | None:
        """Withdraw the person's newest verdict; the response it was on. Errors as `give`."""
        self._refuse_if_closed()
        verdict = self.verdicts.undo(annotator, seen)
        return None if verdict is None else verdict.response_id

    def mine(self, annotator: str, said: Sequence[Annotation]) -> dict[str, AnnotationVerdict]:
        """Response id -> this person's verdict."""
        return {each.response_id: each.verdict for each in said if each.annotator == annotator}

    def next_for(self, annotator: str, said: Sequence[Annotation], after: str = "") -> str | None:
        """What the person judges next; None where they have judged all.

        What is needed comes before what is not; then the rest of the prompt of `after`; then
        what others have begun with; then the person's own order.
        """
        mine, judged = self.mine(annotator, said), self.quota.judged(said)
        is_reached = len(judged) >= self.quota.num_wanted(len(self.responses))
        prompt = self.by_id[after].prompt.prompt_id if after in self.by_id else None
        heard = dict.fromkeys(self.by_id, 0)
        for each in said:
            if each.response_id in heard:
                heard[each.response_id] += 1

        def place(response: Response) -> tuple[bool, bool, int]:
            name = response.response_id
            is_spare = is_reached or name in judged
            return is_spare, response.prompt.prompt_id != prompt, -heard[name]

        left = [each for each in self.order(annotator) if each.response_id not in mine]
        return min(left, key=place).response_id if left else None

    def order(self, annotator: str) -> list[Response]:
        """All responses, prompt after prompt, in this person's order."""
        return sorted(self.responses, key=lambda each: _lot(annotator, each.prompt.prompt_id))

    def standing(self, annotator: str, said: Sequence[Annotation]) -> Standing:
        """How far this person and all together are."""
        return Standing(
            num_mine=len(self.mine(annotator, said)),
            num_responses=len(self.responses),
            num_judged=len(self.quota.judged(said)),
            num_wanted=self.quota.num_wanted(len(self.responses)),
            agreement=agreement(said),
        )

    def _refuse_if_closed(self) -> None:
        if self.is_closed():
            raise Closed(
                f"{self.attempt_id} has gone on with the verdicts that it had, and hears no more. "
                "Nothing was kept."
            )


def open_desk(home: Path, iteration_id: str) -> Desk:
    """The responses of an attempt, RUN/NN.A, or of an iteration's current one, RUN/NN.

    ConfigError where its critic needs nobody; DataError where not all is sampled yet.
    """
    store, asked = open_store(home), parse_iteration_id(iteration_id)
    attempt = store.attempt(asked.run_id, asked.iteration, asked.attempt)
    if asked.iteration == 0:
        raise ConfigError(f"{attempt.id} evaluates the base model, and asks no critic.")
    context = open_attempt(str(store.home), str(attempt.id), only_look=True)
    quota = _quota(context)
    _refuse_unfinished(context)
    return Desk(
        attempt=attempt,
        responses=_responses(context),
        quota=quota,
        verdicts=VerdictFolder(attempt.verdicts, asked.iteration),
    )


def _quota(context: IterationContext) -> Quota:
    choice = context.recipe.critic
    critic: Critic | None = None if choice is None else choice.build()
    if critic is None or critic.quota is None:
        said = "no critic" if choice is None else f"the critic {choice.name!r}, which asks nobody"
        raise ConfigError(
            f"{context.attempt.id} has {said}, so there is nothing to judge. The recipe of a run "
            "that people judge has `critic: human`."
        )
    return critic.quota


def _refuse_unfinished(context: IterationContext) -> None:
    manifest = context.attempt.manifest.read()
    records = [manifest.stage("sample", shard) for shard in range(context.num_shards)]
    num_done = sum(record is not None and record.status == "done" for record in records)
    if num_done < context.num_shards:
        raise DataError(
            f"{context.attempt.id}: {num_done} of {context.num_shards} shards are sampled. Wait "
            "until `csr run` says that it waits for verdicts."
        )


def _responses(context: IterationContext) -> tuple[Response, ...]:
    table = read_table(context.attempt.nodes, "nodes")
    trees = trees_from_table(table, context.prompts)
    # A source may ask more than the prompt's own text, such as why an answer holds.
    asked = getattr(context.recipe.source.build(), "asked", lambda prompt: prompt)
    return tuple(
        Response(response_id=response_id, prompt=asked(tree.prompt), text=text)
        for tree in trees
        for response_id, text in spoken_responses(tree)
    )


def _lot(annotator: str, prompt_id: str) -> str:
    return hashlib.sha256(f"{annotator}\x1f{prompt_id}".encode()).hexdigest()
