"""What the flow UI tells about a run: progress, figures, plots, pairs, and where the report is.

An artifact's key gives its history, so each iteration brings the run's pages up to date. Texts
that a model or a data set wrote are shown as code: markdown in them stays dead.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from csr.gates import Verdict
from csr.types import PreferencePair
from flows import listing
from flows.events import GATE_TRIPPED, STAGE_FINISHED, emit
from flows.gating import held_reason, verdicts_of
from flows.report import iteration_plots
from flows.reporting import report_data
from flows.thumbnails import thumbnail_uri
from storage.attempt import AttemptDir
from storage.rows import pairs_from_table
from storage.run_store import RunStore
from storage.tables import read_table

logger = logging.getLogger("csr")

NUM_SHOWN_PAIRS = 8
MAX_PICTURE_CHARACTERS = 20_000
"""Artifacts lie in Prefect's database: eight pictures stay below 200 kB."""


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
                publish_pairs(self._attempt)
            elif stage == "gate":
                publish_figures(self._store, run_id)
                self._tell_verdicts(verdicts_of(self._attempt))
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


def publish_pairs(attempt: AttemptDir) -> None:
    """A page of pairs with their images: what training is about to see."""
    pairs = pairs_from_table(read_table(attempt.pairs, "pairs"))
    shown = "\n".join(_pair_section(pair) for pair in pairs[:NUM_SHOWN_PAIRS])
    create_markdown_artifact(
        f"# {attempt.id}: {min(len(pairs), NUM_SHOWN_PAIRS)} of {len(pairs)} pairs\n\n{shown}",
        key=_key("pairs", attempt.id.run_id, attempt.id.iteration),
        description=f"Sampled preference pairs of {attempt.id}",
    )


def publish_figures(store: RunStore, run_id: str) -> None:
    """The run's held-out figures as a table and as plots, and a link to its report."""
    shape = listing.run(store.home, run_id)
    lines = [{"iteration_id": f"{run_id}/00", **shape["base"]}, *shape["iterations"]]
    create_table_artifact(
        [_figure_row(line) for line in lines if line["metrics"]],
        key=_key("figures", run_id),
        description=f"{run_id} on held-out images; read chair_s beside recall and length",
    )
    for name, svg in iteration_plots(report_data(store, run_id)).items():
        picture = base64.b64encode(svg.encode()).decode()
        create_image_artifact(
            f"data:image/svg+xml;base64,{picture}",
            key=_key(f"plot-{name}", run_id),
            description=f"{run_id}: {name} over iterations",
        )
    publish_report(store.run_path(run_id) / "report.html", run_id)


def publish_verdicts(attempt: AttemptDir, verdicts: Sequence[Verdict]) -> None:
    """Each gate's value beside its limit, those that tripped first."""
    tripped = sum(verdict.tripped for verdict in verdicts)
    said = f"held: {tripped} gates tripped" if tripped else "no gate tripped"
    ordered = sorted(verdicts, key=lambda verdict: not verdict.tripped)
    create_table_artifact(
        [_verdict_row(verdict) for verdict in ordered],
        key=_key("gates", attempt.id.run_id, attempt.id.iteration),
        description=f"{attempt.id}: {said}",
    )


def publish_report(path: Path, run_id: str) -> None:
    """Where the report lies; a browser opens it on the machine that holds the run."""
    create_link_artifact(
        path.resolve().as_uri(),
        link_text=str(path.resolve()),
        key=_key("report", run_id),
        description=f"Report of {run_id}, a file on the machine that runs the flow",
    )


def _figure_row(line: dict[str, Any]) -> dict[str, Any]:
    metrics = line["metrics"]
    shown = {name: round(metrics[name], 4) for name in listing.HEADLINE_METRICS if name in metrics}
    return {"iteration": line["iteration_id"], "status": line["status"], **shown}


def _verdict_row(verdict: Verdict) -> dict[str, Any]:
    """A figure that is no number has no place in JSON, and so is written out."""

    def shown(value: float | None) -> str:
        return "" if value is None else f"{value:.4g}"

    return {
        "gate": verdict.gate,
        "verdict": "TRIPPED" if verdict.tripped else "fine" if verdict.value is not None else "",
        "value": shown(verdict.value),
        "limit": shown(verdict.limit),
        "message": verdict.message,
    }


def _pair_section(pair: PreferencePair) -> str:
    return "\n\n".join(
        [
            f"## {_as_code(pair.prompt.text)}",
            _picture(pair.prompt.image.uri),
            f"**chosen**, reward {pair.chosen.reward:.2f}: {_as_code(pair.chosen.text)}",
            f"**rejected**, reward {pair.rejected.reward:.2f}: {_as_code(pair.rejected.text)}",
        ]
    )


def _picture(path: str) -> str:
    uri, problem = thumbnail_uri(path)
    if problem:
        return _as_code(problem)
    if len(uri) > MAX_PICTURE_CHARACTERS:
        return f"(picture too large to show here: {_as_code(path)})"
    return f"![image]({uri})"


def _as_code(text: str) -> str:
    """One line of inert text: no backtick, no line break."""
    plain = " ".join(text.replace("`", "'").split())
    return f"`{plain or '(nothing)'}`"


def _key(kind: str, run_id: str, iteration: int | None = None) -> str:
    """Artifact keys are lower-case letters, digits and dashes."""
    number = "" if iteration is None else f"-{iteration:02d}"
    return "csr-" + re.sub(r"[^a-z0-9]+", "-", f"{kind}-{run_id}{number}".lower()).strip("-")
