"""The `csr` command: one verb a function, its work in a module of its own.

Exit status: 0; 1 when a run fails; 2 for a mistake the user can mend, which is
told in one message without a traceback. Nothing heavy is imported before a verb
needs it.
"""

from __future__ import annotations

import importlib.metadata
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, CycloptsError, Parameter

from csr.errors import CSRError, RunFailed, VerdictsWanted
from flows import cli_export, cli_lmms, cli_look, cli_plan, cli_review, cli_score, cli_track
from flows.cli_options import Common, RecipeOptions, answer, print_json, print_table, say
from flows.shipped import DEMO_RECIPE, recipe_path
from flows.stage_names import StageName

if TYPE_CHECKING:
    from flows.command import Outcome

app = App(
    name="csr",
    help="Self-rewarding training for vision-language models.",
    version=lambda: importlib.metadata.version("csr"),
    suppress_keyboard_interrupt=False,  # `main` says how the run goes on
)

app.command(cli_look.app, name="*")
app.command(cli_plan.app, name="*")
app.command(cli_review.app, name="*")
app.command(cli_export.app, name="*")
app.command(cli_track.app, name="*")
app.command(cli_score.app, name="*")
app.command(cli_lmms.app, name="*")


@app.command
def demo(*, options: RecipeOptions = RecipeOptions(), common: Common = Common()) -> int:
    """Run CSR on the embedded tiny world: CPU only, no downloads."""
    return _launch(DEMO_RECIPE, options, common, offline=True)


@app.command
def run(
    recipe: Path,
    *,
    run_id: str | None = None,
    options: RecipeOptions = RecipeOptions(),
    common: Common = Common(),
) -> int:
    """Run a recipe, or resume it: the same command finds the same run.

    Parameters
    ----------
    recipe
        YAML file; see `recipes/`.
    run_id
        Name of the run; by default the recipe's name and four digits of its digest.
    """
    return _launch(recipe, options, common, run_id=run_id)


@app.command
def rerun(
    iteration_id: str,
    *,
    from_stage: Annotated[StageName | None, Parameter(name="--from")] = None,
    until_stage: Annotated[StageName | None, Parameter(name="--until")] = None,
    options: RecipeOptions = RecipeOptions(),
    common: Common = Common(),
) -> int:
    """Do one iteration over from the same inputs, in a new attempt that overwrites nothing.

    Interrupted, the same command goes on with that attempt. `csr promote` makes it count.

    Parameters
    ----------
    iteration_id
        RUN/NN, or RUN/NN.A to do over one certain attempt.
    from_stage
        First stage to do over; what the earlier ones made is taken as it is.
    until_stage
        Last stage to do: `--from pair --until pair` makes pairs alone, in seconds.
    """
    from flows import command, environment, listing
    from flows.forms import IterationRequest
    from flows.progress import clean_stdout

    environment.apply(common.home)
    request = IterationRequest(
        home=_absolute(common),
        iteration_id=iteration_id,
        settings=options.set,
        from_stage=from_stage,
        until_stage=until_stage,
    )
    with clean_stdout():
        attempt_id = command.rerun(request)
    return answer(listing.iteration(common.home, attempt_id), listing.iteration_table, common)


@app.command
def evaluate(
    target: str,
    *,
    recipe: Path | None = None,
    options: RecipeOptions = RecipeOptions(),
    common: Common = Common(),
) -> int:
    """Ask a policy the benchmarks' questions, as a run without iterations.

    Parameters
    ----------
    target
        An iteration, such as `tiny-4f2a/02`, whose policy is asked; or a model's directory
        or hub id.
    recipe
        Recipe whose benchmarks are asked; a model needs one, an iteration has its run's.
    """
    from flows import command
    from flows.forms import EvaluateRequest

    request = EvaluateRequest(
        home=_absolute(common),
        target=target,
        recipe=None if recipe is None else str(recipe),
        settings=options.set,
    )
    return _do(lambda: command.evaluate(request), common)


@app.command
def serve(
    *,
    recipe: Path = DEMO_RECIPE,
    cron: str | None = None,
    run_id: str | None = None,
    port: int = 4200,
    options: RecipeOptions = RecipeOptions(),
    common: Common = Common(),
) -> int:
    """Serve the deployments csr-run, csr-iteration and csr-evaluate, with the flow UI.

    Parameters
    ----------
    recipe
        What csr-run runs unless its form says otherwise.
    cron
        When to start it, such as "0 1 * * *"; by default only when asked.
    run_id
        Name of its run; `{date}` stands for the day, so that each night is a run of its own.
    port
        Port of the flow UI on this machine, where PREFECT_API_URL names no other server.
    """
    from flows import environment, serving
    from flows.forms import RunRequest
    from flows.home import make_home

    make_home(common.home)
    environment.apply(common.home, console_level="INFO")
    request = RunRequest(
        home=_absolute(common),
        recipe=str(recipe_path(recipe).absolute()),
        settings=options.set,
        run_id=run_id,
    )
    serving.serve(port, cron, request)
    return 0


@app.command
def deploy(*, cron: str | None = None, common: Common = Common()) -> int:
    """Tell the Prefect server at PREFECT_API_URL about pool, limits, deployments, automations.

    Parameters
    ----------
    cron
        When to start csr-run, UTC, such as "0 1 * * *"; schedules that are there stay.
    """
    from flows import deploying, environment
    from flows.home import make_home

    make_home(common.home)
    environment.apply(common.home)
    return answer({"done": deploying.deploy(cron)}, lambda shape: "\n".join(shape["done"]), common)


@app.command
def worker(*, num_flow_runs: int = 1, common: Common = Common()) -> int:
    """Work on the runs of the work pool `csr`, until stopped.

    Parameters
    ----------
    num_flow_runs
        Flow runs at once; one for each set of GPUs.
    """
    from flows import environment
    from flows.home import make_home

    make_home(common.home)
    environment.apply(common.home, console_level="INFO")
    from flows.worker import work

    return work(num_flow_runs=num_flow_runs)


@app.command
def promote(attempt_id: str, *, common: Common = Common()) -> int:
    """Make one attempt, such as `tiny-4f2a/02.2`, the one that later iterations build on.

    Iterations built on another one are stale from then on; `csr run` makes them anew.
    """
    from flows import environment, promotion

    environment.apply(common.home)
    return answer(promotion.promote(common.home, attempt_id), promotion.table, common)


def main() -> None:
    """Entry point of the console script."""
    from flows.interrupts import Terminated

    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may lack a prompt's letters
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = app(sys.argv[1:], exit_on_error=False, result_action="return_value")
    except CycloptsError:  # already printed
        status = 2
    except CSRError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except VerdictsWanted as error:
        print(f"waiting: {error}", file=sys.stderr)
        status = 1
    except RunFailed as error:
        print(f"failed: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt as stop:
        print("Interrupted. The same command resumes the run.", file=sys.stderr)
        status = 143 if isinstance(stop, Terminated) else 130
    sys.exit(status or 0)


def _launch(
    recipe: Path,
    options: RecipeOptions,
    common: Common,
    *,
    run_id: str | None = None,
    offline: bool = False,
) -> int:
    from flows import command
    from flows.forms import RunRequest

    request = RunRequest(
        home=_absolute(common), recipe=str(recipe), settings=options.set, run_id=run_id
    )
    return _do(lambda: command.run(request), common, offline=offline)


def _do(work: Callable[[], Outcome], common: Common, *, offline: bool = False) -> int:
    """Do a run's work, and answer with its figures."""
    from flows import environment, listing
    from flows.progress import clean_stdout

    environment.apply(common.home, offline=offline)
    with clean_stdout():
        outcome = work()
    shape = listing.run(common.home, outcome.run_id)
    if common.json:
        return print_json({**shape, "report": str(outcome.report)})
    print_table(listing.table(shape))
    return say(f"Report: {outcome.report}")


def _absolute(common: Common) -> str:
    from flows.home import open_store

    return str(open_store(common.home).home)
