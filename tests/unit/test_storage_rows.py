"""Nouns to rows and back: nothing is lost; and other programs read the same rows."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from csr.errors import DataError
from csr.prompts import BadRecord
from csr.types import (
    FinishReason,
    GeneratedResponse,
    ImageRef,
    PreferencePair,
    Prompt,
    ResponseTree,
    ScoredResponse,
    SkipReason,
    StepCandidate,
    StepNode,
    StepScore,
)
from storage import rows, trees
from storage.tables import read_table, write_table
from tests.preference_pairs import with_images
from tests.sample_data import pair, prompt, response, saved_image, tree

# Shrinking a failure would write some thousand files; the first failing row says enough.
ROUND_TRIP = settings(max_examples=30, deadline=None, phases=(Phase.generate,))

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
reals = st.floats(allow_nan=False)
token_ids = st.lists(st.integers(0, 2**31 - 1), max_size=4).map(tuple)
parts = st.dictionaries(st.sampled_from(["likelihood", "redundancy", "own part"]), reals)
finishes = st.sampled_from(FinishReason)
image_refs = st.builds(ImageRef, uri=texts.filter(bool), sha256=texts, corruption=st.none() | texts)
prompts = st.builds(
    Prompt,
    prompt_id=texts,
    text=texts,
    image=image_refs,
    reference=st.none() | texts,
    dataset=texts,
)


def scored(prompt_id: str) -> st.SearchStrategy[ScoredResponse]:
    return st.builds(
        ScoredResponse,
        response_id=texts,
        prompt_id=st.just(prompt_id),
        text=texts,
        token_ids=token_ids,
        num_steps=st.integers(0, 99),
        num_tokens=st.integers(0, 99),
        sum_logprob=reals,
        reward=reals,
        breakdown=parts,
        finish_reason=finishes,
        origin=texts,
    )


@st.composite
def nodes(draw: st.DrawFn) -> StepNode:
    ids = draw(token_ids)
    return StepNode(
        node_id=draw(texts),
        parent_id=draw(st.none() | texts),
        depth=draw(st.integers(1, 9)),
        step=StepCandidate(
            text=draw(texts),
            token_ids=ids,
            token_logprobs=tuple(draw(reals) for _ in ids),
            finish_reason=draw(finishes),
        ),
        score=StepScore(reward=draw(reals), breakdown=draw(parts)),
        cumulative_reward=draw(reals),
        kept=draw(st.booleans()),
    )


@st.composite
def pairs(draw: st.DrawFn) -> PreferencePair:
    asked = draw(prompts)
    return PreferencePair(
        pair_id=draw(texts),
        prompt=asked,
        chosen=draw(scored(asked.prompt_id)),
        rejected=draw(scored(asked.prompt_id)),
        margin=draw(reals),
        source=draw(texts),
        rejected_image=draw(st.none() | image_refs),
    )


def through_disk(folder: Path, name: str, table: object) -> object:
    write_table(folder / f"{name}.parquet", table)
    return read_table(folder / f"{name}.parquet", name)


@given(st.lists(prompts, max_size=3))
@ROUND_TRIP
def test_prompts_come_back(tmp_path_factory, some):
    table = through_disk(tmp_path_factory.mktemp("t"), "prompts", rows.prompts_to_table(some))
    assert rows.prompts_from_table(table) == some


@given(prompts, st.lists(nodes(), min_size=1, max_size=4), st.dictionaries(texts, st.integers(1)))
@ROUND_TRIP
def test_a_tree_comes_back(tmp_path_factory, asked, some, skipped):
    grown = ResponseTree(
        prompt=asked, policy="p/01", origin="csr", nodes=tuple(some), skipped=skipped
    )
    table = trees.trees_to_table([grown], iteration=2)
    table = through_disk(tmp_path_factory.mktemp("t"), "nodes", table)
    back = trees.trees_from_table(table, [asked], skipped={asked.prompt_id: skipped})
    assert back == [grown]


@given(st.lists(scored("42"), max_size=3))
@ROUND_TRIP
def test_responses_come_back(tmp_path_factory, some):
    table = rows.responses_to_table(some, iteration=1, policy="p/00")
    table = through_disk(tmp_path_factory.mktemp("t"), "responses", table)
    assert rows.responses_from_table(table) == some


@given(st.lists(pairs(), max_size=2))
@ROUND_TRIP
def test_pairs_come_back(tmp_path_factory, some):
    table = rows.pairs_to_table(some, iteration=1, policy="p/00")
    table = through_disk(tmp_path_factory.mktemp("t"), "pairs", table)
    assert rows.pairs_from_table(table) == some


def test_trees_come_back_in_prompt_order_and_a_barren_prompt_keeps_its_place():
    table = trees.trees_to_table([tree("a"), tree("c")], iteration=1)
    asked = [prompt("c"), prompt("b"), prompt("a")]
    back = trees.trees_from_table(table, asked, policy="p", origin="o")
    barren = ResponseTree(prompt=prompt("b"), policy="p", origin="o", nodes=())
    assert back == [tree("c"), barren, tree("a")]


def test_nodes_of_an_unknown_prompt_are_refused():
    table = trees.trees_to_table([tree("a")], iteration=1)
    with pytest.raises(DataError, match=r"\['a'\]"):
        trees.trees_from_table(table, [prompt("b")])


def test_node_row_by_hand():
    table = trees.trees_to_table([tree()], iteration=3)
    row = table.to_pylist()[2]
    assert row["iteration"] == 3
    assert (row["node_id"], row["parent_id"], row["depth"]) == ("42/0.0", "42/0", 2)
    assert row["sum_logprob"] == pytest.approx(-1.0)
    assert row["num_tokens"] == 3
    assert row["likelihood"] == -0.4
    assert row["image_similarity"] == 27.5
    assert row["redundancy"] is None
    assert row["breakdown"] == [
        {"name": "image_similarity", "value": 27.5},
        {"name": "likelihood", "value": -0.4},
    ]
    assert (row["policy"], row["origin"], row["finish_reason"]) == ("tiny/00", "csr", "step")


def test_pair_row_by_hand():
    (row,) = rows.pairs_to_table([pair()], iteration=1, policy="tiny/00").to_pylist()
    assert row["images"] == [{"bytes": None, "path": "/data/a.png"}]
    assert row["prompt"] == [{"role": "user", "content": "Describe the image."}]
    assert row["chosen"] == [{"role": "assistant", "content": "A red circle."}]
    assert row["rejected"] == [{"role": "assistant", "content": "A blue dog."}]
    assert (row["chosen_reward"], row["rejected_reward"], row["margin"]) == (2.0, 0.5, 1.5)
    assert (row["chosen_num_tokens"], row["chosen_sum_logprob"]) == (4, -1.25)
    assert row["rejected_image_uri"] is None


def test_generations_come_back(tmp_path):
    said = GeneratedResponse(
        prompt_id="42",
        text="Yes.",
        token_ids=(5, 2),
        token_logprobs=(-0.1, -0.2),
        finish_reason=FinishReason.EOS,
    )
    table = rows.generations_to_table(
        [prompt()], [said], iteration=0, benchmark="pope", policy="tiny/00"
    )
    table = through_disk(tmp_path, "generations", table)
    assert rows.generations_from_table(table) == [said]
    assert table.to_pylist()[0]["prompt_text"] == "Describe the image."


@pytest.mark.parametrize("embed_images", [False, True])
def test_datasets_reads_pairs_as_trl_wants_them(tmp_path, embed_images):
    from datasets import load_dataset

    image = saved_image(tmp_path / "a.png")
    table = rows.pairs_to_table(
        [pair("1", image), pair("2", image)],
        iteration=1,
        policy="tiny/00",
    )
    if embed_images:
        table = with_images(table)
    write_table(tmp_path / "pairs" / "00000.parquet", table)
    if embed_images:
        (tmp_path / "a.png").unlink()
    loaded = load_dataset(
        "parquet",
        data_files=str(tmp_path / "pairs" / "*.parquet"),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert len(loaded) == 2
    (picture,) = loaded[0]["images"]
    assert isinstance(picture, Image.Image)
    assert picture.size == (6, 4)
    assert picture.getpixel((0, 0)) == (255, 0, 0)
    assert loaded[1]["chosen"] == [{"role": "assistant", "content": "A red circle."}]
    assert loaded[1]["chosen_breakdown"] == [{"name": "likelihood", "value": -0.4}]


def test_every_table_opens_in_datasets(tmp_path):
    from datasets import load_dataset

    for name, table in every_table().items():
        write_table(tmp_path / f"{name}.parquet", table)
        loaded = load_dataset(
            "parquet",
            data_files=str(tmp_path / f"{name}.parquet"),
            split="train",
            cache_dir=str(tmp_path / "cache"),
        )
        assert loaded.column_names == table.schema.names
        assert len(loaded) == table.num_rows


def test_every_table_opens_in_duckdb_with_its_units(tmp_path):
    import duckdb

    unit = "json_extract_string(decode(value), '$.' || ? || '.unit')"
    for name, (column, expected) in {
        "prompts": ("position", "count"),
        "nodes": ("sum_logprob", "nats"),
        "responses": ("num_tokens", "tokens"),
        "pairs": ("margin", "reward"),
        "generations": ("token_logprobs", "nats"),
    }.items():
        path = str(tmp_path / f"{name}.parquet")
        write_table(Path(path), every_table()[name])
        found = duckdb.execute(
            f"SELECT {unit} FROM parquet_kv_metadata(?) WHERE decode(key) = 'csr.columns'",
            [column, path],
        ).fetchall()
        assert found == [(expected,)]
        count = duckdb.execute("SELECT count(*) FROM read_parquet(?)", [path]).fetchone()
        assert count == (every_table()[name].num_rows,)
    kept = duckdb.execute(
        "SELECT node_id, breakdown[1].value FROM read_parquet(?) WHERE depth = 2",
        [str(tmp_path / "nodes.parquet")],
    ).fetchall()
    assert kept == [("42/0.0", 27.5)]


def every_table() -> dict[str, object]:
    said = GeneratedResponse(
        prompt_id="42",
        text="Yes.",
        token_ids=(5,),
        token_logprobs=(-0.5,),
        finish_reason=FinishReason.EOS,
    )
    responses = [response("42", 0, "A.", 1.0), response("42", 1, "B.", 0.0)]
    return {
        "prompts": rows.prompts_to_table([prompt("1"), prompt("2")]),
        "nodes": trees.trees_to_table([tree()], iteration=1),
        "responses": rows.responses_to_table(responses, iteration=1, policy="tiny/00"),
        "pairs": rows.pairs_to_table([pair()], iteration=1, policy="tiny/00"),
        "generations": rows.generations_to_table(
            [prompt()], [said], iteration=0, benchmark="pope", policy="tiny/00"
        ),
    }


def test_quarantine_says_what_was_left_out(tmp_path):
    bad = BadRecord(
        position=3,
        prompt_id="7",
        image="no.png",
        reason=SkipReason.UNREADABLE_IMAGE,
        message="it does not exist",
    )
    nameless = dataclasses.replace(bad, position=4, prompt_id=None, image=None)
    table = through_disk(tmp_path, "quarantine", rows.quarantine_to_table([bad, nameless]))
    first, second = table.to_pylist()
    assert (second["prompt_id"], second["image_uri"]) == (None, None)
    assert [first] == [
        {
            "position": 3,
            "prompt_id": "7",
            "image_uri": "no.png",
            "reason": "unreadable_image",
            "message": "it does not exist",
        }
    ]


def test_a_pair_of_two_prompts_is_our_own_mistake():
    wrong = PreferencePair(
        pair_id="x",
        prompt=prompt("1"),
        chosen=response("1", 0, "A.", 1.0),
        rejected=response("2", 0, "B.", 0.0),
        margin=1.0,
        source="csr",
    )
    with pytest.raises(AssertionError):
        rows.pairs_to_table([wrong], iteration=1, policy="p")
