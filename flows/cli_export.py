"""The verb of the `csr` command that hands over what a run made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cyclopts import App, Parameter

from flows.cli_options import HAND_OVER, Common, Flag, IterationId, answer, examples
from flows.exporting.request import ExportRequest, FormatName, ImagesMode, What

app = App()


@Parameter(name="*")
@dataclass(frozen=True)
class ExportOptions:
    """How it is handed over."""

    images: ImagesMode | None = None
    """Of pairs: `copy` each image into the folder once (the default); `link` to it from there; or
    `reference` it by its absolute path."""
    what: What | None = None
    """Of a model: the `merged` weights (the default), or the LoRA `adapter` from base to here."""
    base_model: str | None = None
    """Hub id of the base model, where the recipe names a directory."""
    push: str | None = None
    """Repository on the hub, OWNER/NAME, to upload to as well, with the login of `hf auth login`
    or HF_TOKEN."""
    private: Flag = False
    """Make that repository private."""
    overwrite: Flag = False
    """Replace an older export in the folder, and on the hub."""


@app.command(
    group=HAND_OVER,
    sort_key=1,
    help_epilogue=examples(
        "csr export tiny-b0f2/02 --format trl --output pairs",
        "csr export tiny-b0f2/02 --format model --output my-model",
        "csr export tiny-b0f2/02 --format model --output my-model --push me/my-model",
    ),
)
def export(
    iteration_id: IterationId,
    /,
    *,
    format: FormatName,
    output: Path,
    how: ExportOptions = ExportOptions(),
    common: Common = Common(),
) -> int:
    """Write an iteration's pairs, or its policy, for other programs.

    With a card, and onto a hub where that is asked.

    Parameters
    ----------
    iteration_id
        RUN/NN, or RUN/NN.A for one certain attempt.
    format
        Pairs and demonstrations as the named trainer reads them, or `model`: the policy.
    output
        Folder to make; it appears whole or not at all.
    """
    from flows import environment
    from flows.exporting import export as exporting

    environment.apply(common.home)
    request = ExportRequest(
        home=common.home,
        iteration_id=iteration_id,
        format=format,
        output=output,
        images=how.images,
        what=how.what,
        base_model=how.base_model,
        push=how.push,
        private=how.private,
        overwrite=how.overwrite,
    )
    return answer(exporting.export(request), exporting.table, common)
