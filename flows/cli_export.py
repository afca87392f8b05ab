"""The verb of the `csr` command that hands over what a run made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from flows.cli_options import Common, answer

app = App()


@app.command
def export(
    iteration_id: str,
    *,
    format: Annotated[
        Literal["trl", "llama-factory", "ms-swift", "llava", "model"], Parameter(name="--format")
    ],
    output: Path,
    images: Literal["copy", "link", "reference"] | None = None,
    what: Literal["merged", "adapter"] | None = None,
    base_model: str | None = None,
    push: str | None = None,
    private: Annotated[bool, Parameter(negative="")] = False,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    common: Common = Common(),
) -> int:
    """Write an iteration's pairs for another trainer, or its policy, with a card; onto a hub too.

    Parameters
    ----------
    iteration_id
        RUN/NN, or RUN/NN.A for one certain attempt.
    format
        Pairs and demonstrations as the named trainer reads them, or `model`: the policy.
    output
        Folder to make; it appears whole or not at all.
    images
        `copy` into the folder, each once (the default); symbolic `link`s there; or `reference` by
        absolute path.
    what
        Of a model: the `merged` weights (the default), or the LoRA `adapter` from the base to here.
    base_model
        Hub id of the base model, where the recipe names a directory.
    push
        Repository on the hub, OWNER/NAME, to upload to as well, with the login of `hf auth login`
        or HF_TOKEN.
    private
        Make that repository private.
    overwrite
        Replace an older export in `output`, and on the hub.
    """
    from flows import environment
    from flows.exporting.export import ExportRequest, table
    from flows.exporting.export import export as exported

    environment.apply(common.home)
    request = ExportRequest(
        home=common.home,
        iteration_id=iteration_id,
        format=format,
        output=output,
        images=images,
        what=what,
        base_model=base_model,
        push=push,
        private=private,
        overwrite=overwrite,
    )
    return answer(exported(request), table, common)
