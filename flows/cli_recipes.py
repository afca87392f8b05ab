"""The verbs of the `csr` command for recipes: which come along, and whether one is understood."""

from __future__ import annotations

import json
from pathlib import Path

from cyclopts import App

from flows.cli_options import START, Common, Flag, RecipeOptions, answer, examples, print_json

app = App()


@app.command(
    group=START,
    sort_key=4,
    help_epilogue=examples(
        "csr validate recipes/own_data.yaml",
        "csr validate recipes/tiny.yaml --set source.preset=paper",
        "csr validate recipes/tiny.yaml --json",
    ),
)
def validate(
    recipe: Path,
    /,
    *,
    inputs: Flag = False,
    options: RecipeOptions = RecipeOptions(),
    common: Common = Common(),
) -> int:
    """Check a recipe and print it with every default filled in.

    Its settings alone are looked at, and no file that it names, but for --inputs.

    Parameters
    ----------
    recipe
        YAML file; see `recipes/`.
    inputs
        Look at model, prompts, every image and the disk too, as a run does; a world is built.
    """
    from flows.config import load_recipe, run_id_of

    resolved = load_recipe(recipe, options.set)
    if inputs:
        from flows.launch import check_files

        check_files(resolved, common.home)
    tracker = resolved.tracker and resolved.tracker.model_dump(mode="json")
    shown = {**json.loads(resolved.model_dump_json()), "tracker": tracker}
    if common.json:
        return print_json({"run_id": run_id_of(resolved), "recipe": shown})
    import yaml

    print(yaml.safe_dump(shown, sort_keys=False), end="")
    return 0


@app.command(
    group=START,
    sort_key=3,
    help_epilogue=examples(
        "csr recipes",
        "csr recipes own_data > mine.yaml",
        "csr recipes --fields trainer.dpo      # what a section may say",
    ),
)
def recipes(
    name: str | None = None, /, *, fields: str | None = None, common: Common = Common()
) -> int:
    """List the recipes that come along, print one, or what one may say.

    Parameters
    ----------
    name
        Name of the recipe to print, such as `own_data`.
    fields
        Section whose fields to print with types and defaults: `trainer`, `source.csr`, `recipe`.
    """
    from flows import recipe_fields, shipped

    if fields is not None:
        print(recipe_fields.section(fields), end="")
        return 0
    if name is not None:
        print(shipped.recipe_text(name), end="")
        return 0
    return answer({"recipes": shipped.shipped_recipes()}, shipped.table, common)
