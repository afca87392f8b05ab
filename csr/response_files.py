"""Files of responses in the forms of a benchmark's field: ours for other people's tools, and theirs
for us.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from csr.errors import DataError, shown
from csr.protocols import Json
from csr.records import Entry, parse_json, read_entries, read_text
from csr.truthfulness import FalseMention
from csr.types import FinishReason, GeneratedResponse


@runtime_checkable
class ReadsResponses(Protocol):
    """A benchmark whose field has a form for files of responses."""

    response_fields: tuple[str, str]
    """Names of a record's id and of its text, in a JSON list or JSON Lines."""

    def prompt_ids(self) -> Sequence[str]:
        """What may be answered, in order. Looks at no image."""

    def keep(self, prompt_ids: Collection[str]) -> None:
        """Ask these prompts alone."""

    def response_records(self, responses: Sequence[GeneratedResponse]) -> list[Json]:
        """The responses as records of such a file."""


@runtime_checkable
class MarksResponses(Protocol):
    """A benchmark that may know what its images show."""

    def false_mentions(
        self, responses: Sequence[GeneratedResponse]
    ) -> Sequence[Sequence[FalseMention] | None]:
        """Of each response the words that its image contradicts, in order, none overlapping; None
        where nobody can tell, as without ground truth.
        """


@dataclass(frozen=True, slots=True)
class ReadFile:
    """The responses of a file that answer a benchmark."""

    responses: list[GeneratedResponse]
    """In the benchmark's order; without tokens, which no such file holds."""
    num_missing: int
    """Prompts of the benchmark that the file does not answer."""
    num_unknown: int
    """Records that answer no prompt of the benchmark."""


def read_responses(path: Path, fields: tuple[str, str], prompt_ids: Sequence[str]) -> ReadFile:
    """From a JSON list, JSON Lines or CHAIR's `imgToEval`; `fields` name its id and its text.

    An id is a prompt's own or, where that is one prompt's alone, what stands behind its last "-"
    (POPE numbers the questions of each split). DataError for a record without the two, an id
    twice, or where no record answers a prompt.
    """
    known = _by_id(prompt_ids)
    id_field, text_field = fields
    texts: dict[str, str] = {}
    num_unknown = 0
    for entry in _entries(path):
        record = entry.record()
        given, text = record.get(id_field), record.get(text_field)
        if type(given) not in (int, str) or not isinstance(text, str):
            raise DataError(
                f"{entry.where}: a record needs {id_field!r}, a number or text, and "
                f"{text_field!r}, a text, and has {', '.join(map(shown, record)) or 'nothing'}. "
                f'Write {{"{id_field}": ..., "{text_field}": "..."}}.'
            )
        name = known.get(str(given))
        if name is None:
            num_unknown += 1
        elif name in texts:
            raise DataError(
                f"{entry.where}: {id_field} {shown(given)} stands twice, and one response of the "
                "two would go unnoticed. Remove one."
            )
        else:
            texts[name] = text
    if not texts:
        raise DataError(
            f"{path} answers no prompt of the benchmark: none of its {num_unknown} records has a "
            f"known {id_field!r}. Known are {', '.join(list(known)[:3])}, ..."
        )
    answered = [name for name in prompt_ids if name in texts]
    responses = [_response(name, texts[name]) for name in answered]
    return ReadFile(responses, len(prompt_ids) - len(answered), num_unknown)


def _entries(path: Path) -> list[Entry]:
    """Of a list, of lines, or of the object under whose `imgToEval` CHAIR's code wants captions."""
    text = read_text(path)
    if text.lstrip().startswith("{") and '"imgToEval"' in text:
        document: Any = None
        with suppress(DataError):
            document = parse_json(text, str(path))
        if isinstance(document, dict) and "imgToEval" in document:
            named = Entry(1, f"{path}, imgToEval", document["imgToEval"]).record().items()
            return [Entry(n, f"{path}, {shown(k)}", v) for n, (k, v) in enumerate(named, 1)]
    return read_entries(path)


def _by_id(prompt_ids: Sequence[str]) -> dict[str, str]:
    """What a file may call a prompt -> its id."""
    endings = Counter(name.rpartition("-")[2] for name in prompt_ids)
    short = {name.rpartition("-")[2]: name for name in prompt_ids}
    alone = {ending: name for ending, name in short.items() if endings[ending] == 1}
    return alone | {name: name for name in prompt_ids}


def _response(prompt_id: str, text: str) -> GeneratedResponse:
    return GeneratedResponse(
        prompt_id=prompt_id,
        text=text,
        token_ids=(),
        token_logprobs=(),
        finish_reason=FinishReason.EOS,
    )
