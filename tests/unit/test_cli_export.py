"""`csr export` on a finished run of scripted components: what is written, and what is refused."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard, ModelCard, constants

from storage.critique import demonstrations_to_table
from storage.manifest import StageRecord
from storage.rows import pairs_from_table
from storage.run_store import RunStore
from storage.tables import read_table, shard_path, write_table
from tests.export_samples import demonstration
from tests.fake_hub import FakeHub
from tests.sample_data import saved_image
from tests.scripted_run import Answer, Csr, files_below, finished_home

RUN = "mine"
FORMATS = ("trl", "llama-factory", "ms-swift", "llava")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a finished run, never changed."""
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as monkeypatch:
        return finished_home(Csr(monkeypatch, _Silent()), folder, RUN)  # type: ignore[arg-type]


@pytest.fixture
def home(finished: Path, tmp_path: Path) -> Path:
    """A copy of it to do harm to."""
    return Path(shutil.copytree(finished, tmp_path / "home"))


class _Silent:
    def readouterr(self) -> Any:
        return Answer(0, "", "")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in files_below(folder)}


def refused(csr: Csr, home: Path, *arguments: object) -> str:
    """What a mistake is told; it leaves nothing behind."""
    parent = home.parent
    before = sorted(os.listdir(parent))
    answer = csr("export", *arguments, "--home", home)
    assert answer.status == 2, answer
    assert "Traceback" not in answer.err
    assert answer.out == ""
    assert sorted(os.listdir(parent)) == before
    return " ".join(answer.err.split())


@pytest.mark.parametrize("name", FORMATS)
def test_pairs_are_written_with_a_card_that_the_hub_reads(
    csr: Csr, finished: Path, tmp_path: Path, name: str
) -> None:
    output = tmp_path / "out"
    before = contents(finished / RUN)
    answer = csr(
        "export", f"{RUN}/02", "--format", name, "--output", output, "--home", finished, "--json"
    )
    pairs = pairs_from_table(read_table(RunStore(finished).attempt(RUN, 2).pairs, "pairs"))
    assert answer.json() == {
        "exported": str(output), "format": name, "iteration_id": f"{RUN}/02.1",
        "counts": {"pairs": len(pairs), "images": len({p.prompt.image.sha256 for p in pairs})},
        "left_out": {}, "warnings": [], "pushed": None,
    }  # fmt: skip
    assert answer.err == ""
    assert contents(finished / RUN) == before

    card = DatasetCard.load(output / "README.md")
    facts = card.data.to_dict()
    assert (facts["license"], facts["size_categories"]) == ("unknown", "n<1K")
    assert {"csr", "dpo", name} <= set(facts["tags"])
    for said in (
        f"Preference pairs of {RUN}/02.1", f"| pairs | {len(pairs)} |", "prompts of the iteration",
        f"`{RUN}/01.1`, weights sha256", '"image_weight"', "Unknown: CSR knows the licence of",
    ):  # fmt: skip
        assert said in card.text, said
    assert str(tmp_path) not in card.text
    assert str(finished) not in card.text

    rows = load_dataset(str(output), split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(rows["pair_id"]) == sorted(pair.pair_id for pair in pairs)
    record = json.loads((output / "csr_export.json").read_text())
    assert record["files_sha256"].keys() == contents(output).keys() - {"csr_export.json"}


def test_the_same_export_is_the_same_bytes(csr: Csr, finished: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        output = tmp_path / name
        csr("export", f"{RUN}/01", "--format", "llava", "--output", output, "--home", finished)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_demonstrations_are_exported_with_what_they_teach(
    csr: Csr, home: Path, tmp_path: Path
) -> None:
    attempt = RunStore(home).attempt(RUN, 1)
    shutil.rmtree(attempt.pairs)
    image = saved_image(tmp_path / "a.png")
    shown = [replace(demonstration(image), demonstration_id=str(n)) for n in range(3)]
    table = demonstrations_to_table(shown, iteration=1)
    write_table(shard_path(attempt.demonstrations, 0), table)
    record = attempt.manifest.read().stage("pair")
    assert record is not None
    attempt.manifest.record(record.model_copy(update={"files": ()}), [attempt.demonstrations])
    output = tmp_path / "out"
    answer = csr("export", f"{RUN}/01", "--format", "ms-swift", "--output", output, "--home", home)
    assert "mine/01.1 as ms-swift: 3 demonstrations, 1 images" in answer.out
    text = (output / "README.md").read_text()
    for said in (
        "# Demonstrations of mine/01.1", "| demonstrations of kind `rationale` | 3 |", "- sft",
        "swift sft --dataset PATH/demonstrations.jsonl", "Demonstrations have weights",
    ):  # fmt: skip
        assert said in text, said


def test_the_merged_model_is_the_policys_files_with_a_card(
    csr: Csr, finished: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    model = finished / RUN / "iterations/02/attempts/1/policy/model"
    answer = csr("export", f"{RUN}/02", "--format", "model", "--output", output, "--home", finished)
    assert answer.status == 0, answer.err
    written = contents(output)
    assert written.keys() == contents(model).keys() | {"README.md", "csr_export.json"}
    assert written.items() >= contents(model).items()
    card = ModelCard.load(output / "README.md")
    facts = card.data
    assert (facts.library_name, facts.license) == ("transformers", "unknown")
    assert facts.base_model is None
    assert facts.pipeline_tag == "image-text-to-text"
    metrics = RunStore(finished).attempt(RUN, 2).manifest.read().metrics
    indexed = {each.metric_type: each.metric_value for each in facts.eval_results}
    assert indexed == {
        name: metrics[name] for name in ("mean_response_sentences", "mean_response_tokens")
    }
    for said in (
        f"| `{RUN}/01.1` | `base` |", f"| `{RUN}/02.1` | `{RUN}/01.1` |", "at most, tokens",
        "| captions | 3 | 40 | greedy | `Describe the image.` |", "the recipe switches them off",
        "## Intended use and limits", "| `csr` |", "which says nothing about another training seed",
    ):  # fmt: skip
        assert said in card.text, said
    assert str(tmp_path.parent) not in card.text


def test_a_base_of_the_hub_is_named_in_the_card(csr: Csr, finished: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    csr("export", f"{RUN}/01", "--format", "model", "--output", output, "--home", finished,
        "--base-model", "llava-hf/llava-1.5-7b-hf")  # fmt: skip
    facts = ModelCard.load(output / "README.md").data.to_dict()
    assert facts["base_model"] == "llava-hf/llava-1.5-7b-hf"
    assert facts["base_model_relation"] == "finetune"


def test_whatever_does_not_stand_is_said_first(csr: Csr, home: Path, tmp_path: Path) -> None:
    store = RunStore(home)
    verdict = {"gate": "recall_drop", "value": 0.2, "limit": 0.05, "tripped": True,
               "message": "Less | is\nsaid."}  # fmt: skip
    attempt = store.attempt(RUN, 2)
    gates = attempt.evaluation / "gates.json"
    gates.write_text(json.dumps({"gates": [verdict]}))
    record = attempt.manifest.read().stage("gate")
    assert record is not None
    attempt.manifest.record(record.model_copy(update={"files": ()}), [gates])
    attempt.manifest.update(status="held")
    other = store.new_attempt(RUN, 1, policy_in=store.attempt(RUN, 1).manifest.read().policy_in)
    policy = store.attempt(RUN, 1).manifest.read().policy_out
    other.manifest.update(status="done", policy_out={**(policy or {}), "sha256": "00"})
    store.set_current(RUN, 1, other.number)
    answer = csr("export", f"{RUN}/02", "--format", "model", "--output", tmp_path / "out",
                 "--home", home)  # fmt: skip
    assert answer.status == 0, answer.err
    text = (tmp_path / "out/README.md").read_text()
    assert "> **A gate holds this iteration: recall_drop is 0.2, past 0.05: Less" in text
    assert "> **This iteration is stale" in text
    assert "1 of 1 gates tripped." in text
    assert "- held-by-gate" in text
    assert "Attention: A gate holds this iteration" in answer.out
    other_one = csr("export", f"{RUN}/01.1", "--format", "llava", "--output", tmp_path / "b",
                    "--home", home, "--json").json()  # fmt: skip
    assert other_one["warnings"] == ["Another attempt of this iteration, 2, is the current one."]


def test_settings_cannot_change_a_cards_metadata(csr: Csr, home: Path, tmp_path: Path) -> None:
    hostile = "x\n---\nlicense: mit\n---\n```\n# Title\n| a |"
    attempt = RunStore(home).attempt(RUN, 1)
    config = attempt.manifest.read().config
    attempt.manifest.update(config=config | {"reward": {"x": hostile, hostile: "/etc/secret/a"}})
    for number, name in enumerate(("trl", "model")):
        output = tmp_path / str(number)
        order = ("export", f"{RUN}/01", "--format", name, "--output", output, "--home", home)
        assert csr(*order).status == 0
        card = (DatasetCard if name == "trl" else ModelCard).load(output / "README.md")
        assert card.data.license == "unknown"
        block = [line for line in card.text.splitlines() if "license: mit" in line]
        assert block
        assert all(line.startswith("    ") for line in block)
        assert "/etc/secret" not in card.text


def test_what_cannot_be_exported_is_refused_in_one_message(csr: Csr, home: Path) -> None:
    out = home.parent / "out"

    def told(*arguments: object) -> str:
        return refused(csr, home, *arguments)

    trl = ("--format", "trl", "--output", out)
    model = ("--format", "model", "--output", out)
    assert "evaluation of the base model" in told(f"{RUN}/00", *trl)
    assert "there is no mine/09" in told(f"{RUN}/09", *trl)
    assert "lies in" in told(f"{RUN}/01", "--format", "trl", "--output", home / RUN / "x")
    assert "which the export reads" in told(f"{RUN}/01", "--format", "trl", "--output", home)
    assert "is a file" in told(f"{RUN}/01", "--format", "trl", "--output", __file__)
    assert "--what says nothing about" in told(f"{RUN}/01", *trl, "--what", "adapter")
    assert "--images says nothing" in told(f"{RUN}/01", *model, "--images", "copy")
    assert "no plain LoRA adapter ({'peft_type': 'SCRIPTED'})" in told(
        f"{RUN}/01", *model, "--what", "adapter"
    )
    assert "names no repository" in told(f"{RUN}/01", *model, "--push", "a b/c")
    assert "has no owner" in told(f"{RUN}/01", *model, "--push", "c")
    assert "nothing is pushed" in told(f"{RUN}/01", *model, "--private")
    assert "where a hub has none" in told(f"{RUN}/01", *trl, "--push", "a/b", "--images", "link")
    assert "HF_HUB_OFFLINE is set" in told(f"{RUN}/01", *trl, "--push", "a/b")


def test_a_half_finished_or_damaged_iteration_is_refused(csr: Csr, home: Path) -> None:
    out = home.parent / "out"
    attempt = RunStore(home).attempt(RUN, 2)
    attempt.manifest.update(status="suspended")
    model = (f"{RUN}/02", "--format", "model", "--output", out)
    assert "is half finished (suspended)" in refused(csr, home, *model)
    attempt.manifest.update(status="done")
    record = attempt.manifest.read().stage("pair")
    assert record is not None
    attempt.manifest.record(StageRecord(**{**record.model_dump(), "status": "failed"}))
    trl = (f"{RUN}/02", "--format", "trl", "--output", out)
    assert "its stage 'pair' is failed" in refused(csr, home, *trl)
    attempt.manifest.record(record)
    weights = attempt.policy / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "csr verify mine" in refused(csr, home, *model)
    pairs = attempt.pairs / "00000.parquet"
    pairs.write_bytes(b"x" * pairs.stat().st_size)
    assert "changed after it was written" in refused(csr, home, *trl)


def test_only_an_export_is_ever_overwritten(csr: Csr, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    order = ("export", f"{RUN}/01", "--format", "llava", "--output", out, "--home", finished)
    out.mkdir()
    assert csr(*order).status == 0  # an empty folder may be there
    (out / "images/mine.txt").write_text("added")
    assert "is not empty" in csr(*order).err
    assert csr(*order, "--overwrite").status == 0
    assert not (out / "images/mine.txt").exists()
    (out / "csr_export.json").unlink()
    answer = csr(*order, "--overwrite")
    assert answer.status == 2
    assert "holds something else than an export" in answer.err
    assert (out / "pairs.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_export_that_fails_leaves_the_old_one(csr: Csr, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    order = ("export", f"{RUN}/01", "--format", "llava", "--output", out, "--home", home)
    assert csr(*order).status == 0
    before = contents(out)
    pair = pairs_from_table(read_table(RunStore(home).attempt(RUN, 1).pairs, "pairs"))[-1]
    uri = Path(pair.prompt.image.uri)
    original = uri.read_bytes()
    try:
        uri.write_bytes(b"another")
        answer = csr(*order, "--overwrite")
    finally:
        uri.write_bytes(original)
    assert answer.status == 2
    assert "changed since the run began" in answer.err
    assert contents(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out"]


def test_an_export_is_pushed_when_it_is_complete(
    csr: Csr, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = FakeHub(tmp_path / "hub")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_secret")
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: api)
    out = tmp_path / "out"
    order = ("export", f"{RUN}/01", "--format", "llama-factory", "--output", out,
             "--home", finished, "--push", "me/pairs", "--private")  # fmt: skip
    answer = csr(*order)
    assert answer.status == 0, answer.err
    assert "Hub: https://hub.example/datasets/me/pairs" in answer.out
    there = tmp_path / "hub/dataset/me/pairs"
    assert contents(out) == {k: v for k, v in contents(there).items() if k != ".gitattributes"}
    assert "hf_secret" not in answer.out + answer.err + str(api.calls) + str(contents(out))
    assert load_dataset(str(there), split="train", cache_dir=str(tmp_path / "c")).num_rows > 0
    shutil.rmtree(out)
    assert "holds an export already" in csr(*order).err
    assert not out.exists()
    assert csr(*order, "--overwrite").status == 0
    assert len(api.calls) == 4
