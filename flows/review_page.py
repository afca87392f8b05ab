"""The page of `csr review`: one response after another, by button or by key.

The browser sends back what it shows and the person's mark of that moment, so a press that comes
too early or from a second window changes nothing that the person has not seen.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from csr.annotations import AnnotationVerdict
from csr.errors import CSRError
from flows.review import Desk
from flows.review_html import item_html, note_html, top_html
from storage.verdicts import annotator_name

TEMPLATES = Path(__file__).with_name("templates")
KEYS = "Keys: A accept, R refuse, S skip, U undo, arrows to look back and forth."
BUTTONS = {
    "csr-accept": "Accept (A)",
    "csr-refuse": "Refuse (R)",
    "csr-skip": "Skip (S)",
    "csr-undo": "Undo (U)",
    "csr-back": "← Back",
    "csr-forth": "Forth →",
}


@dataclass(frozen=True, slots=True)
class Place:
    """What a window shows: travels to the browser and back."""

    annotator: str = ""
    response: str = ""
    """The response to judge; empty where nothing is left."""
    mark: str = ""
    """See `VerdictFolder.mark`."""


@dataclass(frozen=True, slots=True)
class View:
    """All that a window shows."""

    place: Place
    top: str = ""
    item: str = ""
    note: str = ""


def _told(do: Callable[..., View]) -> Callable[..., View]:
    """What a person cannot go on with, such as a damaged file, stands on the page too."""

    @functools.wraps(do)
    def wrapped(page: Page, place: Place, *args: Any, **kwargs: Any) -> View:
        try:
            return do(page, place, *args, **kwargs)
        except CSRError as error:
            return View(Place(place.annotator), note=note_html(str(error), "problem"))

    return wrapped


class Page:
    """What each button does, without gradio. `go_on` wakes the run and tells how it goes on."""

    def __init__(self, desk: Desk, go_on: Callable[[], str]) -> None:
        self._desk, self._go_on = desk, go_on

    def enter(self, name: str, response: str = "") -> View:
        """Begin, or come back to where one was."""
        if not name.strip():
            return View(Place(), note=note_html("Who are you? Your verdicts are kept by name."))
        return self._enter(Place(), name, response)

    @_told
    def _enter(self, place: Place, name: str, response: str) -> View:
        return self._view(annotator_name(name), response)

    @_told
    def judge(self, place: Place, verdict: AnnotationVerdict) -> View:
        """Keep the verdict, then show the next; where it is not kept, the same again."""
        if not place.response:
            return self._view(place.annotator, "")
        try:
            self._desk.give(place.annotator, place.response, verdict, seen=place.mark)
        except CSRError as error:
            return self._view(place.annotator, place.response, str(error))
        return self._view(place.annotator, "", after=place.response)

    @_told
    def undo(self, place: Place) -> View:
        """Take back the newest verdict, and show what it was on."""
        try:
            response = self._desk.take_back(place.annotator, seen=place.mark)
        except CSRError as error:
            return self._view(place.annotator, place.response, str(error))
        if response is None:
            return self._view(place.annotator, place.response, "You have judged nothing yet.")
        return self._view(place.annotator, response)

    @_told
    def move(self, place: Place, steps: int) -> View:
        """Look at another response, in the person's own order."""
        order = [each.response_id for each in self._desk.order(place.annotator)]
        if place.response in order:
            number = order.index(place.response) + steps
        else:  # past the last
            number = len(order) - 1 if steps < 0 else len(order)
        response = order[max(number, 0)] if number < len(order) else ""
        return self._view(place.annotator, response)

    def _view(self, annotator: str, response: str, problem: str = "", after: str = "") -> View:
        desk = self._desk
        mark, said = desk.verdicts.mark(annotator), desk.verdicts.read()
        if response not in desk.by_id:
            response = desk.next_for(annotator, said, after) or ""
        standing = desk.standing(annotator, said)
        item = ""
        if response:
            shown = desk.by_id[response]
            prompt_id = shown.prompt.prompt_id
            siblings = [each for each in desk.responses if each.prompt.prompt_id == prompt_id]
            item = item_html(shown, siblings, desk.mine(annotator, said))
        return View(
            Place(annotator, response, mark),
            top_html(desk.attempt_id, annotator, standing),
            item,
            self._note(standing.is_reached, bool(response), problem),
        )

    def _note(self, is_reached: bool, has_more: bool, problem: str) -> str:
        notes = [note_html(problem, "problem")]
        if self._desk.is_closed():
            closed = f"{self._desk.attempt_id} has gone on: more verdicts change nothing."
            notes.append(note_html(closed, "done"))
        elif is_reached:
            notes.append(note_html(f"Enough has been judged. {self._go_on()}", "done"))
        elif not has_more:
            left = "You have judged everything. The run waits for other people's verdicts."
            notes.append(note_html(left))
        return "".join(notes)


def build_page(page: Page, title: str) -> Any:
    """The page as gradio's blocks; nothing of it is fetched from elsewhere."""
    import gradio as gr

    with gr.Blocks(title=title, analytics_enabled=False) as blocks:
        top, note = gr.HTML(visible=False), gr.HTML(visible=False)
        with gr.Row(visible=False, elem_id="csr-who") as who:
            name = gr.Textbox(label="Your name", max_length=64, elem_id="csr-name", scale=4)
            start = gr.Button("Start", elem_id="csr-start", scale=1)
        item = gr.HTML(visible=False)
        with gr.Row(visible=False, elem_id="csr-buttons") as row:
            buttons = {name: gr.Button(label, elem_id=name) for name, label in BUTTONS.items()}
        keys = gr.HTML(note_html(KEYS), visible=False, elem_id="csr-keys")
        place = gr.Textbox(visible="hidden", elem_id="csr-place")

        def drawn(view: View) -> list[Any]:
            begun, left = bool(view.place.annotator), bool(view.place.response)
            shown = [gr.Row(visible=not begun), gr.Row(visible=begun), gr.HTML(visible=begun)]
            usable = [gr.Button(interactive=left) for _ in range(3)]
            told = json.dumps(asdict(view.place))
            parts = [gr.HTML(text, visible=bool(text)) for text in (view.top, view.item, view.note)]
            return [told, *parts, *shown, *usable]

        judging = [buttons["csr-accept"], buttons["csr-refuse"], buttons["csr-skip"]]
        outputs = [place, top, item, note, who, row, keys, *judging]
        quick: dict[str, Any] = {
            "outputs": outputs,
            "queue": False,
            "show_progress": "hidden",
            "api_visibility": "private",
        }

        def on(trigger: Any, do: Callable[[Place], View]) -> None:
            trigger(lambda text: drawn(do(Place(**json.loads(text)))), inputs=[place], **quick)

        for button, verdict in zip(judging, AnnotationVerdict, strict=True):
            on(button.click, partial(page.judge, verdict=verdict))
        on(buttons["csr-undo"].click, page.undo)
        on(buttons["csr-back"].click, lambda at: page.move(at, -1))
        on(buttons["csr-forth"].click, lambda at: page.move(at, 1))
        for trigger in (start.click, name.submit):
            trigger(lambda text: drawn(page.enter(text)), inputs=[name], **quick)
        place.change(None, inputs=[place], js="place => window.csrKeepPlace(place)")

        def load(text: str) -> list[Any]:
            asked = json.loads(text)
            return drawn(page.enter(asked.get("annotator", ""), asked.get("response", "")))

        blocks.load(load, inputs=[place], js="() => window.csrAskedPlace()", **quick)
    return blocks
