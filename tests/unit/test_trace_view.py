"""The tree of `csr trace` as a terminal shows it."""

import io
from typing import Any

import pytest
from rich.console import Console

from flows.trace_view import tree
from storage.trees import trees_to_table
from tests.trees import make_tree

REWARDS = {"0": 1.5, "1": -0.25, "0.0": 0.5, "0.1": -1.0, "0.0/": 0.0, "1.0/": 0.0, "1.0": 0.0}
TEXTS = {"0": " A red dog.", "1": " A [bold]cat[/bold]\x1b[31m.\n", "0.0": " It runs."}
MARK = {"kind": "object", "name": "dog", "start": 7, "end": 10}


def shape(**changes: Any) -> dict[str, Any]:
    nodes = trees_to_table([make_tree(REWARDS, TEXTS)], iteration=1).to_pylist()
    for node in nodes:
        node["kept"] = node["node_id"] != "42/0.1"
        node["false_mentions"] = [MARK] if node["node_id"] == "42/0" else []
        node["breakdown"] = [
            {"name": "likelihood", "value": -0.5}, {"name": "likelihood_calibrated", "value": 0.25},
        ]  # fmt: skip
    sides = {"chosen": ("42/0.0.9", "A red dog. It runs.", 2.0), "rejected": ("42/1", "A cat.", 0)}
    pair = {
        f"{side}_{name}": value
        for side, values in sides.items()
        for name, value in zip(("response_id", "text", "reward"), values, strict=True)
    }
    return {
        "iteration_id": "mine/01",
        "prompt": {"prompt_id": "42", "text": "Describe.", "image": "/images/42.png"},
        "nodes": nodes, "responses": [], "pairs": [pair], "demonstrations": [],
        "truth_problems": [], **changes,
    }  # fmt: skip


def shown(view: Any, **console: Any) -> str:
    out = io.StringIO()
    Console(file=out, width=200, **console).print(view)
    return out.getvalue()


def test_every_colour_is_said_in_words() -> None:
    text = shown(tree(shape()), no_color=True)
    lines = [" ".join(line.lstrip("│├─└ ").split()) for line in text.splitlines()]
    parts = "likelihood -0.50 -> +0.25"
    assert lines[:2] == ["mine/01 Describe.", "/images/42.png"]
    assert lines[2].startswith(f"+1.50 A red dog [not in the image]. chosen {parts}, path")
    assert lines[3].startswith(f"+0.50 It runs. chosen {parts}")
    assert lines[4].startswith("(end of response) path")
    assert lines[4].endswith("chosen")
    assert lines[5].startswith("-1.00 0.1. pruned likelihood")
    assert lines[6].startswith("-0.25 A [bold]cat[/bold]\ufffd[31m. rejected")
    assert "Brackets behind words tell what is not true of the image." in text
    assert "chosen: A red dog. It runs. reward +2.00" in " ".join(text.split())
    assert "\x1b" not in text


def test_rewards_are_coloured_where_there_are_colours() -> None:
    text = shown(tree(shape()), force_terminal=True, color_system="truecolor")
    assert "\x1b[1;38;2;47;127;208m+1.50" in text  # the best
    assert "\x1b[31m." not in text.replace("\x1b[31m [not", "")  # what a model wrote is no command


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_unicode_shows_it_too(encoding: str) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    nodes = [node for node in shape()["nodes"] if node["node_id"] != "42/1"]
    Console(file=out, width=200).print(tree(shape(nodes=nodes)))
    out.flush()
    assert b"+1.50  A red dog [not in the image]." in out.buffer.getvalue()


def test_without_ground_truth_that_is_said() -> None:
    unknown = shape(pairs=[])
    for node in unknown["nodes"]:
        node["false_mentions"] = None
    text = " ".join(shown(tree(unknown)).split())
    assert "Nothing says what the image shows, so no word is marked." in text
    assert text.endswith("no pair")
    assert "Ground truth is not used" not in text
    unknown["truth_problems"] = ["facts\x1b[31m.json does not exist."]
    text = " ".join(shown(tree(unknown), no_color=True).split())
    assert "Ground truth is not used: facts\ufffd[31m.json does not exist." in text
    assert "[not in the image]" not in text
