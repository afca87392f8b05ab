"""Images of an export: each once, under its content's name, as the policy saw it."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from csr.errors import DataError
from csr.images import image_ref, load_image
from tests.export_samples import pictures_in
from tests.sample_data import saved_image


def test_equal_images_are_kept_once(tmp_path: Path) -> None:
    pictures = pictures_in(tmp_path / "out")
    one, same = saved_image(tmp_path / "a.png"), saved_image(tmp_path / "b.png")
    other = saved_image(tmp_path / "c.png", (0, 0, 255))
    names = [pictures.path_of(each) for each in (one, same, other)]
    assert names == [f"images/{one.sha256}.png"] * 2 + [f"images/{other.sha256}.png"]
    assert len(list((tmp_path / "out/images").iterdir())) == pictures.count == 2
    assert pictures.num_redrawn == 0


def test_the_content_names_the_suffix(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "liar.png", format="JPEG")
    name = pictures_in(tmp_path / "out").path_of(image_ref(tmp_path / "liar.png"))
    assert name.endswith(".jpg")


def test_a_turned_photograph_is_written_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (9, 4), "red").save(tmp_path / "a.jpg", exif=exif)
    ref = image_ref(tmp_path / "a.jpg")
    pictures = pictures_in(tmp_path / "out")
    written = Image.open(tmp_path / "out" / pictures.path_of(ref))
    assert written.size == (4, 9)
    assert written.tobytes() == load_image(ref).tobytes()
    assert written.tobytes() == ImageOps.exif_transpose(Image.open(ref.uri)).tobytes()
    assert pictures.num_redrawn == 1


def test_a_transparent_image_is_written_as_it_was_seen(tmp_path: Path) -> None:
    Image.new("RGBA", (3, 3), (255, 0, 0, 0)).save(tmp_path / "a.png")
    pictures = pictures_in(tmp_path / "out")
    written = Image.open(tmp_path / "out" / pictures.path_of(image_ref(tmp_path / "a.png")))
    assert written.convert("RGB").getpixel((1, 1)) == (255, 255, 255)


def test_a_corrupted_image_is_another_image(tmp_path: Path) -> None:
    clean = saved_image(tmp_path / "a.png")
    blank = replace(clean, corruption="blank")
    pictures = pictures_in(tmp_path / "out")
    assert pictures.path_of(clean) == f"images/{clean.sha256}.png"
    assert pictures.path_of(blank) == f"images/{clean.sha256}-blank.png"
    written = Image.open(tmp_path / "out" / pictures.path_of(blank))
    assert written.getpixel((0, 0)) == (128, 128, 128)
    assert (pictures.count, pictures.num_redrawn) == (2, 1)


def test_links_and_references_lead_to_the_file_itself(tmp_path: Path) -> None:
    ref = saved_image(tmp_path / "a.png")
    linked = pictures_in(tmp_path / "out", "link").path_of(ref)
    assert (tmp_path / "out" / linked).readlink() == Path(ref.uri)
    assert pictures_in(tmp_path / "other", "reference").path_of(ref) == ref.uri
    assert not (tmp_path / "other").exists()


def test_what_was_not_seen_as_it_lies_there_cannot_be_referred_to(tmp_path: Path) -> None:
    ref = replace(saved_image(tmp_path / "a.png"), corruption="blank")
    with pytest.raises(DataError, match="Export with --images copy"):
        pictures_in(tmp_path, "reference").path_of(ref)
    linked = pictures_in(tmp_path / "out", "link").path_of(ref)
    assert not (tmp_path / "out" / linked).is_symlink()


@pytest.mark.parametrize("mode", ["copy", "link", "reference"])
def test_an_image_that_changed_since_the_run_is_refused(tmp_path: Path, mode: str) -> None:
    ref = saved_image(tmp_path / "a.png")
    saved_image(tmp_path / "a.png", (1, 2, 3))
    with pytest.raises(DataError, match="changed since the run began"):
        pictures_in(tmp_path, mode).path_of(ref)  # type: ignore[arg-type]
