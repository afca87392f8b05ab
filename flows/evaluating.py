"""`csr evaluate`: any policy on the benchmarks, as a run without iterations.

Iteration 0 of a run is the evaluation of its base model. With the asked policy in that place, the
report, the comparison, and the check that no held-out image was trained on all hold here too.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from csr.errors import ConfigError, DataError
from flows.config import Recipe, load_recipe, overridden, run_id_of
from flows.forms import EvaluateRequest
from flows.home import open_store
from storage.attempt import AttemptDir, parse_iteration_id
from storage.run_store import RunStore

MAX_NAME_CHARACTERS = 48


def evaluation_of(request: EvaluateRequest) -> tuple[Recipe, str]:
    """The recipe of the evaluation and its run's ID. CSRError where either cannot work."""
    attempt = named_iteration(open_store(request.home_path), request.target)
    if attempt is not None:
        model, origin = policy_path(attempt), str(attempt.id)
    else:
        model, origin = request.target, Path(request.target).name
    settings = (
        *request.settings,
        "num_iterations=0",
        f"policy.model={json.dumps(model)}",
        f"name={_name(origin)}",
    )
    if request.recipe is not None:
        recipe = load_recipe(Path(request.recipe), settings)
    elif attempt is not None:
        recipe = overridden(attempt.manifest.read().config, settings, str(attempt.id))
    else:
        raise ConfigError(
            f"{request.target} is no iteration in {request.home_path}, so it is taken for a model, "
            "and a model needs a recipe that says which benchmarks to ask: --recipe FILE."
        )
    if not recipe.evaluation:
        raise ConfigError(
            f"The recipe for {request.target} names no benchmark under `evaluation`, so there is "
            "nothing to ask. Add one, such as `captions`."
        )
    return recipe, run_id_of(recipe)


def named_iteration(store: RunStore, target: str) -> AttemptDir | None:
    """The attempt that `target` names; None where it is no ID of a run here."""
    try:
        asked = parse_iteration_id(target)
    except ConfigError:
        return None
    if not store.has_run(asked.run_id):
        return None
    return store.attempt(asked.run_id, asked.iteration, asked.attempt)


def policy_path(attempt: AttemptDir) -> str:
    """The directory of the attempt's trained policy. DataError where it has none yet."""
    policy = attempt.manifest.read().policy_out
    if policy is None:
        raise DataError(
            f"{attempt.id} has no trained policy yet. Bring it to its end first: the command that "
            "began it, without --until, goes on with it."
        )
    return str(policy["model_path"])


def _name(origin: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", f"evaluate-{origin}".lower()).strip("-")
    return slug[:MAX_NAME_CHARACTERS].rstrip("-")
