"""Shards that the real library writes, and archives that nobody should."""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import webdataset

from csr.errors import ConfigError, DataError
from csr.types import SkipReason
from tests.data_formats import picture, read, samples


def shard(path: Path, files: Iterable[tuple[str, bytes | str | dict[str, Any]]]) -> Path:
    """A plain tar file of these names and contents, in this order."""
    with tarfile.open(path, "w") as archive:
        for name, content in files:
            add(archive, name, content)
    return path


def add(archive: tarfile.TarFile, name: str, content: bytes | str | dict[str, Any]) -> None:
    if isinstance(content, dict):
        content = json.dumps(content)
    data = content.encode() if isinstance(content, str) else content
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


ASKED = {"input": "What?"}


def test_shards_of_the_real_library(tmp_path: Path) -> None:
    given = samples(23)
    (tmp_path / "shards").mkdir()
    pattern = str(tmp_path / "shards" / "train-%04d.tar")
    with webdataset.ShardWriter(pattern, maxcount=10, verbose=0) as writer:
        for each in given:
            fields = {"input": each.input, "reference": each.reference}
            writer.write({"__key__": each.id, "png": each.image, "json": fields})
    assert len(list((tmp_path / "shards").iterdir())) == 3
    for prompts in (tmp_path / "shards", tmp_path / "shards" / "train-*.tar"):
        loaded = read(prompts, tmp_path / "kept")
        assert [p.prompt_id for p in loaded.prompts] == [each.id for each in given]
        assert [p.text for p in loaded.prompts] == [each.input for each in given]
        assert [p.reference for p in loaded.prompts] == [each.reference for each in given]
        assert [kept.load() for kept in loaded.kept_images] == [each.image for each in given]
    one = read(tmp_path / "shards" / "train-0001.tar", tmp_path / "kept")
    assert [p.prompt_id for p in one.prompts] == [f"s{n}" for n in range(10, 20)]


def test_the_text_is_asked_or_is_the_reference(tmp_path: Path) -> None:
    files = [("1.jpg", picture(1, "JPEG")), ("1.json", {"url": "x"}), ("1.txt", "A dog.\n")]
    path = shard(tmp_path / "a.tar", files)
    (prompt,) = read(path, tmp_path).prompts
    assert (prompt.prompt_id, prompt.text, prompt.reference) == ("1", "A dog.", None)
    (prompt,) = read(path, tmp_path, instruction="Describe it.").prompts
    assert (prompt.text, prompt.reference) == ("Describe it.", "A dog.")
    (prompt,) = read(path, tmp_path, columns={"input": "url", "reference": "txt"}).prompts
    assert (prompt.text, prompt.reference) == ("x", "A dog.")


def test_folders_other_files_and_capital_letters(tmp_path: Path) -> None:
    path = shard(
        tmp_path / "a.tar",
        [
            ("./a/1.PNG", picture(1)),
            ("./a/1.json", ASKED),
            ("./a/1.seg.png", b"another picture"),
            ("./a/1.pyd", b"cos\nsystem\n(S'false'\ntR."),
            ("b/1.jpeg", picture(2, "JPEG")),
            ("b/1.json", ASKED | {"id": 7}),
            ("README", "no sample"),
        ],
    )
    loaded = read(path, tmp_path)
    assert [p.prompt_id for p in loaded.prompts] == ["./a/1", "7"]
    assert loaded.skipped == {}


def test_one_of_several_images_is_named(tmp_path: Path) -> None:
    files = [("1.left.jpg", picture(1)), ("1.PNG", picture(2)), ("1.jpg", picture(3))]
    path = shard(tmp_path / "a.tar", [*files, ("1.txt", "What?")])
    for extension, number in (("left.jpg", 1), ("png", 2), (".JPG", 3)):
        loaded = read(path, tmp_path, columns={"image": extension})
        assert [kept.load() for kept in loaded.kept_images] == [picture(number)]
    with pytest.raises(DataError, match=r"several images \(\.jpg, \.png\)"):
        read(path, tmp_path, on_bad_record="error")


def test_conversations(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A dog."}]
    files = [("1.png", picture(1)), ("1.json", {"conversations": turns})]
    (prompt,) = read(shard(tmp_path / "a.tar", files), tmp_path).prompts
    assert (prompt.prompt_id, prompt.text, prompt.reference) == ("1", "What?", "A dog.")


@pytest.mark.parametrize(
    ("files", "reason", "words"),
    [
        ([("1.json", ASKED)], SkipReason.NO_IMAGE, "has no image"),
        ([("1.png", b"")], SkipReason.INVALID_RECORD, "'input' is missing"),
        ([("1.png", b""), ("1.txt", "What?")], SkipReason.UNREADABLE_IMAGE, "is empty"),
        ([("1.png", b"GIF89a"), ("1.txt", "What?")], SkipReason.UNREADABLE_IMAGE, "1.png"),
        ([("1.png", picture(1)), ("1.json", "{")], SkipReason.INVALID_RECORD, "not valid JSON"),
        ([("1.png", picture(1)), ("1.json", "[1]")], SkipReason.INVALID_RECORD, "be an object"),
        ([("1.png", picture(1)), ("1.json", '{"input": 1, "input": 2}')],
         SkipReason.INVALID_RECORD, "stands twice"),
        ([("1.png", picture(1)), ("1.txt", b"\xff\xfe\xff")], SkipReason.INVALID_RECORD, "UTF-8"),
        ([("1.png", picture(1)), ("1.txt", "x" * 2**21)], SkipReason.INVALID_RECORD, "larger than"),
        ([("1.png", picture(1)), ("1.png", picture(2))], SkipReason.INVALID_RECORD, "stands twice"),
        ([("1.png", picture(1)), ("1.jpg", picture(2)), ("1.txt", "What?")],
         SkipReason.INVALID_RECORD, r"several images (.jpg, .png)"),
    ],
)  # fmt: skip
def test_a_bad_sample_spoils_itself_alone(
    tmp_path: Path, files: list[tuple[str, Any]], reason: SkipReason, words: str
) -> None:
    good = [("0.png", picture(0)), ("0.txt", "What?")]
    last = [("2.png", picture(0)), ("2.txt", "What?")]
    loaded = read(shard(tmp_path / "a.tar", [*good, *files, *last]), tmp_path)
    assert [p.prompt_id for p in loaded.prompts] == ["0", "2"]
    (bad,) = loaded.bad_records
    assert (bad.position, bad.reason) == (2, reason)
    assert words in bad.message
    assert "sample '1'" in bad.message


# ---------------------------------------------------------------- hostile


def test_names_never_become_paths(tmp_path: Path) -> None:
    names = ("/etc/passwd", "../../outside", "a\x1b[2Jb", "\u202egnp", "x" * 300)
    files = [(f"{name}.{kind}", content) for name in names for kind, content in
             (("png", picture(1)), ("txt", "What?"))]  # fmt: skip
    before = sorted(tmp_path.rglob("*"))
    path = shard(tmp_path / "a.tar", files)
    loaded = read(path, tmp_path / "kept")
    assert [p.prompt_id for p in loaded.prompts] == list(names)
    assert {Path(p.image.uri).parent for p in loaded.prompts} == {tmp_path / "kept"}
    assert sorted(tmp_path.rglob("*")) == sorted([*before, path])


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_not_followed(tmp_path: Path, kind: bytes) -> None:
    (tmp_path / "secret.png").write_bytes(picture(3))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("1.png")
        info.type, info.linkname = kind, str(tmp_path / "secret.png")
        archive.addfile(info)
        add(archive, "1.txt", "What?")
        add(archive, "2.png", picture(1))
        add(archive, "2.txt", "What?")
    loaded = read(tmp_path / "a.tar", tmp_path)
    assert [p.prompt_id for p in loaded.prompts] == ["2"]
    assert "its .png is a link" in loaded.bad_records[0].message


def pax(path: Path, headers: dict[str, str], size: int = 0) -> Path:
    """One image whose extended header says more about it."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("1.png")
        info.pax_headers = headers
        data = picture(1) + bytes(size)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
        add(archive, "1.txt", "What?")
        add(archive, "2.png", picture(2))
        add(archive, "2.txt", "What?")
    return path


def test_a_file_full_of_holes_is_left_out(tmp_path: Path) -> None:
    sparse = {"GNU.sparse.map": "0,20", "GNU.sparse.size": str(2**40)}
    loaded = read(pax(tmp_path / "a.tar", sparse), tmp_path)
    assert [p.prompt_id for p in loaded.prompts] == ["2"]
    assert "full of holes" in loaded.bad_records[0].message


@pytest.mark.parametrize(
    "headers", [{"size": str(2**50)}, {"size": "-1536"}, {"size": "-512"}, {"path": "p" * 2**20}]
)
def test_headers_that_lie_end_in_an_error(tmp_path: Path, headers: dict[str, str]) -> None:
    path = pax(tmp_path / "a.tar", headers)
    if "path" in headers:
        assert read(path, tmp_path).prompts[0].prompt_id == "2"  # no sample has such a name
        return
    with pytest.raises(DataError, match="cannot be read as a plain tar file"):
        read(path, tmp_path)


def test_a_name_as_long_as_the_file_is_not_held(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**40
    with (tmp_path / "a.tar").open("wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.truncate(2**40)  # sparse: it takes no room
    with pytest.raises(DataError, match="a header is far too long"):
        read(tmp_path / "a.tar", tmp_path)


def test_an_image_of_a_terabyte_is_told_by_its_header(tmp_path: Path) -> None:
    with (tmp_path / "a.tar").open("wb") as file:
        vast = tarfile.TarInfo("1.png")
        vast.size = 2**40
        file.write(vast.tobuf(tarfile.GNU_FORMAT))
        file.seek(2**40, io.SEEK_CUR)
        with tarfile.open(fileobj=file, mode="w") as archive:
            add(archive, "1.txt", "What?")
            add(archive, "2.png", picture(2))
            add(archive, "2.txt", "What?")
    loaded = read(tmp_path / "a.tar", tmp_path)
    assert [p.prompt_id for p in loaded.prompts] == ["2"]
    (bad,) = loaded.bad_records
    assert bad.reason == SkipReason.UNREADABLE_IMAGE
    assert "larger than 67,108,864 bytes" in bad.message


def test_a_cut_or_damaged_archive_is_one_error(tmp_path: Path) -> None:
    files = [(f"{n}.{kind}", data) for n in range(20)
             for kind, data in (("png", picture(n)), ("txt", "What?"))]  # fmt: skip
    whole = shard(tmp_path / "a.tar", files).read_bytes()
    used = 20 * (512 + 512 + 512 + 512)
    for end in (100, 512, 700, 2048, used // 2 + 700, used):
        (tmp_path / "a.tar").write_bytes(whole[:end])
        with pytest.raises(DataError, match="cannot be read as a plain tar file"):
            read(tmp_path / "a.tar", tmp_path, format="webdataset")
    (tmp_path / "a.tar").write_bytes(whole[:2048] + b"\xff" * 512 + whole[2560:])
    with pytest.raises(DataError, match="cut or damaged at byte 2,048"):
        read(tmp_path / "a.tar", tmp_path)


def test_a_second_archive_behind_the_first_is_told(tmp_path: Path) -> None:
    one = shard(tmp_path / "1.tar", [("1.png", picture(1)), ("1.txt", "What?")]).read_bytes()
    (tmp_path / "a.tar").write_bytes(one + one)
    with pytest.raises(DataError, match="cut or damaged"):
        read(tmp_path / "a.tar", tmp_path)


def test_a_text_file_stands_in_for_no_key_that_is_named(tmp_path: Path) -> None:
    files = [("1.png", picture(1)), ("1.json", {"other": "?"}), ("1.txt", "A caption.")]
    path = shard(tmp_path / "a.tar", files)
    with pytest.raises(DataError, match="'input' is missing"):
        read(path, tmp_path, columns={"input": "question"})
    named = read(tmp_path / "a.tar", tmp_path, columns={"input": "txt"})
    assert [prompt.text for prompt in named.prompts] == ["A caption."]


def test_a_compressed_archive_is_told_to_be_unpacked(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz") as archive:
        add(archive, "1.png", picture(1))
    with pytest.raises(DataError, match="must be unpacked"):
        read(tmp_path / "a.tar", tmp_path, format="webdataset")


def test_settings_without_effect(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", [("1.png", picture(1)), ("1.txt", "What?")])
    with pytest.raises(ConfigError, match=r"data\.split would have no effect .* 'webdataset'"):
        read(path, tmp_path, split="train")
