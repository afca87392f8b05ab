"""The `csr` command: one verb a function, its work in a module of its own.

Exit status: 0; 1 when a run fails; 2 for a mistake the user can mend, which is
told in one message without a traceback. Nothing heavy is imported before a verb
needs it.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter, Token

from csr.errors import ConfigError, CSRError, RunFailed

app = App(
    name="csr",
    help="Self-rewarding training for vision-language models.",
    version=lambda: importlib.metadata.version("csr"),
    suppress_keyboard_interrupt=False,  # `main` says how the run goes on
)

WIDTH_WITHOUT_TERMINAL = 200
"""Characters."""

DEMO_RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "tiny.yaml"


def _named_folder(kind: Any, tokens: Sequence[Token]) -> Path:
    """An empty name, as an unset shell variable leaves it, would be the working directory."""
    name = tokens[0].value
    if not name.strip():
        raise ConfigError("--home is empty. Name a folder for the runs, or leave it out.")
    return Path(name)


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options of every verb."""

    home: Annotated[Path, Parameter(env_var="CSR_HOME", converter=_named_folder)] = Path("runs")
    """Folder that holds all runs."""
    json: Annotated[bool, Parameter(negative="")] = False
    """Print one JSON object on standard output; everything else goes to standard error."""


@Parameter(name="*")
@dataclass(frozen=True)
class RecipeOptions:
    """Options of the verbs that read a recipe."""

    set: Annotated[tuple[str, ...], Parameter(consume_multiple=False, negative="")] = ()
    """Override one setting, as in `--set reward.image_weight=0.5`; may be repeated."""


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
    if common.json:
        return _print_json({"run_id": run_id_of(resolved), "recipe": resolved.model_dump()})
    import yaml

    print(yaml.safe_dump(json.loads(resolved.model_dump_json()), sort_keys=False), end="")
    return 0


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
    return _print_json(shape) if common.json else _print_table(listing.table(shape))


@app.command
def show(iteration_id: str, *, common: Common = Common()) -> int:
    """Show one iteration, such as `tiny-4f2a/02`, or an attempt of it, `tiny-4f2a/02.1`."""
    from flows import listing

    shape = listing.iteration(common.home, iteration_id)
    return _print_json(shape) if common.json else _print_table(listing.iteration_table(shape))


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
    from flows import tracing

    shape = tracing.trace(common.home, run_id, prompt_id, iteration)
    return _print_json(shape) if common.json else _print_table(tracing.tree(shape))


@app.command
def compare(
    *run_ids: str,
    control: str | None = None,
    markdown: Annotated[bool, Parameter(negative="")] = False,
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
    """
    from flows import compare as comparing
    from flows.comparison import compare as compare_stored

    comparison = compare_stored(common.home, run_ids, control)
    if common.json:
        return _print_json(comparing.to_json(comparison))
    if markdown:
        return _say(comparing.to_markdown(comparison))
    return _print_table(comparing.to_rich(comparison))


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
    return _print_json({"run_id": run_id, "report": str(path)}) if common.json else _say(path)


@app.command
def doctor(*, common: Common = Common()) -> int:
    """Check this machine: Python, packages, GPU, memory, disk."""
    from flows import doctor as checks

    findings = checks.diagnose(common.home)
    if common.json:
        _say(checks.render_json(findings))
    else:
        _print_table(checks.render(findings))
    return 1 if any(finding.status == "fail" for finding in findings) else 0


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
    from flows import environment, launch, listing
    from flows.progress import clean_stdout

    environment.apply(common.home, offline=offline)
    with clean_stdout():
        outcome = launch.launch(recipe, options.set, common.home, run_id)
    shape = listing.run(common.home, outcome.run_id)
    if common.json:
        return _print_json({**shape, "report": str(outcome.report)})
    _print_table(listing.table(shape))
    return _say(f"Report: {outcome.report}")


def _print_json(shape: Any) -> int:
    print(json.dumps(shape, default=str))
    return 0


def _print_table(*renderables: Any) -> int:
    from rich.console import Console

    console = Console()
    # Without a terminal there is no width to fit: a narrow table would lose text.
    console.width = console.width if console.is_terminal else WIDTH_WITHOUT_TERMINAL
    console.print(*renderables)
    return 0


def _say(value: object) -> int:
    print(value)
    return 0
