"""What a run tells Prefect's automations, besides Prefect's own events."""

from __future__ import annotations

from typing import Any

from prefect.events import emit_event

STAGE_FINISHED = "csr.stage.finished"
GATE_TRIPPED = "csr.gate.tripped"
RUN_ENDED = "csr.run.ended"
VERDICTS_WANTED = "csr.verdicts.wanted"


def emit(event: str, run_id: str, **payload: Any) -> None:
    """One event about the run."""
    resource = {"prefect.resource.id": f"csr.run.{run_id}", "prefect.resource.name": run_id}
    emit_event(event, resource=resource, payload=payload)
