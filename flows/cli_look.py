"""The verbs of the `csr` command that only look: at the runs, and the machine."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from cyclopts import App

from flows.cli_options import (
    LOOK,
    START,
    Common,
    Flag,
    IterationId,
    RunId,
    answer,
    examples,
    print_json,
    print_table,
    say,
)

app = App()


@app.command(
    group=LOOK,
    sort_key=1,
    help_epilogue=examples(
        "csr ls                # all runs",
        "csr ls tiny-b0f2      # its iterations with their figures",
        "csr ls --json",
    ),
)
def ls(run_id: RunId | None = None, /, *, common: Common = Common()) -> int:
    """List the runs, or the iterations of one run.

    Parameters
    ----------
    run_id
        The run whose iterations to list; without it, all runs.
    """
    from flows import listing

    if run_id is None:
        return answer(listing.runs(common.home), partial(listing.runs_table, common.home), common)
    return answer(listing.run(common.home, run_id), listing.table, common)


@app.command(
    group=LOOK,
    sort_key=2,
    help_epilogue=examples(
        "csr show tiny-b0f2/02",
        "csr show tiny-b0f2/02.1 --json",
    ),
)
def show(iteration_id: IterationId, /, *, common: Common = Common()) -> int:
    """Show one iteration: counts, tables, seconds, policy and gates.

    Parameters
    ----------
    iteration_id
        RUN/NN, or RUN/NN.A for one certain attempt; RUN/00 is the base model.
    """
    from flows import listing

    return answer(listing.iteration(common.home, iteration_id), listing.iteration_table, common)


@app.command(
    group=LOOK,
    sort_key=3,
    help_epilogue=examples(
        "csr trace tiny-b0f2 7",
        "csr trace tiny-b0f2 7 --iteration 2",
    ),
)
def trace(
    run_id: RunId,
    prompt_id: str,
    /,
    *,
    iteration: int | None = None,
    common: Common = Common(),
) -> int:
    """Follow one prompt: its tree, responses and preference pair.

    Parameters
    ----------
    run_id
        The run.
    prompt_id
        The prompt's id in its file.
    iteration
        Which iteration's tree; by default the latest in which the prompt was sampled.
    """
    from flows import trace_view, tracing

    shape = tracing.trace(common.home, run_id, prompt_id, iteration)
    return answer(shape, trace_view.tree, common)


@app.command(
    group=LOOK,
    sort_key=4,
    help_epilogue=examples(
        "csr diff tiny-b0f2/02.1 tiny-b0f2/02.2",
        "csr diff tiny-b0f2/01 tiny-b0f2/02",
    ),
)
def diff(attempt_id: IterationId, other_id: IterationId, /, *, common: Common = Common()) -> int:
    """Compare two attempts: settings, counts, pairs and figures.

    Parameters
    ----------
    attempt_id
        The first: RUN/NN, or RUN/NN.A for one certain attempt.
    other_id
        The second.
    """
    from flows import diffing

    return answer(diffing.diff(common.home, attempt_id, other_id), diffing.table, common)


@app.command(
    group=LOOK,
    sort_key=5,
    help_epilogue=examples(
        "csr compare tiny-b0f2 tiny-8870",
        "csr compare tiny-b0f2 random-2b6d --control random",
        "csr compare tiny-b0f2 --markdown --plot recall.svg",
    ),
)
def compare(
    *run_ids: RunId,
    control: str | None = None,
    markdown: Flag = False,
    plot: Path | None = None,
    common: Common = Common(),
) -> int:
    """Compare runs: mean and spread over the seeds of each recipe name.

    Parameters
    ----------
    run_ids
        The runs; those of one recipe name form one row.
    control
        Recipe name that every other one is also held against, such as random pairs.
    markdown
        Print Markdown instead of a table for the terminal.
    plot
        SVG file to write: hallucination against recall, iteration by iteration.
    """
    from flows import comparison_views as views
    from flows.comparison import compare as compare_stored
    from flows.pareto import pareto_svg
    from storage.atomic import write_text

    comparison = compare_stored(common.home, run_ids, control)
    if plot is not None:
        write_text(plot, pareto_svg(comparison))
    if common.json:
        return print_json(views.to_json(comparison))
    if markdown:
        return say(views.to_markdown(comparison))
    return print_table(views.to_rich(comparison))


@app.command(
    group=LOOK,
    sort_key=6,
    help_epilogue=examples(
        "csr report tiny-b0f2",
        "csr report tiny-b0f2 --output report.html",
    ),
)
def report(run_id: RunId, /, *, output: Path | None = None, common: Common = Common()) -> int:
    """Write one self-contained HTML page about a run.

    Parameters
    ----------
    run_id
        The run.
    output
        File to write; by default `report.html` in the run's folder.
    """
    from flows import reporting

    path = reporting.write_report(common.home, run_id, output)
    return print_json({"run_id": run_id, "report": str(path)}) if common.json else say(path)


@app.command(
    group=LOOK,
    sort_key=7,
    help_epilogue=examples(
        "csr verify tiny-b0f2",
    ),
)
def verify(run_id: RunId, /, *, common: Common = Common()) -> int:
    """Read every file of a run again, against its checksum.

    Exit status 1 where one differs.

    Parameters
    ----------
    run_id
        The run.
    """
    from flows import verifying

    shape = verifying.verify(common.home, run_id)
    answer(shape, verifying.table, common)
    return 1 if shape["problems"] else 0


@app.command(
    group=START,
    sort_key=1,
    help_epilogue=examples(
        "csr doctor",
        "csr doctor --json",
    ),
)
def doctor(*, mend: Flag = False, common: Common = Common()) -> int:
    """Check this machine: Python, packages, GPU, memory, disk.

    Exit status 1 where something fails.

    Parameters
    ----------
    mend
        First mend what a plain `pip install` leaves broken beside a CPU build of torch.
    """
    from flows import doctor as checks

    if mend:
        print("\n".join(checks.mend()), file=sys.stderr)
    findings = checks.diagnose(common.home)
    if common.json:
        say(checks.render_json(findings))
    else:
        print_table(checks.render(findings))
    return 1 if any(finding.status == "fail" for finding in findings) else 0
