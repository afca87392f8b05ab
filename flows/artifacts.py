"""What the flow UI tells about a run: progress, pairs, verdicts, figures, plots, the report.

An artifact's key gives its history, so each iteration brings the run's pages up to date. Texts
that a model or a data set wrote are shown as code: markdown in them stays dead.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import math
import platform
import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.runtime import flow_run

from csr.gates import Verdict
from flows import listing
from flows.data_pages import demonstration_page, pair_page
from flows.events import GATE_TRIPPED, STAGE_FINISHED, emit
from flows.gating import held_reason, verdicts_of
from flows.inert import as_code, fitting
from flows.metric_names import HEADLINES
from flows.report import iteration_plots
from flows.report_server import report_url
from storage.attempt import AttemptDir
from storage.critique import demonstrations_from_table
from storage.rows import pairs_from_table
from storage.run_store import RunStore
from storage.tables import read_table, table_files

logger = logging.getLogger("csr")

MAX_ARTIFACT_BYTES = 190_000
"""Artifacts lie in Prefect's database, and a browser loads them whole."""


class Narrator:
    """Tells the flow UI what an iteration's stages made, as they end."""

    def __init__(self, store: RunStore, attempt: AttemptDir, num_shards: int) -> None:
        self._store, self._attempt, self._num_shards = store, attempt, num_shards
        self._progress_id: UUID | None = None

    def tell(self, stage: str, *shard: int) -> None:
        """That stage, or shard of it, is done. What Prefect refuses is a warning."""
        run_id = self._attempt.id.run_id
        try:
            if stage == "sample":
                self._show_progress(*shard)
            elif stage == "pair":
                publish_training_data(self._attempt)
            elif stage == "gate":
                self._tell_verdicts(verdicts_of(self._attempt))
                if flow_run.parent_flow_run_id is None:  # inside a run, the run itself tells it
                    publish_run(self._store, run_id, Pages())
            emit(STAGE_FINISHED, run_id, attempt=str(self._attempt.id), stage=stage)
        except Exception:  # the run's own files are the truth, and must not wait for a picture
            logger.warning("%s: nothing shown of %s", self._attempt.id, stage, exc_info=True)

    def _tell_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        if not verdicts:
            return
        publish_verdicts(self._attempt, verdicts)
        if any(verdict.tripped for verdict in verdicts):
            attempt = self._attempt
            reason = held_reason(attempt)
            emit(GATE_TRIPPED, attempt.id.run_id, attempt=str(attempt.id), reason=reason)

    def _show_progress(self, shard: int) -> None:
        percent = 100.0 * (shard + 1) / self._num_shards
        if self._progress_id is not None:
            update_progress_artifact(self._progress_id, percent)
            return
        made = create_progress_artifact(
            percent,
            key=_key("sampling", self._attempt.id.run_id, self._attempt.id.iteration),
            description=f"{self._attempt.id}: prompts sampled, in {self._num_shards} shards",
        )
        assert isinstance(made, UUID)
        self._progress_id = made


class Pages:
    """Artifacts that are brought up to date in place: a flow run has one of each."""

    def __init__(self) -> None:
        self._ids: dict[str, UUID] = {}

    def show(self, key: str, data: str | list[dict[str, Any]], description: str) -> None:
        """Markdown, or the rows of a table."""
        if key in self._ids:
            text = data if isinstance(data, str) else json.dumps(data)
            with get_client(sync_client=True) as client:
                update = ArtifactUpdate(data=text, description=description)
                client.update_artifact(self._ids[key], update)
            return
        if isinstance(data, str):
            made = create_markdown_artifact(data, key=key, description=description)
        else:
            made = create_table_artifact(data, key=key, description=description)
        assert isinstance(made, UUID)
        self._ids[key] = made


def tell_run(store: RunStore, run_id: str, pages: Pages) -> None:
    """Bring the run's own pages up to date. What Prefect refuses is a warning."""
    try:
        publish_run(store, run_id, pages)
    except Exception:
        logger.warning("%s: its figures are not shown", run_id, exc_info=True)


def publish_run(store: RunStore, run_id: str, pages: Pages) -> None:
    """The run's figures as a table and as plots, and where its report is."""
    pages.show(_key("figures", run_id), *_figures(store, run_id))
    pages.show(
        _key("plots", run_id), _plots(store, run_id), f"{run_id} on held-out images, as plots"
    )
    pages.show(_key("report", run_id), _report(store, run_id), f"Report of {run_id}")


def publish_training_data(attempt: AttemptDir) -> None:
    """A page of pairs or demonstrations with their images: what training is about to see."""
    if table_files(attempt.pairs):
        pairs = pairs_from_table(read_table(attempt.pairs, "pairs"))
        page = pair_page(str(attempt.id), pairs, MAX_ARTIFACT_BYTES)
        _publish_page(attempt, "pairs", page, "Preference pairs")
    if table_files(attempt.demonstrations):
        rows = read_table(attempt.demonstrations, "demonstrations")
        page = demonstration_page(
            str(attempt.id), demonstrations_from_table(rows), MAX_ARTIFACT_BYTES
        )
        _publish_page(attempt, "demonstrations", page, "Responses to imitate")


def _publish_page(attempt: AttemptDir, kind: str, page: str, title: str) -> None:
    create_markdown_artifact(
        page,
        key=_key(kind, attempt.id.run_id, attempt.id.iteration),
        description=f"{title} of {attempt.id}, with their images",
    )


def publish_verdicts(attempt: AttemptDir, verdicts: Sequence[Verdict]) -> None:
    """What the gates that tripped mean, then each gate's value beside its limit."""
    num_tripped = sum(verdict.tripped for verdict in verdicts)
    held = f"held: {num_tripped} of {len(verdicts)} gates tripped"
    title = f"{attempt.id}: {held if num_tripped else 'no gate tripped'}"
    create_markdown_artifact(
        "\n\n".join([f"# {title}", *_verdict_parts(verdicts)]),
        key=_key("gates", attempt.id.run_id, attempt.id.iteration),
        description=title,
    )


def _figures(store: RunStore, run_id: str) -> tuple[list[dict[str, Any]], str]:
    """Rows of the held-out figures, the newest where they are many; and what they are."""
    rows = _figure_rows(store, run_id)
    newest = fitting(reversed(rows), lambda row: len(json.dumps(row)) + 2, MAX_ARTIFACT_BYTES)
    advice = (
        "; read chair_s beside recall and length" if any("chair_s" in row for row in rows) else ""
    )
    left_out = f"; the oldest {len(rows) - len(newest)} left out" if len(newest) < len(rows) else ""
    return newest[::-1], f"{run_id} on held-out images{advice}{left_out}"


def _plots(store: RunStore, run_id: str) -> str:
    """The headline figures over the iterations."""
    manifests = [store.attempt(run_id, n).manifest.read() for n in store.iterations(run_id)]
    plots = iteration_plots([(each.iteration, each.metrics) for each in manifests])
    pictures = [f"![{name}]({_svg_uri(svg)})" for name, svg in plots.items()]
    shown = pictures or ["Nothing that is plotted has been measured."]
    return "\n\n".join([f"# {run_id} over its iterations", *shown])


def _report(store: RunStore, run_id: str) -> str:
    """A link to the report where a browser can open it; its path in any case."""
    url = report_url(store.home, run_id)
    path = as_code(str(store.run_path(run_id).absolute() / "report.html"))
    how = "`csr serve` turns this into a link." if url is None else f"[Open the report]({url})"
    place = f"The file {path} on {as_code(platform.node())}."
    return f"# Report of {run_id}\n\n{how}\n\n{place}"


def _figure_rows(store: RunStore, run_id: str) -> list[dict[str, Any]]:
    """One row an evaluated attempt, in order; later iterations build on the current ones."""
    rows = []
    for iteration in store.iterations(run_id):
        current = store.current_attempt(run_id, iteration)
        for number in store.attempts(run_id, iteration):
            attempt = store.attempt(run_id, iteration, number)
            manifest = attempt.manifest.read()
            if not manifest.metrics:
                continue
            status = listing.attempt_status(store, manifest)
            shown = status if number == current else f"{status}, not current"
            rows.append(
                {"attempt": str(attempt.id), "status": shown, **_headline(manifest.metrics)}
            )
    return rows


def _headline(metrics: dict[str, float]) -> dict[str, float | None]:
    """Four decimals; None for what is not finite, which JSON does not know."""
    shown = {name: metrics[name] for name in HEADLINES if name in metrics}
    return {name: round(x, 4) if math.isfinite(x) else None for name, x in shown.items()}


def _verdict_parts(verdicts: Sequence[Verdict]) -> list[str]:
    """The messages stand before the table, which would cut them off."""
    ordered = sorted(verdicts, key=lambda verdict: not verdict.tripped)
    reasons = [f"- **{each.gate}**: {each.message}" for each in ordered if each.tripped]
    heading = ["| gate | verdict | value | limit |", "| --- | --- | --- | --- |"]
    table = heading + [_verdict_row(verdict) for verdict in ordered]
    return ["\n".join(part) for part in (reasons, table) if part]


def _verdict_row(verdict: Verdict) -> str:
    def shown(value: float | None) -> str:
        return "" if value is None else f"{value + 0.0:.4g}"  # no "-0"

    fine = "fine" if verdict.value is not None else verdict.message
    word = "**TRIPPED**" if verdict.tripped else fine
    limit = f"{verdict.bound} {shown(verdict.limit)}".strip()
    return f"| {verdict.gate} | {word} | {shown(verdict.value)} | {limit} |"


def _svg_uri(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _key(kind: str, run_id: str, iteration: int | None = None) -> str:
    """Artifact keys are lower-case letters, digits and dashes; run IDs may have more."""
    plain = re.sub(r"[^a-z0-9]+", "-", run_id.lower()).strip("-")
    digest = hashlib.sha256(run_id.encode()).hexdigest()[:4]
    run = plain if plain == run_id else f"{plain}-{digest}"
    number = "" if iteration is None else f"-{iteration:02d}"
    return f"csr-{kind}-{run}{number}"
