"""The stage in which a critic judges what was sampled, and what pairing learns of it.

People speak through `csr review`, which keeps each verdict in the attempt's `verdicts` folder.
The stage is done once the critic has heard enough; verdicts that come later change nothing.
"""

from __future__ import annotations

from typing import Any

from csr.agreement import agreement
from csr.annotations import Annotation, AnnotationVerdict, Evidence
from csr.errors import VerdictsWanted
from csr.protocols import Critic
from flows.context import IterationContext, StageOutcome, run_stage
from flows.inputs import component_inputs, prompt_inputs, table_inputs
from storage.attempt import AttemptDir
from storage.critique import (
    annotations_from_table,
    annotations_to_table,
    demonstrations_from_table,
)
from storage.lineage import attempt_before
from storage.manifest import StageRecord
from storage.tables import read_table, shard_path, table_files, write_table
from storage.trees import trees_from_table
from storage.verdicts import read_verdicts


def review(context: IterationContext) -> StageRecord | None:
    """Have the critic judge every response. None where the recipe has none.

    VerdictsWanted while people must speak first.
    """
    attempt, choice = context.attempt, context.recipe.critic
    if choice is None:
        return None

    def work() -> StageOutcome:
        critic: Critic = choice.build()
        table = read_table(attempt.nodes, "nodes")
        trees = trees_from_table(table, context.prompts, policy=context.policy.name)
        try:
            annotations = critic.judge(trees, read_verdicts(attempt.verdicts))
        except VerdictsWanted as error:
            raise VerdictsWanted(
                f"{attempt.id}: {error} Judge with: csr review {attempt.id}; then the same command "
                "goes on.",
                str(attempt.id),
            ) from None
        path = shard_path(attempt.annotations, 0)
        write_table(path, annotations_to_table(annotations, iteration=attempt.id.iteration))
        return StageOutcome(files=(path,), metrics=_figures(annotations))

    inputs = {
        "nodes": table_inputs(attempt, "sample", "nodes"),
        "prompts": prompt_inputs(context.prompts),
        "critic": component_inputs(choice),
    }
    return run_stage(context, "review", inputs, work)


def evidence_of(context: IterationContext) -> Evidence:
    """What pairing may know beside the trees."""
    annotations, earlier = context.attempt.annotations, _attempt_before(context).demonstrations
    return Evidence(
        annotations=tuple(annotations_from_table(read_table(annotations, "annotations")))
        if context.recipe.critic
        else (),
        earlier=tuple(demonstrations_from_table(read_table(earlier, "demonstrations")))
        if table_files(earlier)
        else (),
    )


def evidence_inputs(context: IterationContext) -> dict[str, Any]:
    """What of `evidence_of` counts for the fingerprint; nothing where there is none."""
    before = _attempt_before(context)
    inputs = {
        "annotations": table_inputs(context.attempt, "review", "annotations"),
        "earlier": table_inputs(before, "pair", "demonstrations"),
    }
    return {name: digests for name, digests in inputs.items() if digests}


def _attempt_before(context: IterationContext) -> AttemptDir:
    attempt = context.attempt.id
    return attempt_before(context.store, attempt.run_id, attempt.iteration)


def _figures(annotations: list[Annotation]) -> dict[str, float]:
    verdicts, agreed = [each.verdict for each in annotations], agreement(annotations)
    measured = {"agreement": agreed.observed, "kappa": agreed.kappa}
    return {
        "num_annotations": float(len(annotations)),
        "num_annotators": float(len({each.annotator for each in annotations})),
        "num_human_verdicts": float(sum(each.created_at is not None for each in annotations)),
        **{f"num_{verdict.value}": float(verdicts.count(verdict)) for verdict in AnnotationVerdict},
        **{name: value for name, value in measured.items() if value is not None},
    }
