"""Lists of images, by which benchmarks choose what they ask about."""

from pathlib import Path

import pytest

from csr.errors import DataError
from csr.evaluation._image_ids import keep_listed

IMAGES = ["a/cat.jpg", "b/cat.jpg", "b/dog.png", "COCO_val2014_000000000139.jpg"]


def kept(folder: Path, *listed: str) -> list[str]:
    path = folder / "ids.txt"
    path.write_text("\n".join(listed))
    return keep_listed(IMAGES, str, path)


@pytest.mark.parametrize(
    ("listed", "image"),
    [
        ("a/cat.jpg", "a/cat.jpg"),
        ("b/cat", "b/cat.jpg"),
        ("dog", "b/dog.png"),
        ("b/dog.png", "b/dog.png"),
        ("139", "COCO_val2014_000000000139.jpg"),
        ("000000000139", "COCO_val2014_000000000139.jpg"),
    ],
)
def test_an_image_is_named_by_its_path_or_its_own_name(
    tmp_path: Path, listed: str, image: str
) -> None:
    assert kept(tmp_path, listed) == [image]


def test_images_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    assert kept(tmp_path, "b/cat.jpg", "a/cat.jpg") == ["a/cat.jpg", "b/cat.jpg"]
    with pytest.raises(DataError, match=r"'cat' may be 'a/cat' or 'b/cat'\. Write its"):
        kept(tmp_path, "cat.jpg")


@pytest.mark.parametrize("listed", ["c/cat", "9" * 5000, "mouse"])
def test_what_is_not_there_is_told(tmp_path: Path, listed: str) -> None:
    with pytest.raises(DataError, match="lists 1 of 1 images that are not there"):
        kept(tmp_path, listed)
