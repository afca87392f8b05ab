"""Which attempt builds on which.

An iteration starts from the policy of the newest iteration before it that was accepted. What it
started from is in its manifest; whether that still holds is worked out whenever it is asked,
by the weights' digests, so that no stored mark can go out of date.
"""

from __future__ import annotations

from typing import Any

from csr.errors import DataError
from storage.atomic import read_json
from storage.attempt import AttemptDir
from storage.manifest import IterationManifest
from storage.run_store import RunStore

Json = dict[str, Any]


def policy_before(store: RunStore, run_id: str, iteration: int) -> Json:
    """The `PolicyRef` that the iteration starts from, as manifests store it.

    Iterations that a gate holds are passed over. DataError where the iteration before has no
    trained policy yet.
    """
    before = attempt_before(store, run_id, iteration)
    policy = before.manifest.read().policy_out
    if policy is None:
        raise DataError(
            f"{before.id} has no trained policy for the next iteration to start from. Finish it "
            "first: the command that began the run resumes it."
        )
    return policy


def attempt_before(store: RunStore, run_id: str, iteration: int) -> AttemptDir:
    """The current attempt of the nearest earlier iteration that no gate holds; of 0 for 0."""
    for number in range(iteration - 1, 0, -1):
        attempt = store.attempt(run_id, number)
        if not is_held(store, attempt.manifest.read()):
            return attempt
    return store.attempt(run_id, 0)


def is_held(store: RunStore, manifest: IterationManifest) -> bool:
    """Whether a gate holds the attempt, and nobody promoted it all the same."""
    if manifest.status != "held":
        return False
    path = store.current_path(manifest.run_id, manifest.iteration)
    promoted = read_json(path) if path.exists() else {}
    return promoted != {"attempt": manifest.attempt, "promoted": True}


def starts_from(manifest: IterationManifest, policy: Json | None) -> bool:
    """Whether the attempt started from the weights of `policy`; never from None."""
    if manifest.policy_in is None or policy is None:
        return False
    return bool(manifest.policy_in["sha256"] == policy["sha256"])


def is_stale(store: RunStore, manifest: IterationManifest) -> bool:
    """Whether the attempt started from weights that are no longer the ones before it.

    So it is too where what it builds on is itself stale.
    """
    if manifest.iteration == 0 or manifest.policy_in is None:
        return False
    before = attempt_before(store, manifest.run_id, manifest.iteration).manifest.read()
    return is_stale(store, before) or not starts_from(manifest, before.policy_out)


def stale_iterations(store: RunStore, run_id: str) -> list[int]:
    """Iterations whose current attempt is stale, ascending."""
    return [
        number
        for number in store.iterations(run_id)
        if is_stale(store, store.attempt(run_id, number).manifest.read())
    ]
