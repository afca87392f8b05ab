"""The verb of the `csr` command that shows a run to a tracker."""

from __future__ import annotations

from cyclopts import App

from flows.cli_options import Common, RecipeOptions, answer

app = App()


@app.command
def track(
    run_id: str,
    tracker: str | None = None,
    *,
    options: RecipeOptions = RecipeOptions(),
    common: Common = Common(),
) -> int:
    """Show a run in TensorBoard, trackio or wandb: what is not there yet is logged.

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
