"""The verb of the `csr` command that has another program evaluate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from flows.cli_options import WORK, Common, Flag, answer, examples

app = App()

Count = Annotated[int, Parameter(validator=Number(gte=1))]
Minutes = Annotated[float, Parameter(validator=Number(gt=0))]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LmmsOptions:
    """How lmms-eval is run."""

    tasks: str
    """Names of its tasks, parted by commas: pope,coco_cap_chair."""
    python: Path
    """Interpreter of the environment that has lmms-eval."""
    model: str = "llava_hf"
    """Its name for the kind of model: llava_hf, qwen2_5_vl, vllm, ..."""
    model_arg: Annotated[tuple[str, ...], Parameter(consume_multiple=False, negative="")] = ()
    """A further argument of the model, as in `--model-arg dtype=bfloat16`; may be repeated."""
    batch_size: Count = 1
    """Samples at once."""
    limit: Count | None = None
    """Samples of each task; by default all."""
    timeout_minutes: Minutes | None = None
    """When to end it; by default never."""
    online: Flag = False
    """Let it fetch data sets; by default it reads those in the cache."""
    output: Path | None = None
    """Folder for the results of a model; an iteration's are kept with it."""


@app.command(
    name="lmms-eval",
    group=WORK,
    sort_key=7,
    help_epilogue=examples(
        "csr lmms-eval tiny-b0f2/02 --tasks pope --python ../lmms/bin/python",
    ),
)
def lmms_eval(target: str, /, *, options: LmmsOptions, common: Common = Common()) -> int:
    """Evaluate a policy with lmms-eval.

    It runs in an environment of its own.

    Parameters
    ----------
    target
        An iteration, such as `tiny-b0f2/02`, or a model's directory.
    """
    from flows import lmms_eval as lmms
    from flows.lmms_results import table

    minutes = options.timeout_minutes
    request = lmms.LmmsRequest(
        home=common.home,
        target=target,
        tasks=options.tasks,
        python=options.python,
        model=options.model,
        model_args=options.model_arg,
        batch_size=options.batch_size,
        limit=options.limit,
        timeout_seconds=None if minutes is None else minutes * 60,
        online=options.online,
        output=options.output,
    )
    return answer(lmms.evaluate(request), table, common)
