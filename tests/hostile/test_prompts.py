"""Hostile and unusual prompt files."""

import json
from pathlib import Path

import pytest

from csr.errors import DataError
from csr.prompts import LoadedPrompts, load_prompts
from storage.rows import pairs_from_table, prompts_from_table, quarantine_to_table
from storage.run_store import RunStore
from storage.tables import read_table, write_table
from tests.hostile.cases import Case, Fine, Quarantined, Refused
from tests.hostile.inputs import Inputs, bad_share, names
from tests.hostile.prompt_cases import FILES, GOOD, RECORDS, TEXTS
from tests.scripted_run import Csr

LAST = json.dumps(GOOD | {"id": "last"}).encode()


def load(inputs: Inputs, data: bytes, **options: object) -> LoadedPrompts:
    inputs.prompt_file.write_bytes(data)
    return load_prompts(inputs.prompt_file, inputs.images, **options)  # type: ignore[arg-type]


def between_good_ones(line: bytes) -> bytes:
    return b"\n".join([json.dumps(GOOD).encode(), line, LAST])


@pytest.mark.parametrize("case", RECORDS.cases(), ids=names)
def test_a_bad_record_is_one_error_or_one_row(case: Case, inputs: Inputs, tmp_path: Path) -> None:
    data = between_good_ones(case.build())
    with pytest.raises(DataError) as caught:
        load(inputs, data)
    message = str(caught.value)
    assert case.verdict.words in message
    assert "line 2" in message
    assert message.isprintable()
    assert len(message) < 1000

    loaded = load(inputs, data, on_bad_record="skip", max_bad_share=0.4)
    assert [prompt.prompt_id for prompt in loaded.prompts] == ["good", "last"]
    (bad,) = loaded.bad_records
    assert (bad.position, bad.reason) == (2, case.verdict.reason)
    assert bad.message == message
    write_table(tmp_path / "quarantine.parquet", quarantine_to_table(loaded.bad_records))


@pytest.mark.parametrize("case", FILES.cases(Refused), ids=names)
def test_a_bad_file_is_one_error_whatever_is_left_out(case: Case, inputs: Inputs) -> None:
    for options in ({}, {"on_bad_record": "skip", "max_bad_share": 1.0}):
        with pytest.raises(DataError) as caught:
            load(inputs, case.build(), **options)
        assert case.verdict.words in str(caught.value)
        assert str(inputs.prompt_file) in str(caught.value)


@pytest.mark.parametrize("case", FILES.cases(Fine), ids=names)
def test_an_unusual_file_is_read_right(case: Case, inputs: Inputs) -> None:
    loaded = load(inputs, case.build())
    assert tuple(prompt.prompt_id for prompt in loaded.prompts) == case.verdict.expected


@pytest.mark.parametrize("case", [*RECORDS.cases(), *FILES.cases(Refused)][::7], ids=names)
def test_the_command_stops_at_what_is_bad(csr: Csr, case: Case, inputs: Inputs) -> None:
    inputs.prompt_file.write_bytes(case.build() + b"\n" + b"\n".join([LAST, LAST]))
    inputs.check_refused(csr, "train.jsonl")


def test_a_run_goes_on_without_the_bad_records(csr: Csr, inputs: Inputs) -> None:
    """Every bad record of the corpus in one file: records = prompts + quarantine."""
    lines = [json.dumps(GOOD).encode(), *(case.build() for case in RECORDS.cases())]
    inputs.prompt_file.write_bytes(inputs.prompt_file.read_bytes() + b"\n".join(lines))
    refused = csr(*inputs.command, *bad_share(0.5))
    assert refused.status == 2
    total = inputs.num_good + len(lines)
    assert f"{len(RECORDS)} of {total} records cannot be used" in refused.err
    assert not inputs.home.exists()

    answer = csr(*inputs.command, *bad_share(1.0), "--json")
    assert answer.status == 0, answer.err
    reasons = [case.verdict.reason.value for case in RECORDS.cases(Quarantined)]
    expected = {reason: reasons.count(reason) for reason in reasons}
    assert answer.json()["prompts"] == {"used": inputs.num_good + 1, "skipped": expected}
    rows = read_table(RunStore(inputs.home).quarantine_path("run"), "quarantine").to_pylist()
    assert len(rows) == len(RECORDS)
    assert f"{len(RECORDS)} records left out" in answer.err


def test_what_the_policy_cannot_be_asked_is_known_before_the_run(csr: Csr, inputs: Inputs) -> None:
    """Not when its shard is sampled, hours later."""
    long = {"id": "long", "image": "1.png", "input": "word " * 50}
    inputs.prompts(long)
    tight = ("--set", "sampler.max_context_tokens=40")
    inputs.check_refused(csr, "(id 'long'): it takes 51 tokens, which leaves no room", *tight)
    answer = csr(*inputs.command, *tight, *bad_share(0.5), "--json")
    assert answer.status == 0, answer.err
    expected = {"used": inputs.num_good, "skipped": {"prompt_too_long": 1}}
    assert answer.json()["prompts"] == expected


def test_every_script_survives_the_whole_run(csr: Csr, inputs: Inputs) -> None:
    texts = {f"{name} {text[:9]}".strip(): text for name, text in TEXTS.items()}
    records = [
        {"id": name, "image": f"{number % 12}.png", "input": text, "reference": text}
        for number, (name, text) in enumerate(texts.items())
    ]
    inputs.prompt_file.write_text("")
    inputs.prompts(*records)
    heldout = [record | {"image": "100.png", "reference": None} for record in records]
    (inputs.folder / "heldout.jsonl").write_text("\n".join(map(json.dumps, heldout)))
    answer = csr(*inputs.command, "--set", "source.max_steps=6", "--json")
    assert answer.status == 0, answer.err

    store = RunStore(inputs.home)
    prompts = prompts_from_table(read_table(store.prompts_path("run"), "prompts"))
    assert {prompt.prompt_id: prompt.text for prompt in prompts} == texts
    assert {prompt.prompt_id: prompt.reference for prompt in prompts} == texts
    attempt = store.attempt("run", 1)
    pairs = read_table(attempt.pairs, "pairs")
    assert {row["prompt_id"]: row["prompt"][0]["content"] for row in pairs.to_pylist()} == texts
    assert {pair.prompt.prompt_id: pair.prompt.text for pair in pairs_from_table(pairs)} == texts
    nodes = read_table(attempt.nodes, "nodes").to_pylist()
    assert {row["prompt_id"] for row in nodes} == set(texts)
    asked = read_table(attempt.evaluation / "captions.parquet", "generations").to_pylist()
    assert {row["prompt_id"]: row["prompt_text"] for row in asked} == texts

    page = Path(answer.json()["report"]).read_text(encoding="utf-8")
    assert TEXTS["markup"] not in page
    for name, text in texts.items():
        shape = csr("trace", "run", name, "--home", inputs.home, "--json").json()
        assert shape["prompt"]["text"] == text
        assert csr("trace", "run", name, "--home", inputs.home).status == 0
    for command in (("ls", "run"), ("show", "run/01"), ("report", "run"), ("verify", "run")):
        assert csr(*command, "--home", inputs.home).status == 0
