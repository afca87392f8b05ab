"""The colours of a report, which everybody must be able to read."""

import re

import pytest

from tests.prefect_service import ROOT


def colours(css: str) -> dict[str, str]:
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", css))


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        parts = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
        red, green, blue = (
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


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
