"""The `csr` command: one verb a function, its work in a module of its own.

Exit status: 0; 1 when a run fails; 2 for a mistake the user can mend, which is
told in one message without a traceback. Nothing heavy is imported before a verb
needs it.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

from csr.errors import CSRError, RunFailed
from flows import cli_look
from flows.cli_options import Common, RecipeOptions, answer, print_json, print_table, say

app = App(
    name="csr",
    help="Self-rewarding training for vision-language models.",
    version=lambda: importlib.metadata.version("csr"),
    suppress_keyboard_interrupt=False,  # `main` says how the run goes on
)

app.command(cli_look.app, name="*")

StageName = Literal["measure", "sample", "pair", "train", "evaluate"]

DEMO_RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "tiny.yaml"


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
    from flows.progress import clean_stdout
    from flows.requests import IterationRequest

    environment.apply(common.home)
    request = IterationRequest(
        home=str(common.home.expanduser().absolute()),
        iteration_id=iteration_id,
        settings=options.set,
        from_stage=from_stage,
        until_stage=until_stage,
    )
    with clean_stdout():
        attempt_id = command.rerun(request)
    return answer(listing.iteration(common.home, attempt_id), listing.iteration_table, common)


@app.command
def promote(attempt_id: str, *, common: Common = Common()) -> int:
    """Make one attempt, such as `tiny-4f2a/02.2`, the one that later iterations build on.

    Iterations built on another one are stale from then on; `csr run` makes them anew.
    """
    from flows import promotion

    return answer(promotion.promote(common.home, attempt_id), promotion.table, common)


def main() -> None:
    """Entry point of the console script."""
    from flows.interrupts import Terminated

    try:
        status = app(sys.argv[1:], exit_on_error=False, result_action="return_value")
    except CycloptsError:  # already printed
        status = 2
    except CSRError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
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
    from flows import command, environment, listing
    from flows.progress import clean_stdout
    from flows.requests import RunRequest

    environment.apply(common.home, offline=offline)
    request = RunRequest(
        home=str(common.home.expanduser().absolute()),
        recipe=str(recipe),
        settings=options.set,
        run_id=run_id,
    )
    with clean_stdout():
        outcome = command.run(request)
    shape = listing.run(common.home, outcome.run_id)
    if common.json:
        return print_json({**shape, "report": str(outcome.report)})
    print_table(listing.table(shape))
    return say(f"Report: {outcome.report}")
