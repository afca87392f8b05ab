"""`data.image_prefix`: what the names of image files begin with and the records leave out."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from csr.errors import DataError
from flows.config import DataConfig
from tests.data_formats import picture, read

PREFIX = "COCO_train2014_"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two of COCO's files, one of them in a folder of its own."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    (folder / f"{PREFIX}1.png").write_bytes(picture(1))
    (folder / "more" / f"{PREFIX}2.png").write_bytes(picture(2))
    return folder


def written(folder: Path, form: str, *images: str) -> Path:
    path = folder / f"prompts.{'parquet' if form == 'parquet' else 'json'}"
    records: list[dict[str, Any]] = [{"id": n, "image": name} for n, name in enumerate(images)]
    if form == "llava":
        turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A square."}]
        path.write_text(json.dumps([each | {"conversations": turns} for each in records]))
        return path
    records = [each | {"input": "What?"} for each in records]
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        path.write_text(json.dumps(records))
    return path


@pytest.mark.parametrize("form", ["csr", "llava", "parquet"])
def test_files_are_found_by_the_names_that_records_leave_out(
    images: Path, tmp_path: Path, form: str
) -> None:
    prompts = written(tmp_path, form, "1.png", "more/2.png", f"{PREFIX}1.png")
    loaded = read(prompts, images=str(images), image_prefix=PREFIX, on_bad_record="error")
    assert [prompt.image.uri for prompt in loaded.prompts] == [
        str(images / f"{PREFIX}1.png"),
        str(images / "more" / f"{PREFIX}2.png"),
        str(images / f"{PREFIX}1.png"),
    ]


@pytest.mark.parametrize("name", ["3.png", ".", "..", "more", "../images/1.gif"])
def test_an_error_names_the_file_that_was_looked_for(
    images: Path, tmp_path: Path, name: str
) -> None:
    prompts = written(tmp_path, "csr", name)
    with pytest.raises(DataError, match=f"'[./a-z]*{PREFIX}.*' does not exist"):
        read(prompts, images=str(images), image_prefix=PREFIX, on_bad_record="error")


def test_it_is_refused_where_nothing_would_look_at_it(tmp_path: Path) -> None:
    for form in ("coco", "webdataset"):
        with pytest.raises(ValidationError, match=r"data\.image_prefix would have no effect"):
            DataConfig(prompts=str(tmp_path), format=form, image_prefix=PREFIX)
