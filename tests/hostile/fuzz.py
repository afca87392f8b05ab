"""How much fuzzing tries, and what it is made of."""

import json
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

HYPOTHESIS_DEFAULT = 100
"""Examples of a test in hypothesis' own default profile."""


def bounded(num_examples: int, **options: Any) -> settings:
    """So many examples; with HYPOTHESIS_PROFILE=soak, twenty times as many."""
    scale = settings().max_examples / HYPOTHESIS_DEFAULT
    return settings(
        max_examples=round(num_examples * scale),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        **options,
    )


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
"""Anything that Python's json writes, lone surrogates, NaN and infinities included."""


@st.composite
def damaged(draw: st.DrawFn, data: bytes, max_changes: int = 3) -> bytes:
    """The bytes with some flipped, put in, taken out or cut off."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, max_changes))):
        place = draw(st.integers(0, max(len(changed) - 1, 0)))
        match draw(st.sampled_from(["flip", "flip", "flip", "cut", "insert", "remove"])):
            case "flip" if changed:
                changed[place] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del changed[place:]
            case "insert":
                changed[place:place] = draw(st.binary(min_size=1, max_size=6))
            case "remove":
                del changed[place : place + draw(st.integers(1, 9))]
    return bytes(changed)


@st.composite
def altered(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with something else at one or two places in it."""
    copy = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 2))):
        place = copy
        while isinstance(place, dict | list) and place:
            key = draw(
                st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place)))
            )
            if draw(st.booleans()) or not isinstance(place[key], dict | list) or not place[key]:
                if isinstance(place, dict) and draw(st.integers(0, 3)) == 0:
                    del place[key]
                else:
                    place[key] = draw(json_values)
                break
            place = place[key]
    return copy
