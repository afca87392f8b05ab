"""Small images within a page."""

from pathlib import Path

import pytest
from PIL import Image

from flows.thumbnails import thumbnail_uri


def test_thumbnails_are_small_and_keep_small_images_exact(tmp_path: Path) -> None:
    Image.effect_noise((1600, 1200), 80).convert("RGB").save(tmp_path / "large.png")
    Image.new("RGB", (48, 48), "red").save(tmp_path / "small.png")
    large, _ = thumbnail_uri(str(tmp_path / "large.png"))
    small, _ = thumbnail_uri(str(tmp_path / "small.png"))
    assert large.startswith("data:image/jpeg;base64,")
    assert len(large) < 120_000
    assert small.startswith("data:image/png;base64,")


@pytest.mark.parametrize("name", ["gone.png", ".", "/dev/zero", "\0", "text.png"])
def test_what_is_no_image_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.png").write_text("no image")
    uri, problem = thumbnail_uri(str(tmp_path / name))
    assert uri == ""
    assert problem.startswith("image ")
