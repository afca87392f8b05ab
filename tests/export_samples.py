"""Lessons for the tests of `csr export`: one pair and one demonstration, checked by eye."""

from dataclasses import replace
from pathlib import Path

from csr.types import Demonstration, ImageRef, PreferencePair
from flows.exporting.lessons import Lessons
from flows.exporting.pictures import Pictures
from flows.exporting.request import ImagesMode
from tests.sample_data import pair, prompt

HOSTILE = 'He said "no" | `x`\u2028next\u2029\x85line\nTAB\t\\ \u202eback 中文 é </s> {{ x }} ---'
"""Quotes, ends of lines that JSON does not count as such, Markdown, a template, a turned text."""


def demonstration(image: ImageRef, text: str = "It is red.") -> Demonstration:
    return Demonstration(
        demonstration_id="42/0",
        prompt=replace(prompt(image=image), text="Why?"),
        text=text,
        token_ids=None,
        weight=0.5,
        kind="rationale",
        source="illume",
    )


def lessons_of(image: ImageRef) -> Lessons:
    return Lessons(pairs=(pair(image=image),), demonstrations=(demonstration(image),))


def with_texts(of: PreferencePair, asked: str, chosen: str, rejected: str) -> PreferencePair:
    return replace(
        of,
        prompt=replace(of.prompt, text=asked),
        chosen=replace(of.chosen, text=chosen),
        rejected=replace(of.rejected, text=rejected),
    )


def pictures_in(folder: Path, mode: ImagesMode = "copy") -> Pictures:
    return Pictures(mode=mode, folder=folder, final=folder)
