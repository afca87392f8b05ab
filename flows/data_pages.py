"""Pages of what training learns from, with the images, in markdown, for the flow UI."""

from __future__ import annotations

from collections.abc import Sequence

from csr.types import Demonstration, PreferencePair
from flows.inert import as_code, fitting
from flows.metric_names import DISTRIBUTIONS
from flows.report_figures import format_figure
from flows.reporting import response_parts
from flows.thumbnails import thumbnail_uri

NUM_SHOWN = 8
MAX_PICTURE_CHARACTERS = 16_000


def pair_page(attempt_id: str, pairs: Sequence[PreferencePair], max_bytes: int) -> str:
    """Pairs from all over the table, as many as the size allows."""
    sections = [_pair(n, pairs[n]) for n in _spread(len(pairs), NUM_SHOWN)]
    return _page(attempt_id, f"{len(pairs)} pairs", sections, max_bytes)


def demonstration_page(
    attempt_id: str, demonstrations: Sequence[Demonstration], max_bytes: int
) -> str:
    """Responses to imitate from all over the table, as many as the size allows."""
    places = _spread(len(demonstrations), NUM_SHOWN)
    sections = [_demonstration(n, demonstrations[n]) for n in places]
    return _page(attempt_id, f"{len(demonstrations)} demonstrations", sections, max_bytes)


def _page(attempt_id: str, of_what: str, sections: Sequence[str], max_bytes: int) -> str:
    num_free = max_bytes - 200  # for the heading
    shown = fitting(sections, lambda text: len(text.encode()) + 2, num_free)
    return "\n\n".join([f"# {attempt_id}: {len(shown)} of {of_what}", *shown])


def _spread(total: int, count: int) -> list[int]:
    """`count` indices below `total`, evenly over all of it; all where they are fewer."""
    return [n * total // count for n in range(count)] if total > count else list(range(total))


def _demonstration(index: int, demonstration: Demonstration) -> str:
    parts = [
        f"## Demonstration {index + 1}, weight {format_figure(demonstration.weight)}",
        _picture(demonstration.prompt.image.uri),
        f"**prompt** {as_code(demonstration.prompt.text)}",
        f"**{demonstration.kind}** {as_code(demonstration.text)}",
    ]
    return "\n\n".join(parts)


def _pair(index: int, pair: PreferencePair) -> str:
    parts = [
        f"## Pair {index + 1}, margin {format_figure(pair.margin)}",
        _picture(pair.prompt.image.uri),
        f"**prompt** {as_code(pair.prompt.text)}",
        f"**chosen** {as_code(pair.chosen.text)}",
        f"**rejected** {as_code(pair.rejected.text)}",
        _table(pair),
    ]
    if other := pair.rejected_image:
        parts.append(
            f"The rejected side saw another image: {as_code(other.corruption or other.uri)}"
        )
    return "\n\n".join(parts)


def _table(pair: PreferencePair) -> str:
    """Reward and its parts of both sides, under the names of the tables' columns."""
    sides = {"chosen": response_parts(pair.chosen), "rejected": response_parts(pair.rejected)}
    names = [name for name in DISTRIBUTIONS if any(name in parts for parts in sides.values())]
    rows = [
        ["", *names],
        ["---"] * (len(names) + 1),
        *([side, *(format_figure(of.get(n), n) for n in names)] for side, of in sides.items()),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _picture(path: str) -> str:
    uri, problem = thumbnail_uri(path, MAX_PICTURE_CHARACTERS)
    return as_code(problem) if problem else f"![image]({uri})"
