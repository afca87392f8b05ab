"""The verb of the `csr` command that scores responses which a file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from flows.cli_options import WORK, Common, Flag, answer, examples

app = App()


@app.command(
    group=WORK,
    sort_key=6,
    help_epilogue=examples(
        "csr score said.json --benchmark coco_chair --set annotations=coco/annotations",
        "csr score answers.jsonl --benchmark pope --recipe recipes/csr_llava15_7b.yaml",
    ),
)
def score(
    file: Path,
    /,
    *,
    benchmark: str,
    recipe: Path | None = None,
    set: Annotated[tuple[str, ...], Parameter(consume_multiple=False, negative="")] = (),
    id_field: str | None = None,
    text_field: str | None = None,
    partial: Flag = False,
    output: Path | None = None,
    common: Common = Common(),
) -> int:
    """Score a file of responses against a benchmark, without a model.

    Parameters
    ----------
    file
        JSON list or JSON Lines, as `{"image_id": 42, "caption": "..."}` for coco_chair.
    benchmark
        Its name: coco_chair, captions, pope or amber.
    recipe
        Recipe whose settings of the benchmark are taken.
    set
        One setting of the benchmark, as in `--set annotations=coco/annotations`; may be repeated.
    id_field
        Name of a record's id, where the file has another than the benchmark's own.
    text_field
        Name of a record's text, likewise.
    partial
        Score what the file answers, though that is not all.
    output
        JSON file to write the figures to.
    """
    from flows import scoring
    from storage.atomic import write_json

    request = scoring.ScoreRequest(
        file=file,
        benchmark=benchmark,
        recipe=recipe,
        settings=set,
        id_field=id_field,
        text_field=text_field,
        partial=partial,
    )
    shape = scoring.score(request)
    if output is not None:
        write_json(output, shape)
    return answer(shape, scoring.table, common)
