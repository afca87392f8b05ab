"""Corruptions of images, by hand-worked figures and by what must hold."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csr.corruptions import corrupted, diffusion_shares
from csr.errors import ConfigError
from csr.images import load_image
from csr.types import ImageRef
from tests.sample_data import saved_image

NAMES = ("blank", "diffusion_noise:500", "resize:20", "colour_jitter:0.5:0.3", "crop:0.2")
SHA = "ab" * 32


def picture(size: tuple[int, int] = (60, 40)) -> Image.Image:
    """A red and a blue half, in no way random."""
    image = Image.new("RGB", size, (200, 30, 30))
    image.paste((20, 40, 180), (size[0] // 2, 0, *size))
    return image


def values(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=float)


@pytest.mark.parametrize("name", NAMES)
def test_one_name_and_one_image_are_always_the_same_pixels(name: str) -> None:
    first = corrupted(picture(), name, SHA)
    assert first.mode == "RGB"
    assert first.tobytes() == corrupted(picture(), name, SHA).tobytes()
    assert first.tobytes() != picture().tobytes()


@pytest.mark.parametrize("name", ["diffusion_noise:500", "colour_jitter:0.5:0.3", "crop:0.2"])
def test_another_image_draws_anew(name: str) -> None:
    other = "cd" * 32
    assert corrupted(picture(), name, SHA).tobytes() != corrupted(picture(), name, other).tobytes()


@pytest.mark.parametrize(("step", "expected"), [(500, (0.863, 0.505)), (999, (0.285, 0.959))])
def test_the_diffusion_schedule_is_povids(step: int, expected: tuple[float, float]) -> None:
    """Figures computed from the released code's schedule."""
    assert diffusion_shares(step) == pytest.approx(expected, abs=1e-3)


def test_noise_has_the_schedules_mean_and_spread() -> None:
    grey = Image.new("RGB", (200, 200), (128, 128, 128))
    found = values(corrupted(grey, "diffusion_noise:100", SHA)) / 255
    signal, noise = diffusion_shares(100)
    assert found.mean() == pytest.approx(signal * 128 / 255, abs=0.01)
    assert found.std() == pytest.approx(noise, abs=0.02)


def test_noise_is_cut_and_does_not_wrap_around() -> None:
    white = Image.new("RGB", (100, 100), (255, 255, 255))
    found = values(corrupted(white, "diffusion_noise:10", SHA))
    assert found.min() > 128


def test_shrinking_keeps_the_proportions() -> None:
    assert corrupted(picture((60, 40)), "resize:20", SHA).size == (30, 20)
    assert corrupted(picture((40, 60)), "resize:20", SHA).size == (20, 30)


def test_blank_is_one_grey() -> None:
    assert corrupted(picture(), "blank", SHA).getcolors() == [(60 * 40, (128, 128, 128))]


def test_jitter_of_hue_leaves_grey_alone_and_turns_colours() -> None:
    grey = Image.new("RGB", (4, 4), (90, 90, 90))
    assert corrupted(grey, "colour_jitter:0:0.5", SHA).tobytes() == grey.tobytes()
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    turned = corrupted(red, "colour_jitter:0:0.5", SHA).getpixel((0, 0))
    assert turned != (255, 0, 0)
    assert max(turned) == 255


def test_a_crop_is_a_part_of_the_image_in_its_size() -> None:
    ramp = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (100, 1))).convert("RGB")
    for number in range(5):
        found = values(corrupted(ramp, "crop:0.2", str(number)))
        assert found.shape == (100, 200, 3)
        # Of 200 columns, at most the root of a fifth is seen.
        assert found.max() - found.min() <= 200 * 0.2**0.5 + 1


@pytest.mark.parametrize(
    "name",
    ["", "blur", "blank:1", "resize", "resize:0", "resize:x", "crop:1.5", "diffusion_noise:1000",
     "colour_jitter:0.5", "crop:nan", "resize:20:20"],
)  # fmt: skip
def test_no_corruption_says_which_there_are(name: str) -> None:
    with pytest.raises(ConfigError, match=r"Known: blank, diffusion_noise:0 to 999"):
        corrupted(picture(), name, SHA)


def test_a_reference_names_its_corruption(tmp_path: Path) -> None:
    ref = saved_image(tmp_path / "a.png")
    blank = load_image(ImageRef(uri=ref.uri, sha256=ref.sha256, corruption="blank"))
    assert blank.getpixel((0, 0)) == (128, 128, 128)
    with pytest.raises(ConfigError, match="There is no corruption 'fog'"):
        load_image(ImageRef(uri=ref.uri, sha256=ref.sha256, corruption="fog"))
