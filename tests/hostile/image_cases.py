"""Image files and image paths. Each builder gets the image folder and returns a record's path."""

import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from csr.types import SkipReason
from tests.hostile.bait import PICKLE
from tests.hostile.cases import Corpus, Fine, Quarantined
from tests.hostile.pixels import (
    GREY_ALPHA,
    PALETTE,
    RGB,
    chunk,
    encoded,
    noise,
    png,
    rows,
    two_frames,
)

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
SIDE = 16

IMAGES = Corpus()


def bad(words: str) -> Quarantined:
    return Quarantined(SkipReason.UNREADABLE_IMAGE, words)


def pixels(size: tuple[int, int], *at: tuple[tuple[int, int], tuple[int, int, int]]) -> Fine:
    """The size, and places with their colour, up to what JPEG blurs."""
    return Fine((size, dict(at)))


def file(name: str, data: Callable[[], bytes]) -> Callable[[Path], str]:
    """A builder that writes a file."""

    def build(root: Path) -> str:
        (root / name).write_bytes(data())
        return name

    return build


def square(mode: str = "RGB", colour: object = RED) -> Image.Image:
    return Image.new(mode, (SIDE, SIDE), colour)  # type: ignore[arg-type]


# ---------------------------------------------------------------- damaged files

CONTENT = "none of JPEG, PNG"
DAMAGED = "is damaged and cannot be decoded"
PIXELS = "more than 50,000,000 pixels"
SHAPE = "no side may be more than 200 times the other"

DAMAGED_FILES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "empty_file": ("a.png", bytes, "is empty (0 bytes)"),
    "truncated_png": ("a.png", lambda: encoded(noise(), "PNG")[:6000], DAMAGED),
    "truncated_jpeg": ("a.jpg", lambda: encoded(noise(), "JPEG")[:2000], DAMAGED),
    "jpeg_without_its_end": ("a.jpg", lambda: encoded(noise(), "JPEG")[:-40], DAMAGED),
    "truncated_webp": ("a.webp", lambda: encoded(noise(), "WEBP", lossless=True)[:-40], DAMAGED),
    "truncated_gif": ("a.gif", lambda: encoded(noise(), "GIF")[:1500], DAMAGED),
    "truncated_bmp": ("a.bmp", lambda: encoded(noise(), "BMP")[:-500], DAMAGED),
    "png_signature_alone": ("a.png", lambda: b"\x89PNG\r\n\x1a\n", "image"),
    "wrong_checksum": (
        "a.png",
        lambda: png(2, 1, rows(b"ab"), checksum=7),
        DAMAGED,
    ),
    "svg_named_png": ("a.png", lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', CONTENT),
    "html_named_png": ("a.png", lambda: b"<!doctype html><title>404</title>", CONTENT),
    "pdf_named_jpg": ("a.jpg", lambda: b"%PDF-1.7\n1 0 obj\n", CONTENT),
    "tiff_named_png": ("a.png", lambda: encoded(square(), "TIFF"), CONTENT),
    "icon_named_png": ("a.png", lambda: encoded(square(), "ICO"), CONTENT),
    "postscript_named_jpg": ("a.jpg", lambda: encoded(square(), "EPS"), CONTENT),
    "pickle_named_png": ("a.png", lambda: PICKLE, CONTENT),
    "random_bytes": ("a.jpg", lambda: noise(32, 32).tobytes(), CONTENT),
    "bomb": ("a.png", lambda: png(9_000, 9_000, bytes(1_126 * 9_000), depth=1), PIXELS),
    "header_of_65k_by_65k": ("a.png", lambda: png(65_535, 65_535, b"\x00"), PIXELS),
    "header_of_2_billion": ("a.png", lambda: png(2**31 - 1, 2**31 - 1, b"\x00"), PIXELS),
    "hair": ("a.png", lambda: png(1, 20_000, b"\x00\x07" * 20_000), SHAPE),
    "thread": ("a.png", lambda: png(20_000, 1, bytes(20_001)), SHAPE),
    "no_width": ("a.png", lambda: png(0, 5, bytes(5)), "image"),
    "impossible_depth": ("a.png", lambda: png(2, 1, rows(b"ab"), depth=3), "image"),
    "impossible_colour_type": ("a.png", lambda: png(2, 1, rows(b"ab"), colour=7), "image"),
    "palette_without_palette": ("a.png", lambda: png(2, 1, b"\x00", colour=PALETTE), "image"),
    "text_bomb": ("a.png", lambda: with_text_bomb(), DAMAGED),
    "animated_gif": ("a.gif", lambda: two_frames("GIF"), "is animated (GIF)"),
    "animated_webp": ("a.webp", lambda: two_frames("WEBP"), "is animated (WEBP)"),
    "animated_png": ("a.png", lambda: two_frames("PNG"), "is animated (PNG)"),
    "jpeg_of_no_height": ("a.jpg", lambda: resized_jpeg(0, SIDE), "image"),
    "jpeg_of_65k": ("a.jpg", lambda: resized_jpeg(65_500, 65_500), PIXELS),
    "bmp_of_huge_claims": ("a.bmp", lambda: resized_bmp(2**30, 2**30), PIXELS),
    "bmp_of_negative_width": ("a.bmp", lambda: resized_bmp(-5, 5), "image"),
    "gif_of_no_size": ("a.gif", lambda: b"GIF89a" + bytes(7) + b";", "image"),
}


def with_text_bomb() -> bytes:
    """A comment of 10 MB, as 10 kB."""
    text = b"Comment\x00\x00" + zlib.compress(bytes(10_000_000))
    return png(2, 1, rows(b"ab"), before=[chunk(b"zTXt", text)])


def resized_jpeg(height: int, width: int) -> bytes:
    """A JPEG whose frame header claims another size."""
    data = encoded(noise(), "JPEG")
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def resized_bmp(width: int, height: int) -> bytes:
    data = encoded(noise(), "BMP")
    return data[:18] + struct.pack("<ii", width, height) + data[26:]


for name, (file_name, data, words) in DAMAGED_FILES.items():
    IMAGES.put(name, file(file_name, data), bad(words))


# ---------------------------------------------------------------- paths


@IMAGES.add(bad("does not exist"))
def missing(root: Path) -> str:
    return "nowhere.png"


@IMAGES.add(bad("does not exist"))
def dangling_link(root: Path) -> str:
    (root / "dangling.png").symlink_to(root / "gone.png")
    return "dangling.png"


@IMAGES.add(bad("is not a usable path"))
def link_to_itself(root: Path) -> str:
    (root / "loop.png").symlink_to(root / "loop.png")
    return "loop.png"


@IMAGES.add(bad("outside the image folder"))
def link_that_leads_out(root: Path) -> str:
    secret = root.parent / "secret.png"
    secret.write_bytes(encoded(square(), "PNG"))
    (root / "inside.png").symlink_to(secret)
    return "inside.png"


@IMAGES.add(bad("outside the image folder"))
def dots_that_lead_out(root: Path) -> str:
    (root.parent / "secret.png").write_bytes(encoded(square(), "PNG"))
    return "../secret.png"


@IMAGES.add(bad("outside the image folder"))
def absolute_path_outside(root: Path) -> str:
    (root.parent / "secret.png").write_bytes(encoded(square(), "PNG"))
    return str(root.parent / "secret.png")


@IMAGES.add(bad("outside the image folder"))
def folder_link_that_leads_out(root: Path) -> str:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "a.png").write_bytes(encoded(square(), "PNG"))
    (root / "sub").symlink_to(outside)
    return "sub/a.png"


@IMAGES.add(bad("outside the image folder"))
def device(root: Path) -> str:
    (root / "zero.png").symlink_to("/dev/zero")
    return "zero.png"


@IMAGES.add(bad("is not a plain file"))
def folder_named_png(root: Path) -> str:
    (root / "folder.png").mkdir()
    return "folder.png"


@IMAGES.add(bad("is not a plain file"))
def the_folder_itself(root: Path) -> str:
    return "."


@IMAGES.add(bad("is not a plain file"))
def pipe(root: Path) -> str:
    os.mkfifo(root / "pipe.png")
    return "pipe.png"


@IMAGES.add(bad("is not a plain file" if os.geteuid() == 0 else "Check its permissions"))
def unreadable(root: Path) -> str:
    """Root reads anything; for it, a pipe stands for what cannot be read."""
    if os.geteuid() == 0:
        os.mkfifo(root / "locked.png")
    else:
        (root / "locked.png").write_bytes(encoded(square(), "PNG"))
        (root / "locked.png").chmod(0)
    return "locked.png"


@IMAGES.add(bad("is not a usable path"))
def path_through_a_file(root: Path) -> str:
    (root / "file").write_bytes(encoded(square(), "PNG"))
    return "file/a.png"


@IMAGES.add(bad("is not a usable path"))
def name_of_5000_letters(root: Path) -> str:
    return "x" * 5000 + ".png"


@IMAGES.add(bad("larger than 67,108,864 bytes"))
def file_of_a_terabyte(root: Path) -> str:
    """Sparse: it takes no room."""
    with (root / "vast.png").open("wb") as vast:
        vast.truncate(2**40)
    return "vast.png"


@IMAGES.add(bad("none of JPEG, PNG"))
def zip_bomb(root: Path) -> str:
    with zipfile.ZipFile(root / "bomb.png", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(10_000_000))
    return "bomb.png"


@IMAGES.add(bad("does not exist"))
def name_that_writes_to_the_terminal(root: Path) -> str:
    return "\x1b[2J\x1b]0;owned\x07\n\u202egnp.exe"


# ---------------------------------------------------------------- unusual, and read right


def sixteen_bit_grey_with_a_transparent_value() -> bytes:
    key = chunk(b"tRNS", struct.pack(">H", 0x8123))
    return png(2, 1, rows(struct.pack(">HH", 0x8123, 0x4000)), depth=16, before=[key])


def palette(**options: object) -> bytes:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    return encoded(image, "PNG", **options)


def half_clear(mode: str = "RGBA") -> Image.Image:
    """Transparent, but for the lower right corner."""
    clear = Image.new(mode, (4, 4), (255, 0, 0, 0))
    clear.putpixel((3, 3), (255, 0, 0, 255))
    return clear


def turned(orientation: object) -> bytes:
    """Red left, blue right, and a note how to turn it."""
    image = Image.new("RGB", (40, 20), BLUE)
    image.paste(RED, (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, "JPEG", exif=exif, quality=95, subsampling=0)


def camera_with_a_preview() -> bytes:
    preview = square(colour=BLUE)
    return encoded(square(), "MPO", save_all=True, append_images=[preview])


CORNER, MIDDLE = (0, 0), (8, 8)
WHOLE = (SIDE, SIDE)

UNUSUAL: dict[str, tuple[str, Callable[[], bytes], Fine]] = {
    "cmyk_jpeg": (
        "cmyk.jpg",
        lambda: encoded(square("CMYK", (0, 255, 255, 0)), "JPEG", quality=100),
        pixels(WHOLE, (MIDDLE, RED)),
    ),
    "grey_jpeg": (
        "grey.jpg",
        lambda: encoded(square("L", 77), "JPEG"),
        pixels(WHOLE, (MIDDLE, (77, 77, 77))),
    ),
    "progressive_jpeg": (
        "progressive.jpg",
        lambda: encoded(square(), "JPEG", progressive=True, quality=100),
        pixels(WHOLE, (MIDDLE, RED)),
    ),
    "jpeg_with_bytes_behind": (
        "behind.jpg",
        lambda: encoded(square(), "JPEG", quality=100) + b"PK\x03\x04 something else",
        pixels(WHOLE, (MIDDLE, RED)),
    ),
    "png_named_jpg": (
        "wrong.jpg",
        lambda: encoded(square(), "PNG"),
        pixels(WHOLE, (CORNER, RED)),
    ),
    "jpeg_without_extension": (
        "photo",
        lambda: encoded(square(), "JPEG", quality=100),
        pixels(WHOLE, (MIDDLE, RED)),
    ),
    "sixteen_bit_grey": (
        "deep.png",
        lambda: png(2, 1, rows(struct.pack(">HH", 0x8123, 0xFFFF)), depth=16),
        pixels((2, 1), ((0, 0), (0x81, 0x81, 0x81)), ((1, 0), WHITE)),
    ),
    "sixteen_bit_colour": (
        "deeper.png",
        lambda: png(1, 1, rows(struct.pack(">HHH", 0x81FF, 0x4000, 0)), depth=16, colour=RGB),
        pixels((1, 1), (CORNER, (0x81, 0x40, 0))),
    ),
    "sixteen_bit_grey_with_alpha": (
        "deep_alpha.png",
        lambda: png(2, 1, rows(struct.pack(">HHHH", 0, 0, 0x8123, 0xFFFF)), depth=16,
                    colour=GREY_ALPHA),
        pixels((2, 1), ((0, 0), WHITE), ((1, 0), (0x81, 0x81, 0x81))),
    ),
    "sixteen_bit_grey_with_a_clear_value": (
        "deep_key.png",
        sixteen_bit_grey_with_a_transparent_value,
        pixels((2, 1), ((0, 0), WHITE), ((1, 0), (0x40, 0x40, 0x40))),
    ),
    "one_bit": (
        "bit.png",
        lambda: png(2, 1, rows(b"\x40"), depth=1),
        pixels((2, 1), ((0, 0), (0, 0, 0)), ((1, 0), WHITE)),
    ),
    "palette": ("palette.png", palette, pixels((4, 4), (CORNER, (10, 20, 30)))),
    "palette_with_a_clear_colour": (
        "key.png",
        lambda: palette(transparency=1),
        pixels((4, 4), (CORNER, WHITE)),
    ),
    "palette_with_alphas": (
        "alphas.png",
        lambda: palette(transparency=b"\xff\x80"),
        pixels((4, 4), (CORNER, (132, 137, 142))),  # half of 10, 20, 30 and half of white
    ),
    "rgba_png": (
        "alpha.png",
        lambda: encoded(half_clear(), "PNG"),
        pixels((4, 4), (CORNER, WHITE), ((3, 3), RED)),
    ),
    "rgba_webp": (
        "alpha.webp",
        lambda: encoded(half_clear(), "WEBP", lossless=True),
        pixels((4, 4), (CORNER, WHITE), ((3, 3), RED)),
    ),
    "still_gif": ("still.gif", lambda: encoded(square(), "GIF"), pixels(WHOLE, (CORNER, RED))),
    "bmp": ("plain.bmp", lambda: encoded(square(), "BMP"), pixels(WHOLE, (CORNER, RED))),
    "one_pixel": (
        "pixel.png",
        lambda: png(1, 1, rows(b"\x07")),
        pixels((1, 1), (CORNER, (7, 7, 7))),
    ),
    "as_long_as_may_be": (
        "long.png",
        lambda: png(200, 1, bytes(201)),
        pixels((200, 1), (CORNER, (0, 0, 0))),
    ),
    "camera_with_a_preview": (
        "camera.jpg",
        camera_with_a_preview,
        pixels(WHOLE, (MIDDLE, RED)),
    ),
    "unknown_exif_orientation": (
        "turned99.jpg",
        lambda: turned(99),
        pixels((40, 20), ((5, 10), RED), ((35, 10), BLUE)),
    ),
    "name_in_many_scripts": (
        "фото 写真 صورة 🖼️ a+b&c;d'e.png",
        lambda: encoded(square(), "PNG"),
        pixels(WHOLE, (CORNER, RED)),
    ),
    "name_with_a_line_end": (
        "two\nlines.png",
        lambda: encoded(square(), "PNG"),
        pixels(WHOLE, (CORNER, RED)),
    ),
}  # fmt: skip

ORIENTATIONS: dict[int, tuple[tuple[int, int], tuple[int, int], tuple[int, int]]] = {
    1: ((40, 20), (5, 10), (35, 10)),
    2: ((40, 20), (35, 10), (5, 10)),
    3: ((40, 20), (35, 10), (5, 10)),
    4: ((40, 20), (5, 10), (35, 10)),
    5: ((20, 40), (10, 5), (10, 35)),
    6: ((20, 40), (10, 5), (10, 35)),
    7: ((20, 40), (10, 35), (10, 5)),
    8: ((20, 40), (10, 35), (10, 5)),
}
"""EXIF orientation -> size, where red is, where blue is, once it is applied."""

for name, (file_name, data, verdict) in UNUSUAL.items():
    IMAGES.put(name, file(file_name, data), verdict)
for number, (size, red, blue) in ORIENTATIONS.items():
    IMAGES.put(
        f"exif_orientation_{number}",
        file(f"turned{number}.jpg", lambda number=number: turned(number)),
        pixels(size, (red, RED), (blue, BLUE)),
    )


@IMAGES.add(pixels(WHOLE, (CORNER, RED)))
def link_that_stays_inside(root: Path) -> str:
    (root / "deep").mkdir()
    (root / "deep" / "real.png").write_bytes(encoded(square(), "PNG"))
    (root / "link.png").symlink_to(root / "deep" / "real.png")
    return "link.png"


@IMAGES.add(pixels(WHOLE, (CORNER, RED)))
def dots_that_stay_inside(root: Path) -> str:
    (root / "one").mkdir()
    (root / "one" / "real.png").write_bytes(encoded(square(), "PNG"))
    return "one/../one/./real.png"


@IMAGES.add(pixels(WHOLE, (CORNER, RED)))
def absolute_path_inside(root: Path) -> str:
    (root / "absolute.png").write_bytes(encoded(square(), "PNG"))
    return str(root / "absolute.png")
