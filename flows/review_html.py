"""The parts of the review page that show what models and people wrote: as text, never as HTML."""

from __future__ import annotations

import html
import io
from base64 import b64encode
from collections.abc import Mapping, Sequence

from csr.annotations import AnnotationVerdict
from csr.errors import DataError
from csr.images import load_image
from csr.types import ImageRef
from flows.review import Response, Standing

MAX_IMAGE_PIXELS = 1024
"""Longest side as shown; a larger image is scaled down, which no verdict should hang on."""

SAID = {
    AnnotationVerdict.ACCEPT: "accepted",
    AnnotationVerdict.REFUSE: "refused",
    AnnotationVerdict.SKIP: "skipped",
}

# Beside HTML's own: what gradio's templates of HTML parts give a meaning.
_INERT = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;", "\\": "&#92;"})


def as_text(text: str) -> str:
    """HTML that shows exactly this text."""
    return html.escape(text).translate(_INERT)


def image_uri(image: ImageRef) -> str:
    """The image, proved by its digest and encoded anew, as a `data:` URI.

    DataError as `load_image`.
    """
    copy = load_image(image)
    copy.thumbnail((MAX_IMAGE_PIXELS, MAX_IMAGE_PIXELS))
    buffer = io.BytesIO()
    is_small = copy.width * copy.height <= 512 * 512
    copy.save(buffer, format="PNG" if is_small else "JPEG", quality=90)
    kind = "png" if is_small else "jpeg"
    return f"data:image/{kind};base64,{b64encode(buffer.getvalue()).decode()}"


def item_html(
    response: Response,
    siblings: Sequence[Response],
    mine: Mapping[str, AnnotationVerdict],
) -> str:
    """The image, what was asked, and all responses to it, the one to judge marked."""
    try:
        picture = f'<img src="{image_uri(response.prompt.image)}" alt="the image of the prompt">'
    except DataError as error:
        picture = f'<p class="csr-problem">{as_text(str(error))}</p>'
    entries = "".join(
        _candidate(number, each, mine.get(each.response_id), each is response)
        for number, each in enumerate(siblings, start=1)
    )
    return (
        f'<div class="csr-item"><div class="csr-picture">{picture}</div>'
        f'<div class="csr-words"><h2 id="csr-question">{as_text(response.prompt.text)}</h2>'
        f'<ol class="csr-candidates">{entries}</ol></div></div>'
    )


def _candidate(
    number: int, response: Response, verdict: AnnotationVerdict | None, is_current: bool
) -> str:
    said = "" if verdict is None else f'<span class="csr-said">{SAID[verdict]}</span>'
    kind = "" if verdict is None else f" csr-{verdict.value}"
    current = ' aria-current="true"' if is_current else ""
    return (
        f'<li class="csr-candidate{kind}"{current}><span class="csr-number">{number}</span>'
        f'<span class="csr-text">{as_text(response.text)}</span>{said}</li>'
    )


def top_html(attempt_id: str, annotator: str, standing: Standing) -> str:
    """Who judges what, and how far they are."""
    agreed = standing.agreement
    told = "no response has two people's verdicts"
    if agreed.observed is not None:
        kappa = "" if agreed.kappa is None else f", kappa {agreed.kappa:.2f}"
        told = f"{agreed.observed:.0%}{kappa}, on {agreed.num_responses} judged by several"
    return (
        f'<div class="csr-top"><b>{as_text(attempt_id)}</b>'
        f"{_bar('csr-mine', f'by {annotator}', standing.num_mine, standing.num_responses)}"
        f"{_bar('csr-all', 'needed', standing.num_judged, standing.num_wanted)}"
        f'<span id="csr-agreement">agreement: {told}</span></div>'
    )


def _bar(name: str, label: str, done: int, total: int) -> str:
    return (
        f'<label id="{name}"><progress value="{min(done, total)}" max="{max(total, 1)}"></progress>'
        f" {done} of {total} {as_text(label)}</label>"
    )


def note_html(text: str, kind: str = "note") -> str:
    """A message of ours; `kind` is "note", "problem" or "done"."""
    return f'<p class="csr-{kind}" role="status">{as_text(text)}</p>' if text else ""
