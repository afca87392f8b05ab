"""From a recipe to a finished run: check everything, prepare the store, do the iterations."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from csr.errors import CSRError, DataError, EnvironmentFault, RunFailed, VerdictsWanted
from flows import environment
from flows.checks import CheckedInputs, check_inputs, check_without_world
from flows.config import Recipe, load_recipe, run_id_of
from flows.context import code_version, refuse_other_release
from flows.forms import RunRequest
from flows.gating import held_reason
from flows.home import open_store
from flows.iteration import is_finished
from flows.progress import clean_stdout, stage_progress
from flows.reporting import write_report
from flows.stopping import last_iteration
from flows.tracker_check import check_tracker
from flows.tracking import keep_tracker
from flows.versions import package_versions
from flows.work import engines_closed_at_end
from flows.worlds import build_missing_world, locate_world
from storage.images import ImageStore
from storage.lineage import is_held
from storage.manifest import Status
from storage.rows import prompts_to_table, quarantine_to_table
from storage.run_store import RunStore
from storage.tables import write_table

logger = logging.getLogger("csr")


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A run whose inputs are checked and stored, and on which this process alone works."""

    store: RunStore
    run_id: str
    recipe: Recipe

    @property
    def home(self) -> str:
        """The folder that holds the run."""
        return str(self.store.home)

    @property
    def report(self) -> Path:
        """The run's page."""
        return self.store.run_path(self.run_id) / "report.html"

    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        was_done = self.store.run(self.run_id).status == "done"
        return was_done and is_finished(self.home, self.run_id, self.last_iteration)

    @property
    def last_iteration(self) -> int:
        """Where the run ends, as far as can be told now."""
        recipe = self.recipe
        return last_iteration(self.store, self.run_id, recipe.num_iterations, recipe.stop)


def recipe_of(request: RunRequest) -> tuple[Recipe, str]:
    """The validated recipe and the run's ID. ConfigError where either cannot work."""
    recipe = load_recipe(Path(request.recipe), request.settings)
    return recipe, run_id_of(recipe) if request.run_id is None else request.run_id


def check_files(recipe: Recipe, home: Path) -> CheckedInputs:
    """What a run of the recipe looks at before it starts: CSRError tells what cannot work.

    The recipe's world is built where it has one.
    """
    environment.apply(home)
    path = open_store(home).home
    check_without_world(recipe, path)
    with clean_stdout():
        build_missing_world(recipe)
        return check_inputs(locate_world(recipe), path)


@contextmanager
def prepared_run(recipe: Recipe, run_id: str, home: Path) -> Iterator[PreparedRun]:
    """The run, ready to start or go on, and locked inside.

    CSRError before anything is written under `home` where the recipe, the data or the
    model cannot work, or where another process works on the run.
    """
    store = open_store(home)
    store.run_path(run_id)
    if recipe.tracker is not None:
        check_tracker(recipe.tracker)
    located = locate_world(recipe)
    if store.has_run(run_id):
        _create(store, located, run_id)  # refuses another recipe's, before any work
    prepared = _is_prepared(store, run_id)
    if not prepared:
        check_without_world(recipe, store.home)
    build_missing_world(recipe)
    checked = None if prepared else check_inputs(located, store.home)
    _create(store, located, run_id)
    with store.lock(run_id):
        # Another process may have prepared it since, and even have finished.
        if checked is not None and not _is_prepared(store, run_id):
            _prepare(store, run_id, checked)
        keep_tracker(store, run_id, recipe.tracker)
        yield PreparedRun(store, run_id, located)


def do_iterations(run: PreparedRun, do: Callable[[int], object]) -> None:
    """Call `do` for each iteration; the run's status tells how it ended, its report shows it.

    RunFailed where an iteration cannot be finished. Engines are closed at the end.
    """
    last = run.recipe.num_iterations
    run.store.set_status(run.run_id, "running")
    with engines_closed_at_end(), _status_at_end(run.store, run.run_id):
        for iteration in range(last + 1):
            do(iteration)
            _renew_report(run)
            _stop_if_held(run, iteration)
            logger.info("%s: iteration %d of %d done", run.run_id, iteration, last)
            if run.last_iteration == iteration < last:
                logger.info("%s: nothing more is gained, so it ends here", run.run_id)
                break
    write_report(run.store.home, run.run_id)


def _renew_report(run: PreparedRun) -> None:
    """Later iterations may have a damaged table, which is made anew when their turn comes."""
    try:
        write_report(run.store.home, run.run_id)
    except DataError as error:
        logger.warning("%s: its report is not renewed yet. %s", run.run_id, error)


class Held(RunFailed):
    """A gate holds an iteration, and the recipe says to stop then."""


def _stop_if_held(run: PreparedRun, iteration: int) -> None:
    attempt = run.store.attempt(run.run_id, iteration)
    gates = run.recipe.gates
    if gates is None or gates.on_trip == "continue":
        return
    if is_held(run.store, attempt.manifest.read()):
        raise Held(
            f"run {run.run_id}: {attempt.id} is held, and the policy before it stays current. "
            f"{held_reason(attempt)} To go on all the same: csr promote {attempt.id}, then this "
            "command again."
        )


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
        platform=platform.platform(),
    )
    refuse_other_release(record)


def _prepare(store: RunStore, run_id: str, checked: CheckedInputs) -> None:
    """Write what every iteration reads: images, prompts, quarantine, base policy."""
    files = []
    for iteration, loaded in ((None, checked.prompts), *checked.own_prompts.items()):
        with stage_progress("keep images") as progress:
            ImageStore(store.home).keep(loaded.kept_images, progress)
        if bad := loaded.bad_records:
            counts = ", ".join(f"{name} {n}" for name, n in loaded.skipped.items())
            logger.warning("%d records left out: %s", len(bad), counts)
            files.append(store.quarantine_path(run_id, iteration))
            write_table(files[-1], quarantine_to_table(bad))
        files.append(store.prompts_path(run_id, iteration))
        write_table(files[-1], prompts_to_table(loaded.prompts))
    store.record_files(run_id, tuple(files))
    policy = checked.base_policy
    store.new_attempt(run_id, 0, policy_in=policy, policy_out=policy)


@contextmanager
def _status_at_end(store: RunStore, run_id: str) -> Iterator[None]:
    try:
        yield
    except Held:
        _note_end(store, run_id, "held")
        raise
    except VerdictsWanted:
        _note_end(store, run_id, "waiting")
        raise
    except CSRError as error:
        _note_end(store, run_id, "failed")
        with suppress(CSRError):  # the page says why it failed, where it can be written
            write_report(store.home, run_id)
        raise RunFailed(f"run {run_id}: {error}") from error
    except Exception:
        _note_end(store, run_id, "failed")
        raise
    except BaseException:
        _note_end(store, run_id, "suspended")
        raise
    else:
        store.set_status(run_id, "done")


def _note_end(store: RunStore, run_id: str, status: Status) -> None:
    """A full disk must not hide why the run ended; without a note it counts as suspended."""
    with suppress(EnvironmentFault):
        store.set_status(run_id, status)
