"""Reads the results file of lmms-eval, with what is known to be wrong in its figures.

The file is `<date>_results.json`: `results` maps a task to `"<metric>,<filter>"` and
`"<metric>_stderr,<filter>"`, beside `versions`, `configs`, `n-samples`, `higher_is_better`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from csr.errors import DataError, shown
from csr.files import file_sha256
from csr.protocols import Json
from csr.records import read_text
from flows import tables

_LEFT_OUT = {
    "pope_yes_ratio": "lmms-eval counts the labels' yes, not the answers': it is .5 whatever the "
    "policy says",
}
"""Metric -> why its value is not taken over."""
_LOWER_IS_BETTER = frozenset({"amber_cog"})
"""Metrics whose direction lmms-eval 0.7.3 tells wrongly."""
_CAUTIONS = {
    "pope": "an answer counts only where it is yes or no and nothing else, so that 'Yes.' is wrong",
    "coco_cap_chair": "objects are found by its own rules, so the figures are not CHAIR's code's",
}
"""Beginning of a task's name -> what a reader of its figures must know."""


def read_results(path: Path) -> Json:
    """`{"lmms_eval_version", "model", "model_args", "date", "results_sha256", "tasks": {task:
    {"version", "num_samples", "generation", "figures": {metric: {"value", "stderr",
    "higher_is_better"}}, "left_out": {metric: why}}}, "cautions": [...]}`.

    DataError where the file is not of this shape.
    """
    try:
        document = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}). Run lmms-eval again.") from None
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, dict) or not all(isinstance(v, dict) for v in results.values()):
        raise DataError(
            f"{path} has no figures under 'results', so it is no results file of lmms-eval, or "
            "of a release that writes another form. 0.7.3 is known to fit."
        )
    tasks = {task: _task(document, task) for task in results}
    config = _mapping(document, "config")
    return {
        "lmms_eval_version": document.get("lmms_eval_version"),
        "model": config.get("model"),
        "model_args": config.get("model_args"),
        "date": document.get("date"),
        "results_sha256": file_sha256(path),
        "tasks": tasks,
        "cautions": [caution for task in results for caution in _cautions(document, task)],
    }


def flat_figures(shape: Json) -> dict[str, float]:
    """`lmms_eval.<task>.<metric>` -> its value."""
    return {
        f"lmms_eval.{task}.{metric}": figure["value"]
        for task, facts in shape["tasks"].items()
        for metric, figure in facts["figures"].items()
    }


def table(shape: Json) -> Any:
    """The shape of `read_results` for people."""
    from rich.console import Group

    told = [*shape["cautions"]]
    told += [
        f"{task}: {metric} is left out, since {why}"
        for task, facts in shape["tasks"].items()
        for metric, why in facts["left_out"].items()
    ]
    rows = []
    for task, facts in shape["tasks"].items():
        for metric, figure in facts["figures"].items():
            stderr = "" if figure["stderr"] is None else f"{figure['stderr']:.4f}"
            rows.append((task, metric, f"{figure['value']:.4f}", stderr))
    view = tables.table(("task", "figure", "value", "standard error"), rows)
    return Group(view, *map(tables.plain, told))


def _task(document: Json, task: str) -> Json:
    directions = _mapping(document, "higher_is_better").get(task)
    directions = directions if isinstance(directions, dict) else {}
    figures: Json = {}
    left_out: dict[str, str] = {}
    values = document["results"][task]
    for key, value in values.items():
        metric, _, filter_name = key.partition(",")
        if not filter_name or "_stderr" in metric:
            continue
        reason = _LEFT_OUT.get(metric) or _unusable(value)
        name = metric if filter_name == "none" else f"{metric},{filter_name}"
        if reason:
            left_out[name] = reason
            continue
        stderr = values.get(f"{metric}_stderr,{filter_name}")
        figures[name] = {
            "value": float(value),
            "stderr": None if _unusable(stderr) else float(stderr),
            "higher_is_better": False if metric in _LOWER_IS_BETTER else directions.get(metric),
        }
    config = _mapping(_mapping(document, "configs"), task)
    return {
        "version": _mapping(document, "versions").get(task),
        "num_samples": _mapping(_mapping(document, "n-samples"), task).get("effective"),
        "generation": config.get("generation_kwargs"),
        "wording": config.get("lmms_eval_specific_kwargs"),
        "figures": figures,
        "left_out": left_out,
    }


def _unusable(value: Any) -> str:
    """Why it is no figure; empty where it is one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"its value is {shown(value)}"
    try:
        finite = math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        finite = False
    return "" if finite else f"its value is {shown(value)}"


def _cautions(document: Json, task: str) -> list[str]:
    told = [f"{task}: {text}" for start, text in _CAUTIONS.items() if task.startswith(start)]
    config = _mapping(_mapping(document, "configs"), task)
    if _mapping(config, "dataset_kwargs").get("trust_remote_code"):
        told.append(f"{task}: its own settings load its data set with trust_remote_code")
    counts = _mapping(_mapping(document, "n-samples"), task)
    if counts.get("original") != counts.get("effective"):
        told.append(
            f"{task}: {counts.get('effective')} of {counts.get('original')} samples were asked, so "
            "the figures are not the task's"
        )
    return told


def _mapping(document: Json, key: str) -> Json:
    value = document.get(key)
    return value if isinstance(value, dict) else {}
