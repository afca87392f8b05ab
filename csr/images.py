"""Images from disk, read as hostile input.

An image is named by the sha256 of its bytes. It is decoded once in full before a
run starts, so that a broken file is found then and not in the middle of training,
and every later load proves that the bytes are still the same. Only the header is
trusted for the decision whether to decode: format, size and number of frames are
checked before any pixel is touched.
"""

from __future__ import annotations

import hashlib
import io
import stat
import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from csr.corruptions import corrupted
from csr.errors import DataError, shown
from csr.types import ImageRef

MAX_IMAGE_PIXELS = 50_000_000
"""Pixels. Above any common camera, 150 MB as RGB, and below the 89.5 MP at which
Pillow starts to warn; vision towers look at 0.1 to 2 MP."""

MAX_IMAGE_BYTES = 64 * 1024 * 1024
"""Bytes of one file. A 50 MP JPEG is about 25 MB."""

MAX_ASPECT_RATIO = 200
"""Longer side over shorter. Qwen2-VL's processor refuses more, and one that scales the shorter
side up (CLIP's, to 336) would make gigabytes of a hair."""

ALLOWED_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
"""Pillow's other decoders (TIFF, PSD, EPS, ...) are never tried: each is attack
surface, and photographs do not come in them."""

_TRANSPARENT_BACKGROUND = (255, 255, 255)


def image_ref(path: Path | str, *, root: Path | None = None) -> ImageRef:
    """The reference to the image at `path`, after proving that it can be used.

    See `sized_image_ref`.
    """
    return sized_image_ref(path, root=root)[0]


def sized_image_ref(
    path: Path | str, *, root: Path | None = None
) -> tuple[ImageRef, tuple[int, int]]:
    """The reference to the image at `path`, and its upright (width, height) in pixels.

    `path` may be relative to `root`. Where `root` is given the file must lie under
    it once symbolic links and `..` are resolved. Decodes the image in full once.
    DataError names the path, what is wrong and what to do.
    """
    resolved = _resolve(Path(path), root)
    data = _read(resolved)
    return checked_bytes(data, name=_told(resolved), uri=str(resolved))


def checked_bytes(data: bytes, *, name: str, uri: str) -> tuple[ImageRef, tuple[int, int]]:
    """As `sized_image_ref`, of bytes that lie, or will lie, at the absolute path `uri`."""
    if len(data) > MAX_IMAGE_BYTES:
        raise too_many_bytes(name)
    if not data:
        raise DataError(f"image {name} is empty (0 bytes). Fetch it again, or remove its prompt.")
    image = decode_image(data, name)
    return ImageRef(uri=uri, sha256=hashlib.sha256(data).hexdigest()), image.size


def too_many_bytes(name: str) -> DataError:
    """What to raise where `MAX_IMAGE_BYTES` are exceeded."""
    return DataError(
        f"image {name} is larger than {MAX_IMAGE_BYTES:,} bytes. Store it smaller, or remove its "
        "prompt."
    )


def load_bytes(ref: ImageRef) -> bytes:
    """The file's bytes. DataError where they no longer hash to `ref.sha256`."""
    path = _resolve(Path(ref.uri), None)
    data = _read(path)
    found = hashlib.sha256(data).hexdigest()
    if found != ref.sha256:
        raise DataError(
            f"image {ref.uri} changed since the run began: its sha256 was {ref.sha256[:12]}..., "
            f"now it is {found[:12]}.... Put the old file back, or start a new run."
        )
    return data


def load_image(ref: ImageRef) -> Image.Image:
    """The image as 8-bit RGB, upright (EXIF orientation applied), verified by hash.

    Corrupted where the reference says so. DataError as in `image_ref` and `load_bytes`.
    """
    return as_referred(decode_image(load_bytes(ref), _told(ref.uri)), ref)


def as_referred(image: Image.Image, ref: ImageRef) -> Image.Image:
    """The decoded image with the corruption that its reference names. ConfigError for no such."""
    return image if ref.corruption is None else corrupted(image, ref.corruption, ref.sha256)


def decode_image(data: bytes, name: str) -> Image.Image:
    """Decode a file's bytes to upright 8-bit RGB. `name` is what errors call it.

    Transparency is laid over white; 16-bit greyscale keeps its upper 8 bits. An
    animation is refused, since no caller could know which frame was meant; the
    preview that some cameras append to a JPEG is not one, and is left out.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=ALLOWED_FORMATS) as image:
                _check_header(image, name)
                image.verify()  # PNG's checksums, which decoding passes over
            with Image.open(io.BytesIO(data), formats=ALLOWED_FORMATS) as image:
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image))
    except DataError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_many_pixels(name, str(error)) from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"image {name} is none of {', '.join(ALLOWED_FORMATS)} (its content decides, not its "
            "name). Convert it to PNG or JPEG, or remove it from the prompt file."
        ) from error
    except Exception as error:  # decoders raise almost anything on damaged files
        raise DataError(
            f"image {name} is damaged and cannot be decoded ({type(error).__name__}: {error}). "
            "Fetch it again, or remove it from the prompt file."
        ) from error


def _resolve(path: Path, root: Path | None) -> Path:
    """The absolute path without symbolic links, proved to lie under `root`."""
    try:
        base = None if root is None else root.resolve(strict=True)
        resolved = (path if base is None else base / path).resolve(strict=True)
    except FileNotFoundError as error:
        where = "" if root is None else f" (in the image folder {root})"
        raise DataError(
            f"image {str(path)!r} does not exist{where}. Check the path and the image folder."
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(
            f"image {str(path)!r} is not a usable path ({error}). Give the path of a plain file."
        ) from error
    if base is not None and not resolved.is_relative_to(base):
        raise DataError(
            f"image {str(path)!r} leads to {resolved}, outside the image folder {base}. Move the "
            "file into the folder, or name a folder that holds every image."
        )
    return resolved


def _read(path: Path) -> bytes:
    """The bytes of a plain file of acceptable size."""
    name = _told(path)
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise DataError(f"image {name} is not a plain file. Give the path of an image file.")
        if facts.st_size > MAX_IMAGE_BYTES:
            raise too_many_bytes(name)
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"image {name} cannot be read ({error.strerror}). Check its permissions."
        ) from error
    if not data:
        raise DataError(f"image {name} is empty (0 bytes). Fetch it again, or remove its prompt.")
    return data


def _told(path: Path | str) -> str:
    """The path as errors name it: quoted where it would break the line or hide something."""
    text = str(path)
    return text if text.isprintable() else shown(text)


def _check_header(image: Image.Image, name: str) -> None:
    """Refuse what should not be decoded, from the header alone."""
    width, height = image.size
    if width * height > MAX_IMAGE_PIXELS:
        raise _too_many_pixels(name, f"it is {width} x {height}")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise DataError(
            f"image {name} is {width} x {height}, and no side may be more than "
            f"{MAX_ASPECT_RATIO} times the other. Cut it, or remove its prompt."
        )
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise DataError(
            f"image {name} is animated ({image.format}); which frame is meant is unknown. Save the "
            "frame you want as a still image."
        )


def _too_many_pixels(name: str, what: str) -> DataError:
    return DataError(
        f"image {name} has more than {MAX_IMAGE_PIXELS:,} pixels ({what}). Scale it down, or "
        "remove its prompt."
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB from any mode that the allowed formats decode to."""
    if image.mode.startswith("I"):
        image = _upper_byte(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        background = Image.new("RGBA", layer.size, (*_TRANSPARENT_BACKGROUND, 255))
        return Image.alpha_composite(background, layer).convert("RGB")
    return image.convert("RGB")


def _upper_byte(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit grey; the one grey that a PNG may declare clear gets alpha 0."""
    grey = image.point(lambda value: value * (1 / 256)).convert("L")
    clear = grey.info.pop("transparency", None)
    if clear is not None:
        import numpy as np

        alpha = np.where(np.asarray(image) == clear, 0, 255).astype(np.uint8)
        grey.putalpha(Image.fromarray(alpha))
    return grey
