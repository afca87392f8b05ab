"""Readers of anything: what they promise or a CSRError, and nothing else."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import event, example, given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save

from csr.checkpoints import check_weights
from csr.errors import ConfigError, CSRError, DataError, ModelError
from csr.evaluation import captions, pope
from csr.images import decode_image
from csr.prompts import load_prompts
from csr.records import read_entries
from flows.config import Recipe, load_recipe
from storage.manifest import ManifestFile
from storage.rows import prompts_from_table, prompts_to_table, quarantine_to_table
from storage.run_store import RunStore
from storage.tables import read_table, write_table
from storage.trees import trees_to_table
from tests.hostile.fuzz import altered, bounded, damaged, json_values
from tests.hostile.pixels import encoded, noise
from tests.sample_data import prompt, saved_image, tree
from tests.scripted_run import write_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


# ---------------------------------------------------------------- prompt files

RECORD = {"id": "1", "image": "a.png", "input": "What is this?", "reference": "A square."}
records = (
    altered(RECORD)
    | st.fixed_dictionaries(dict.fromkeys(("id", "image", "input"), json_values))
    | st.just(RECORD)
    | json_values
)
FILES = (
    st.binary(max_size=200)
    | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.lists(records, max_size=5).map(lambda listed: json.dumps(listed).encode())
    | st.lists(records, max_size=5).map(lambda listed: "\n".join(map(json.dumps, listed)).encode())
    | damaged("\n".join(map(json.dumps, [RECORD, RECORD | {"id": 2}])).encode())
    | damaged(json.dumps([RECORD, RECORD | {"id": 2}]).encode())
)


@pytest.fixture(scope="module")
def images(folder: Path) -> Path:
    (folder / "images").mkdir()
    saved_image(folder / "images/a.png")
    return folder / "images"


@given(data=FILES)
@example(data=b"[ ]")
@example(data=b'{"id": "a\\udc00"}')
@bounded(400)
def test_prompt_files(folder: Path, images: Path, data: bytes) -> None:
    path = folder / "prompts.data"
    path.write_bytes(data)
    try:
        strict = load_prompts(path, images)
    except DataError:
        strict = None
    try:
        loaded = load_prompts(path, images, on_bad_record="skip", max_bad_share=1.0)
    except DataError:
        event("refused")
        assert strict is None
        return
    event("read, with bad records" if loaded.bad_records else "read, all good")
    assert len(loaded.prompts) + len(loaded.bad_records) == len(read_entries(path))
    assert (strict is not None) == (not loaded.bad_records)
    table = prompts_to_table(loaded.prompts)
    assert prompts_from_table(table) == list(loaded.prompts)
    assert quarantine_to_table(loaded.bad_records).num_rows == len(loaded.bad_records)


QUESTION = RECORD | {"label": "yes", "split": "random", "objects": [{"name": "dog"}]}
VOCABULARY = {"objects": {"dog": ["dog", "dogs"]}, "attributes": {}}


@given(
    listed=st.lists(altered(QUESTION) | st.just(QUESTION) | json_values, min_size=1, max_size=3),
    vocabulary=st.just(VOCABULARY) | altered(VOCABULARY) | json_values,
)
@bounded(150)
def test_benchmarks(folder: Path, images: Path, listed: list[Any], vocabulary: Any) -> None:
    (folder / "questions.json").write_text(json.dumps(listed))
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary))
    settings = {"prompts": str(folder / "questions.json"), "images": str(images)}
    places = settings | {"vocabulary": str(folder / "vocabulary.json")}
    for build in (
        lambda: pope.build(pope.Config(**settings)),
        lambda: captions.build(captions.Config(**places)),
    ):
        try:
            asked = build().prompts()
        except DataError:
            event("refused")
        else:
            event("read")
            assert prompts_from_table(prompts_to_table(asked)) == list(asked)


# ---------------------------------------------------------------- recipes

YAML_CHARACTERS = "abn:-[]{}&*!|>'\"\n #?,%@`0.1e~<=\t\\u"


@pytest.fixture(scope="module")
def recipe(folder: Path) -> Path:
    return write_recipe(folder / "data")


@given(data=st.data())
@bounded(250)
def test_recipes(recipe: Path, data: st.DataObject) -> None:
    good = (recipe.parent / "scripted.yaml").read_text()
    text = data.draw(
        st.text(YAML_CHARACTERS, max_size=80).map(str.encode)
        | st.text(YAML_CHARACTERS, max_size=30).map(lambda end: f"{good}{end}\n".encode())
        | damaged(good.encode())
        | altered(yaml.safe_load(good)).map(lambda value: json.dumps(value).encode())
        | st.binary(max_size=60)
    )
    path = recipe.parent / "fuzzed.yaml"
    path.write_bytes(text)
    overrides = data.draw(st.lists(st.text(YAML_CHARACTERS + "=", max_size=12), max_size=1))
    try:
        loaded = load_recipe(path, tuple(overrides))
    except ConfigError:
        event("refused")
    else:
        event("read")
        assert isinstance(loaded, Recipe)
        assert Recipe.model_validate(json.loads(loaded.model_dump_json())) == loaded


# ---------------------------------------------------------------- tables

PAGE_HEADER_BYTES = 64
"""At most, with a page's statistics."""
TABLES = {
    "prompts": prompts_to_table([prompt(name) for name in ("a", "b", "é")]),
    "nodes": trees_to_table([tree("a"), tree("b")], iteration=1),
}


@pytest.fixture(scope="module")
def table_bytes(folder: Path) -> dict[str, bytes]:
    for name, table in TABLES.items():
        write_table(folder / f"{name}.parquet", table)
    return {name: (folder / f"{name}.parquet").read_bytes() for name in TABLES}


@given(name=st.sampled_from(sorted(TABLES)), data=st.data())
@bounded(400)
def test_tables(
    folder: Path, table_bytes: dict[str, bytes], name: str, data: st.DataObject
) -> None:
    path = folder / "damaged.parquet"
    content = data.draw(damaged(table_bytes[name]))
    path.write_bytes(content)
    try:
        found = read_table(path, name)
    except DataError:
        event("refused")
    else:
        event("read")
        assert found.equals(TABLES[name]) or only_page_headers_differ(table_bytes[name], content)


def only_page_headers_differ(good: bytes, bad: bytes) -> bool:
    """Parquet's checksums begin behind a page's header; a manifest's cover the whole file."""
    changed = {at for at, (one, other) in enumerate(zip(good, bad, strict=False)) if one != other}
    group = pq.ParquetFile(io.BytesIO(good)).metadata.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    starts = {c.data_page_offset for c in columns} | {c.dictionary_page_offset for c in columns}
    headers = {at for start in starts - {None} for at in range(start, start + PAGE_HEADER_BYTES)}
    return len(good) == len(bad) and changed <= headers


# ---------------------------------------------------------------- manifests and run records


@pytest.fixture(scope="module")
def store(folder: Path) -> RunStore:
    store = RunStore(folder / "runs")
    store.create_run("run", recipe="r", config={"a": {"b": [1]}}, seed=1, code_version="0")
    store.new_attempt("run", 1, policy_in={"name": "base"})
    return store


def stored(path: Path) -> Iterator[bytes]:
    """The file's good bytes; the good file again afterwards."""
    good = path.read_bytes()
    yield good
    path.write_bytes(good)


@pytest.fixture
def manifest(store: RunStore) -> Iterator[tuple[ManifestFile, bytes]]:
    file = store.attempt("run", 1).manifest
    for good in stored(file.path):
        yield file, good


@pytest.fixture
def run_record(store: RunStore) -> Iterator[tuple[Path, bytes]]:
    path = store.run_path("run") / "run.json"
    for good in stored(path):
        yield path, good


def json_files(good: bytes) -> st.SearchStrategy[bytes]:
    return (
        json_values.map(lambda value: json.dumps(value).encode())
        | altered(json.loads(good)).map(lambda value: json.dumps(value).encode())
        | damaged(good)
        | st.binary(max_size=40)
    )


@bounded(250)
@given(data=st.data())
def check_manifest(file: ManifestFile, good: bytes, data: st.DataObject) -> None:
    file.path.write_bytes(data.draw(json_files(good)))
    try:
        found = file.read()
    except DataError:
        event("refused")
    else:
        event("read")
        assert found.stage("sample") is None
        assert isinstance(found.skipped(), dict)


def test_manifests(manifest: tuple[ManifestFile, bytes]) -> None:
    check_manifest(*manifest)


@bounded(150)
@given(data=st.data())
def check_run_record(store: RunStore, path: Path, good: bytes, data: st.DataObject) -> None:
    path.write_bytes(data.draw(json_files(good)))
    try:
        found = store.run("run")
    except DataError:
        event("refused")
    else:
        event("read")
        assert found.status


def test_run_records(store: RunStore, run_record: tuple[Path, bytes]) -> None:
    check_run_record(store, *run_record)


# ---------------------------------------------------------------- images and weights

PHOTOGRAPH = noise(20, 15)
KINDS = {
    kind: encoded(PHOTOGRAPH, kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP")
}  # fmt: skip
EXIF = Image.Exif()
EXIF[0x0112] = 6
KINDS["JPEG with EXIF"] = encoded(PHOTOGRAPH, "JPEG", exif=EXIF, progressive=True)


@given(kind=st.sampled_from(sorted(KINDS)), data=st.data())
@bounded(500)
def test_images(kind: str, data: st.DataObject) -> None:
    good = KINDS[kind]
    try:
        image = decode_image(data.draw(damaged(good)), kind)
    except DataError:
        event(f"{kind}: refused")
    else:
        event(f"{kind}: read")
        assert image.mode == "RGB"
        if kind == "PNG":  # its checksums tell every change
            assert image.tobytes() == decode_image(good, kind).tobytes()


WEIGHTS = save({"a": np.arange(6, dtype=np.float32), "b": np.ones((2, 2), np.float16)})


@given(data=st.data())
@bounded(250)
def test_weights(folder: Path, data: st.DataObject) -> None:
    path = folder / "model/model.safetensors"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data.draw(damaged(WEIGHTS)))
    try:
        check_weights([path])
    except ModelError:
        event("refused")
    else:
        event("read")


def test_the_errors_are_the_users() -> None:
    """What the tests above let pass ends a command with status 2."""
    assert all(issubclass(kind, CSRError) for kind in (ConfigError, DataError, ModelError))
