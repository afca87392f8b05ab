"""The colours of a report, which everybody must be able to read."""

import re

import pytest

from tests.colours import contrast
from tests.prefect_service import ROOT


def colours(css: str) -> dict[str, str]:
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", css))


def test_every_colour_of_text_has_contrast() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)
    css = (ROOT / "flows/templates/report.css").read_text()
    light, dark = (colours(part) for part in css.split("@media (prefers-color-scheme: dark)")[:2])
    for scheme in (light, light | dark):
        for ground in ("page", "panel"):
            for text in ("text", "soft", "s0", "s1", "s2", "s3", "s4", "s5"):
                assert contrast(scheme[text], scheme[ground]) >= 4.5, (text, ground)
        assert contrast(scheme["text"], scheme["absent"]) >= 4.5
        for number in range(7):  # outlines, which are no text
            assert contrast(scheme[f"e{number}"], scheme["page"]) >= 3, number
    boxes = re.findall(r"\.box\.c\d \{ --f: (#\w+); --k: (#\w+);", css)
    assert len(boxes) == 7
    assert min(contrast(fill, ink) for fill, ink in boxes) >= 4.5
