"""The verbs of the `csr` command that keep running: schedules, deployments, workers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from flows.cli_options import SERVE, Common, RecipeOptions, absolute_home, answer, examples
from flows.shipped import DEMO_RECIPE, recipe_path

app = App()


@app.command(
    group=SERVE,
    sort_key=1,
    help_epilogue=examples(
        "csr serve",
        "csr serve --recipe recipes/own_data.yaml --port 4300",
        "csr serve --cron '0 1 * * *' --run-id 'nightly-{date}'",
    ),
)
def serve(
    *,
    recipe: Annotated[Path, Parameter(show_default=lambda _: "the demo's")] = DEMO_RECIPE,
    cron: str | None = None,
    run_id: str | None = None,
    port: int = 4200,
    options: RecipeOptions = RecipeOptions(),
    common: Common = Common(),
) -> int:
    """Serve scheduled runs, with the flow UI, on this machine.

    The deployments are csr-run, csr-iteration and csr-evaluate.

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
        home=absolute_home(common),
        recipe=str(recipe_path(recipe).absolute()),
        settings=options.set,
        run_id=run_id,
    )
    serving.serve(port, cron, request)
    return 0


@app.command(
    group=SERVE,
    sort_key=2,
    help_epilogue=examples(
        "csr deploy",
        "csr deploy --cron '0 1 * * *'",
    ),
)
def deploy(*, cron: str | None = None, common: Common = Common()) -> int:
    """Give a Prefect server the pool, limits, deployments, automations.

    The server is the one at PREFECT_API_URL.

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


@app.command(
    group=SERVE,
    sort_key=3,
    help_epilogue=examples(
        "csr worker",
        "csr worker --num-flow-runs 2",
    ),
)
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
