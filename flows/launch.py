"""From a recipe to a finished run: check everything, prepare the store, start the flow."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from csr.errors import ConfigError, CSRError, RunFailed
from flows.checks import CheckedInputs, check_inputs, check_without_world
from flows.config import Recipe, load_recipe, run_id_of
from flows.context import code_version
from flows.engines import close_engines
from flows.home import open_store
from flows.interrupts import orderly_sigterm
from flows.iteration import is_finished
from flows.progress import live_bars, log_to_console
from flows.reporting import write_report
from flows.versions import package_versions
from flows.worlds import build_missing_world, locate_world
from storage.rows import prompts_to_table, quarantine_to_table
from storage.run_store import RunStore
from storage.tables import write_table

logger = logging.getLogger("csr")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished run."""

    run_id: str
    report: Path


def launch(
    recipe_path: Path, overrides: tuple[str, ...], home: Path, run_id: str | None = None
) -> Outcome:
    """Run a recipe to its end, or resume it; nothing is done for a run that is finished.

    CSRError before anything is written under `home` where the recipe, the data or the
    model cannot work; RunFailed where the flow does not finish.
    """
    recipe = load_recipe(recipe_path, overrides)
    run_id = run_id_of(recipe) if run_id is None else run_id
    store = open_store(home)
    store.run_path(run_id)
    log_to_console()
    with live_bars(), orderly_sigterm():
        located = locate_world(recipe)
        if store.has_run(run_id):
            _create(store, located, run_id)  # refuses another recipe's, before any work
        prepared = _is_prepared(store, run_id)
        if not prepared:
            check_without_world(recipe, store.home)
        build_missing_world(recipe)
        recipe = located
        checked = None if prepared else check_inputs(recipe, store.home)
        _create(store, recipe, run_id)
        with store.lock(run_id):
            if checked is not None:
                _prepare(store, run_id, checked)
            _finish(store, recipe, run_id)
            return Outcome(run_id=run_id, report=write_report(store.home, run_id))


def _is_prepared(store: RunStore, run_id: str) -> bool:
    """Whether the run has all that the flow starts from. The base's attempt is written last."""
    return store.current_attempt(run_id, 0) is not None


def _create(store: RunStore, recipe: Recipe, run_id: str) -> None:
    """The run's record. ConfigError where it belongs to another recipe or release."""
    record = store.create_run(
        run_id,
        recipe=recipe.name,
        config=json.loads(recipe.model_dump_json()),
        seed=recipe.seed,
        code_version=code_version(),
        packages=package_versions(),
    )
    if record.code_version != code_version():
        raise ConfigError(
            f"run {run_id} was begun with release {record.code_version}, and this is "
            f"{code_version()}: the two may not make the same. Finish it with the release that "
            "began it, or start a new one with --run-id."
        )


def _prepare(store: RunStore, run_id: str, checked: CheckedInputs) -> None:
    """Write what every iteration reads: prompts, quarantine, base policy."""
    if checked.prompts.bad_images:
        logger.warning("%d prompts left out: unreadable image", len(checked.prompts.bad_images))
        write_table(store.quarantine_path(run_id), quarantine_to_table(checked.prompts.bad_images))
    write_table(store.prompts_path(run_id), prompts_to_table(checked.prompts.prompts))
    if not _is_prepared(store, run_id):
        policy = checked.base_policy
        store.new_attempt(run_id, 0, policy_in=policy, policy_out=policy)


def _finish(store: RunStore, recipe: Recipe, run_id: str) -> None:
    """Run the flow, unless every stage is done; the run's status tells how it ended."""
    home = str(store.home)
    was_done = store.run(run_id).status == "done"
    if was_done and is_finished(home, run_id, recipe.num_iterations):
        logger.info("%s: finished already, nothing to do", run_id)
        return
    store.set_status(run_id, "running")
    with _status_at_end(store, run_id):
        # Imported late: Prefect reads its settings and its home when it is imported.
        from flows.run import run_flow
        from flows.server import prefect_server

        with prefect_server():
            run_flow(home, run_id, recipe.num_iterations)


@contextmanager
def _status_at_end(store: RunStore, run_id: str) -> Iterator[None]:
    try:
        yield
    except CSRError as error:
        store.set_status(run_id, "failed")
        raise RunFailed(f"run {run_id}: {error}") from error
    except Exception:
        store.set_status(run_id, "failed")
        raise
    except BaseException:
        store.set_status(run_id, "suspended")
        raise
    else:
        store.set_status(run_id, "done")
    finally:
        close_engines()
