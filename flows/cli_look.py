"""The verbs of the `csr` command that only look: at a recipe, the runs, the machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from flows.cli_options import (
    Common,
    RecipeOptions,
    answer,
    print_json,
    print_table,
    say,
)

app = App()


@app.command
def validate(
    recipe: Path, *, options: RecipeOptions = RecipeOptions(), common: Common = Common()
) -> int:
    """Check a recipe and print it with every default filled in.

    Parameters
    ----------
    recipe
        YAML file; see `recipes/`.
    """
    from flows.config import load_recipe, run_id_of

    resolved = load_recipe(recipe, options.set)
    tracker = resolved.tracker and resolved.tracker.model_dump(mode="json")
    shown = {**json.loads(resolved.model_dump_json()), "tracker": tracker}
    if common.json:
        return print_json({"run_id": run_id_of(resolved), "recipe": shown})
    import yaml

    print(yaml.safe_dump(shown, sort_keys=False), end="")
    return 0


@app.command
def recipes(name: str | None = None, *, common: Common = Common()) -> int:
    """List the recipes that come with csr, or print one: `csr recipes own_data > mine.yaml`.

    Parameters
    ----------
    name
        Name of the recipe to print, such as `own_data`.
    """
    from flows import shipped

    if name is not None:
        print(shipped.recipe_text(name), end="")
        return 0
    return answer({"recipes": shipped.shipped_recipes()}, shipped.table, common)


@app.command
def ls(run_id: str | None = None, *, common: Common = Common()) -> int:
    """List the runs, or the iterations of one run.

    Parameters
    ----------
    run_id
        The run whose iterations to list; without it, all runs.
    """
    from flows import listing

    shape = listing.runs(common.home) if run_id is None else listing.run(common.home, run_id)
    return answer(shape, listing.table, common)


@app.command
def show(iteration_id: str, *, common: Common = Common()) -> int:
    """Show one iteration, such as `tiny-4f2a/02`, or an attempt of it, `tiny-4f2a/02.1`."""
    from flows import listing

    return answer(listing.iteration(common.home, iteration_id), listing.iteration_table, common)


@app.command
def trace(
    run_id: str, prompt_id: str, *, iteration: int | None = None, common: Common = Common()
) -> int:
    """Follow one prompt: its tree, its responses and its preference pair.

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


@app.command
def diff(attempt_id: str, other_id: str, *, common: Common = Common()) -> int:
    """Compare two attempts, or iterations: settings, counts, pairs and figures.

    Parameters
    ----------
    attempt_id
        The first, such as `tiny-4f2a/02.1`.
    other_id
        The second, such as `tiny-4f2a/02.2`.
    """
    from flows import diffing

    return answer(diffing.diff(common.home, attempt_id, other_id), diffing.table, common)


@app.command
def compare(
    *run_ids: str,
    control: str | None = None,
    markdown: Annotated[bool, Parameter(negative="")] = False,
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


@app.command
def report(run_id: str, *, output: Path | None = None, common: Common = Common()) -> int:
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


@app.command
def verify(run_id: str, *, common: Common = Common()) -> int:
    """Read every file of a run again, against its checksum. Exit status 1 where one differs.

    Parameters
    ----------
    run_id
        The run.
    """
    from flows import verifying

    shape = verifying.verify(common.home, run_id)
    answer(shape, verifying.table, common)
    return 1 if shape["problems"] else 0


@app.command
def doctor(*, mend: bool = False, common: Common = Common()) -> int:
    """Check this machine: Python, packages, GPU, memory, disk.

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
