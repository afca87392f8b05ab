"""A corpus of hostile and of unusual images."""

import hashlib
import io
import os
import re
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from csr import images
from csr.errors import DataError
from csr.images import image_ref, load_bytes, load_image
from csr.types import ImageRef

RED = (255, 0, 0)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header alone is honest: 8-bit greyscale, one row of data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1 + width))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def noise(width: int, height: int) -> Image.Image:
    """Pixels that do not compress away, the same every time."""
    data = b"".join(
        hashlib.sha256(str(i).encode()).digest() for i in range(width * height * 3 // 32 + 1)
    )
    return Image.frombytes("RGB", (width, height), data[: width * height * 3])


def pixel(path: Path, place: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    image = load_image(image_ref(path))
    assert image.mode == "RGB"
    value = image.getpixel(place)
    assert isinstance(value, tuple)
    return value


def test_reference_is_absolute_path_and_hash_of_the_bytes(tmp_path, monkeypatch):
    data = encoded(Image.new("RGB", (6, 4), RED), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    ref = image_ref("a.png")
    assert ref == ImageRef(uri=str(tmp_path / "a.png"), sha256=hashlib.sha256(data).hexdigest())
    assert load_bytes(ref) == data
    assert load_image(ref).size == (6, 4)


def test_the_content_decides_not_the_extension(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(Image.new("RGB", (6, 4), RED), "PNG"))
    assert pixel(path) == RED


def test_palette_cmyk_and_greyscale_become_rgb(tmp_path):
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    (tmp_path / "p.png").write_bytes(encoded(palette, "PNG"))
    assert pixel(tmp_path / "p.png") == (10, 20, 30)
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    (tmp_path / "c.jpg").write_bytes(encoded(cmyk, "JPEG", quality=100))
    red, green, blue = pixel(tmp_path / "c.jpg", (8, 8))
    assert red > 250
    assert green < 5
    assert blue < 5
    (tmp_path / "l.png").write_bytes(encoded(Image.new("L", (4, 4), 77), "PNG"))
    assert pixel(tmp_path / "l.png") == (77, 77, 77)


def test_sixteen_bit_grey_keeps_its_upper_byte(tmp_path):
    deep = Image.new("I;16", (2, 1), 0x8123)
    deep.putpixel((1, 0), 0xFFFF)
    (tmp_path / "deep.png").write_bytes(encoded(deep, "PNG"))
    assert pixel(tmp_path / "deep.png", (0, 0)) == (0x81, 0x81, 0x81)
    assert pixel(tmp_path / "deep.png", (1, 0)) == (255, 255, 255)


def test_transparency_lies_over_white(tmp_path):
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    clear.putpixel((1, 1), (255, 0, 0, 255))
    (tmp_path / "clear.png").write_bytes(encoded(clear, "PNG"))
    assert pixel(tmp_path / "clear.png", (0, 0)) == (255, 255, 255)
    assert pixel(tmp_path / "clear.png", (1, 1)) == RED
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    (tmp_path / "key.png").write_bytes(encoded(palette, "PNG", transparency=1))
    assert pixel(tmp_path / "key.png") == (255, 255, 255)


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (40, 20), (0, 0, 255))
    image.paste(RED, (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by a quarter: left becomes top
    path = tmp_path / "turned.jpg"
    path.write_bytes(encoded(image, "JPEG", exif=exif, quality=95))
    shown = load_image(image_ref(path))
    assert shown.size == (20, 40)
    assert shown.getpixel((10, 5))[0] > 240
    assert shown.getpixel((10, 35))[2] > 240


def test_a_camera_preview_is_not_an_animation(tmp_path):
    path = tmp_path / "camera.jpg"
    main, preview = Image.new("RGB", (16, 16), RED), Image.new("RGB", (16, 16), (0, 0, 255))
    path.write_bytes(encoded(main, "MPO", save_all=True, append_images=[preview]))
    red, _, blue = pixel(path)
    assert red > 250
    assert blue < 5


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is empty"),
        (b"<html>404 not found</html>", "is none of JPEG, PNG"),
        (encoded(noise(64, 64), "PNG")[:6000], "damaged"),
        (encoded(noise(64, 64), "JPEG")[:3000], "damaged"),
        (encoded(noise(64, 64), "JPEG")[:-40], "damaged"),
        (encoded(noise(64, 64), "WEBP", lossless=True)[:-40], "damaged"),
        (png_of_size(65_000, 65_000), "more than 50,000,000 pixels"),
        (png_of_size(10_000, 8_000), "more than 50,000,000 pixels"),
        (png_of_size(10_000, 5_001), "more than 50,000,000 pixels"),
        (encoded(Image.new("RGB", (4, 4)), "TIFF"), "is none of JPEG, PNG"),
    ],
)
def test_unusable_file_is_refused(tmp_path, data, problem):
    path = tmp_path / "image.png"
    path.write_bytes(data)
    with pytest.raises(DataError, match=problem) as caught:
        image_ref(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_animation_is_refused_and_one_frame_is_not(tmp_path, format):
    first, second = Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), (0, 0, 255))
    path = tmp_path / "moving"
    path.write_bytes(encoded(first, format, save_all=True, append_images=[second]))
    with pytest.raises(DataError, match="is animated"):
        image_ref(path)
    path.write_bytes(encoded(first, format))
    assert pixel(path)[0] > 240


def test_large_file_is_refused_before_decoding(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    path.write_bytes(encoded(noise(32, 32), "PNG"))
    monkeypatch.setattr(images, "MAX_IMAGE_BYTES", 100)
    with pytest.raises(DataError, match="larger than 100 bytes"):
        image_ref(path)


def test_bomb_is_refused_from_its_header(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of_size(8_000, 7_000))  # below what Pillow itself warns at

    def never(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", never)
    with pytest.raises(DataError, match="8000 x 7000"):
        image_ref(path)


def test_path_must_stay_below_the_root(tmp_path):
    root, outside = tmp_path / "images", tmp_path / "secret.png"
    (root / "sub").mkdir(parents=True)
    outside.write_bytes(encoded(Image.new("RGB", (4, 4)), "PNG"))
    (root / "sub" / "in.png").write_bytes(outside.read_bytes())
    (root / "link.png").symlink_to(outside)
    (root / "inner.png").symlink_to(root / "sub" / "in.png")
    for escape in ("link.png", "../secret.png", "sub/../../secret.png", str(outside)):
        with pytest.raises(DataError, match="outside the image folder"):
            image_ref(escape, root=root)
    for fine in ("sub/in.png", "inner.png", "sub/../sub/in.png", str(root / "sub/in.png")):
        assert image_ref(fine, root=root).uri == str(root / "sub" / "in.png")


def test_a_root_that_is_a_prefix_of_another_folder_holds_only_its_own(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images2").mkdir()
    other = tmp_path / "images2" / "a.png"
    other.write_bytes(encoded(Image.new("RGB", (4, 4)), "PNG"))
    with pytest.raises(DataError, match="outside the image folder"):
        image_ref("../images2/a.png", root=tmp_path / "images")


def test_what_is_no_plain_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, problem in [
        (tmp_path / "missing.png", "does not exist"),
        (tmp_path, "not a plain file"),
        (tmp_path / "pipe", "not a plain file"),
        (Path("/dev/zero"), "not a plain file"),
        (tmp_path / "loop", "not a usable path"),
        (tmp_path / "nul\x00.png", "not a usable path"),
        (tmp_path / ("x" * 300), "not a usable path"),
    ]:
        with pytest.raises(DataError, match=problem):
            image_ref(path)


def test_a_file_that_changed_is_noticed(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.new("RGB", (4, 4), RED), "PNG"))
    ref = image_ref(path)
    path.write_bytes(encoded(Image.new("RGB", (4, 4), (254, 0, 0)), "PNG"))
    with pytest.raises(DataError, match=f"{re.escape(str(path))} changed since the run began"):
        load_image(ref)
    path.unlink()
    with pytest.raises(DataError, match="does not exist"):
        load_image(ref)
