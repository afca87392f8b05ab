"""The verb of the `csr` command by which people judge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from csr.errors import ConfigError
from flows.cli_options import WORK, Common, IterationId, answer, examples, print_json, say

app = App()


@app.command(
    group=WORK,
    sort_key=4,
    help_epilogue=examples(
        "csr review tiny-b0f2/01",
        "csr review tiny-b0f2/01 --export tasks.json     # for Label Studio",
        "csr review tiny-b0f2/01 --import export.json",
    ),
)
def review(
    iteration_id: IterationId,
    /,
    *,
    port: int = 7860,
    export_file: Annotated[Path | None, Parameter(name="--export")] = None,
    import_file: Annotated[Path | None, Parameter(name="--import")] = None,
    common: Common = Common(),
) -> int:
    """Judge responses in the browser, where a run waits for people.

    Parameters
    ----------
    iteration_id
        RUN/NN, or RUN/NN.A for one certain attempt.
    port
        Port of the page on this machine; 0 takes a free one.
    export_file
        Write Label Studio's tasks to this JSON file instead, and its labelling interface beside
        it as XML.
    import_file
        Read verdicts from Label Studio's JSON export instead.
    """
    from flows import environment, label_studio
    from flows.review import open_desk

    if export_file and import_file:
        raise ConfigError("--export and --import exclude each other. Give one.")
    environment.apply(common.home, offline=True)
    desk = open_desk(common.home, iteration_id)
    if export_file is not None:
        return answer(label_studio.export_tasks(desk, export_file), label_studio.table, common)
    if import_file is not None:
        return answer(label_studio.import_verdicts(desk, import_file), label_studio.table, common)
    from flows.review_server import serve_page

    def told(url: str) -> Any:
        if common.json:
            return print_json({"attempt": desk.attempt_id, "url": url})
        return say(f"Judge {desk.attempt_id} at {url} (Ctrl-C ends the page; verdicts stay)")

    serve_page(desk, port, told)
    return 0
