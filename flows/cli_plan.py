"""The verb of the `csr` command that tells what a run will take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from flows.cli_options import START, Common, RecipeOptions, answer, examples

app = App()

MOST = 1_000_000
"""Of any count: a larger one is a slip of the finger."""
Count = Annotated[int, Parameter(validator=Number(gte=1, lte=MOST))]
CountOrNone = Annotated[int, Parameter(validator=Number(gte=0, lte=MOST))]
Sentences = Annotated[int, Parameter(validator=Number(gte=1, lte=1000))]
Tokens = Annotated[float, Parameter(validator=Number(gt=0, lte=MOST))]
Share = Annotated[float, Parameter(validator=Number(gte=0, lte=MOST))]


@Parameter(name="*")
@dataclass(frozen=True)
class PlanOptions:
    """What a plan takes for granted, and a user may know better."""

    gpu: str = "H100"
    """H100, H200, A100, L40S, RTX4090 or CPU."""
    num_gpus: Count | None = None
    """GPUs of the machine: tells where the recipe uses fewer or more."""
    num_prompts: Count | None = None
    """Prompts of an iteration, in place of the recipe's."""
    num_evaluation_prompts: CountOrNone | None = None
    """Prompts of each benchmark; by default as many as its file holds."""
    model_geometry: str | None = None
    """A known model's sizes, such as llava-1.5-7b, where the policy is neither on this machine nor
    one that a shipped recipe names."""
    image_tokens: Count | None = None
    """Tokens of an image in a prompt; by default what the model's configuration tells."""
    prompt_tokens: Count = 45
    """Tokens of a prompt beside its image."""
    sentences: Sentences = 8
    """Sentences of a response."""
    tokens_per_sentence: Tokens = 20
    """Tokens of a sentence."""
    lessons_per_prompt: Share | None = None
    """Pairs or demonstrations of a prompt; by default the most that its source can make."""


@app.command(
    group=START,
    sort_key=5,
    help_epilogue=examples(
        "csr plan recipes/csr_llava15_7b.yaml",
        "csr plan recipes/own_data.yaml --gpu A100 --set policy.model=/path/to/a/model",
        "csr plan recipes/tiny.yaml --gpu CPU --json",
    ),
)
def plan(
    recipe: Path,
    /,
    *,
    assumed: PlanOptions = PlanOptions(),
    options: RecipeOptions = RecipeOptions(),
    common: Common = Common(),
) -> int:
    """Estimate what a run will take: hours, GPU memory, disk and RAM.

    Nothing is started.

    Parameters
    ----------
    recipe
        YAML file; see `recipes/`.
    """
    from csr.planning import ExpectedResponse
    from flows.config import load_recipe
    from flows.planning import views
    from flows.planning.plan import PlanRequest
    from flows.planning.plan import plan as planned

    request = PlanRequest(
        gpu=assumed.gpu,
        num_gpus=assumed.num_gpus,
        num_prompts=assumed.num_prompts,
        num_evaluation_prompts=assumed.num_evaluation_prompts,
        model_geometry=assumed.model_geometry,
        image_tokens=assumed.image_tokens,
        question_tokens=assumed.prompt_tokens,
        lessons_per_prompt=assumed.lessons_per_prompt,
        expected=ExpectedResponse(
            num_sentences=assumed.sentences, tokens_per_sentence=assumed.tokens_per_sentence
        ),
    )
    return answer(planned(load_recipe(recipe, options.set), request), views.render, common)
