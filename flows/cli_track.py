"""The verb of the `csr` command that shows a run to a tracker."""

from __future__ import annotations

from cyclopts import App

from flows.cli_options import HAND_OVER, Common, RecipeOptions, RunId, answer, examples

app = App()


@app.command(
    group=HAND_OVER,
    sort_key=2,
    help_epilogue=examples(
        "csr track tiny-b0f2 tensorboard",
        "csr track tiny-b0f2 wandb --set project=csr",
    ),
)
def track(
    run_id: RunId,
    tracker: str | None = None,
    /,
    *,
    options: RecipeOptions = RecipeOptions(),
    common: Common = Common(),
) -> int:
    """Show a run in TensorBoard, trackio or wandb.

    What is not there yet is logged.

    Parameters
    ----------
    run_id
        The run, finished or not.
    tracker
        `tensorboard`, `trackio` or `wandb`; without it, the one that the run has.
    """
    from flows import environment, tracking
    from flows.progress import clean_stdout

    environment.apply(common.home)
    with clean_stdout():
        shape = tracking.track_run(common.home, run_id, tracker, options.set)
    return answer(
        shape, lambda told: f"{told['num_new_figures']} new figures. {told['shown_by']}", common
    )
