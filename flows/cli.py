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
from flows import (
    cli_export,
    cli_lmms,
    cli_look,
    cli_plan,
    cli_recipes,
    cli_review,
    cli_score,
    cli_serve,
    cli_shell,
    cli_track,
)
from flows.cli_options import (
    SHELL,
    START,
    WORK,
    Common,
    IterationId,
    RecipeOptions,
    absolute_home,
    answer,
    examples,
    print_json,
    print_table,
    say,
)
from flows.shipped import DEMO_RECIPE
from flows.stage_names import StageName

if TYPE_CHECKING:
    from flows.command import Outcome

FIRST_STEPS = """\
**First steps**

```sh
csr doctor                          # does this machine have what it takes?
csr demo                            # the whole loop on a CPU, in minutes
csr ls                              # the run that it made
csr ls RUN                          # its iterations with their figures
csr report RUN                      # one HTML page about it
csr validate recipes/own_data.yaml  # then your own images: docs/own_data.md
```"""

app = App(
    name="csr",
    help=(
        "Self-rewarding training for vision-language models.\n\n"
        "A policy samples its own answers, a reward ranks them, the policy learns from the best "
        "and the worst, and held-out images tell whether it hallucinates less: one iteration. "
        "`csr COMMAND --help` has examples."
    ),
    help_epilogue=FIRST_STEPS,
    version=lambda: importlib.metadata.version("csr"),
    suppress_keyboard_interrupt=False,  # `main` says how the run goes on
)

app.command(cli_look.app, name="*")
app.command(cli_plan.app, name="*")
app.command(cli_review.app, name="*")
app.command(cli_export.app, name="*")
app.command(cli_track.app, name="*")
app.command(cli_recipes.app, name="*")
app.command(cli_score.app, name="*")
app.command(cli_lmms.app, name="*")
app.command(cli_serve.app, name="*")
app.command(cli_shell.app, name="*")

for flag in ("--help", "--version"):
    app[flag].group = SHELL


@app.command(
    group=START,
    sort_key=2,
    help_epilogue=examples(
        "csr demo",
        "csr demo --set seed=8",
        "csr demo --set num_iterations=1 --home runs/short",
    ),
)
def demo(*, options: RecipeOptions = RecipeOptions(), common: Common = Common()) -> int:
    """Run CSR on the embedded tiny world: CPU only, no downloads."""
    return _launch(DEMO_RECIPE, options, common, offline=True)


@app.command(
    group=WORK,
    sort_key=1,
    help_epilogue=examples(
        "csr run recipes/tiny.yaml",
        "csr run recipes/tiny.yaml --run-id mine --set seed=8",
        "csr run recipes/own_data.yaml --set policy.model=/path/to/a/model",
    ),
)
def run(
    recipe: Path,
    /,
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


@app.command(
    group=WORK,
    sort_key=2,
    help_epilogue=examples(
        "csr rerun tiny-b0f2/02",
        "csr rerun tiny-b0f2/02 --set trainer.learning_rate=1e-4",
        "csr rerun tiny-b0f2/02 --from pair --until pair     # pairs alone, in seconds",
    ),
)
def rerun(
    iteration_id: IterationId,
    /,
    *,
    from_stage: Annotated[StageName | None, Parameter(name="--from")] = None,
    until_stage: Annotated[StageName | None, Parameter(name="--until")] = None,
    options: RecipeOptions = RecipeOptions(),
    common: Common = Common(),
) -> int:
    """Do one iteration over from the same inputs, overwriting nothing.

    It is a new attempt, such as `tiny-b0f2/02.2`, which `csr promote` makes count. Interrupted, the
    same command goes on with that attempt.

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
        home=absolute_home(common),
        iteration_id=iteration_id,
        settings=options.set,
        from_stage=from_stage,
        until_stage=until_stage,
    )
    with clean_stdout():
        attempt_id = command.rerun(request)
    return answer(listing.iteration(common.home, attempt_id), listing.iteration_table, common)


@app.command(
    group=WORK,
    sort_key=5,
    help_epilogue=examples(
        "csr evaluate tiny-b0f2/02",
        "csr evaluate /path/to/a/model --recipe recipes/own_data.yaml",
    ),
)
def evaluate(
    target: IterationId,
    /,
    *,
    recipe: Path | None = None,
    options: RecipeOptions = RecipeOptions(),
    common: Common = Common(),
) -> int:
    """Ask a policy, or any model, the benchmarks' questions.

    It becomes a run without iterations.

    Parameters
    ----------
    target
        An iteration, such as `tiny-b0f2/02`, whose policy is asked; or a model's directory
        or hub id.
    recipe
        Recipe whose benchmarks are asked; a model needs one, an iteration has its run's.
    """
    from flows import command
    from flows.forms import EvaluateRequest

    request = EvaluateRequest(
        home=absolute_home(common),
        target=target,
        recipe=None if recipe is None else str(recipe),
        settings=options.set,
    )
    return _do(lambda: command.evaluate(request), common)


@app.command(
    group=WORK,
    sort_key=3,
    help_epilogue=examples(
        "csr promote tiny-b0f2/02.2",
    ),
)
def promote(attempt_id: IterationId, /, *, common: Common = Common()) -> int:
    """Make one attempt the one that later iterations build on.

    Iterations built on another one are stale from then on; `csr run` makes them anew.

    Parameters
    ----------
    attempt_id
        RUN/NN.A, as `csr rerun` names it.
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
        home=absolute_home(common), recipe=str(recipe), settings=options.set, run_id=run_id
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
