"""Whole scripted runs through store and command: what is kept, repeated, refused."""

import functools
import importlib.metadata
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from csr.errors import NumericalError
from csr.samplers.scripted import ScriptedSampler
from csr.trainers.scripted import ScriptedTrainer
from csr.types import PolicyRef
from flows.context import open_attempt
from flows.iteration import do_stage
from rewards.similarity.scripted import ScriptedSimilarity
from storage.manifest import IterationManifest
from storage.rows import pairs_from_table
from storage.run_store import RunStore
from storage.tables import content_sha256, read_table
from tests.scripted_run import Csr, write_image, write_prompts, write_recipe

RUN = "mine"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "data")


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "home")


def command(recipe: Path, store: RunStore, *more: object) -> tuple[object, ...]:
    return ("run", recipe, "--home", store.home, "--run-id", RUN, *more)


def manifest(store: RunStore, iteration: int) -> IterationManifest:
    return store.attempt(RUN, iteration).manifest.read()


def times(store: RunStore) -> dict[tuple[int, str, int], str]:
    """(iteration, stage, shard) -> when it was finished."""
    return {
        (number, stage.stage, stage.shard): stage.finished_at
        for number in store.iterations(RUN)
        for stage in manifest(store, number).stages
        if stage.status == "done"
    }


def contents(store: RunStore) -> dict[str, Any]:
    """Digests of all that the run made, times left out."""
    made: dict[str, Any] = {}
    for number in store.iterations(RUN):
        attempt = store.attempt(RUN, number)
        made[f"{number} metrics"] = attempt.manifest.read().metrics
        policy = attempt.manifest.read().policy_out
        made[f"{number} policy"] = policy and policy["sha256"]
        if number > 0:
            for table in ("nodes", "responses", "pairs"):
                made[f"{number} {table}"] = content_sha256(attempt.path / table, table)
    return made


def once(
    monkeypatch: pytest.MonkeyPatch, owner: type, method: str, call: int, act: Callable[[], None]
) -> None:
    """Let the `call`-th call of a method (from 1) do `act` first; all others are as they were."""
    original, calls = getattr(owner, method), []

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            act()
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, method, wrapped)


def raise_(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def test_a_run_does_every_stage_of_every_iteration(csr: Csr, recipe: Path, store: RunStore) -> None:
    assert csr(*command(recipe, store)).status == 0
    stages = [(s.stage, s.shard) for s in manifest(store, 2).stages]
    shards = [("sample", 0), ("sample", 1), ("sample", 2)]
    assert stages == [
        ("measure", 0),
        *shards,
        ("pair", 0),
        ("train", 0),
        ("evaluate", 0),
        ("gate", 0),
    ]
    assert [s.stage for s in manifest(store, 0).stages] == ["evaluate", "gate"]
    assert manifest(store, 2).policy_in == manifest(store, 1).policy_out
    assert manifest(store, 1).policy_in == manifest(store, 0).policy_out
    weights = [manifest(store, n).policy_out["sha256"] for n in range(3)]
    assert len(set(weights)) == 3
    assert [manifest(store, n).status for n in range(3)] == ["done"] * 3
    assert store.run(RUN).status == "done"
    pairing = manifest(store, 1).stage("pair")
    figures = pairing.metrics
    assert figures["num_prompts"] == 6
    assert figures["num_pairs"] + sum(pairing.skipped.values()) == 6


def test_the_same_recipe_makes_the_same_in_any_shards(
    csr: Csr, recipe: Path, store: RunStore, tmp_path: Path
) -> None:
    assert csr(*command(recipe, store)).status == 0
    other = RunStore(tmp_path / "other")
    assert csr(*command(recipe, other, "--set", "shard_size=6")).status == 0
    assert [s.shard for s in manifest(other, 1).stages if s.stage == "sample"] == [0]
    assert contents(other) == contents(store)
    seeded = RunStore(tmp_path / "seeded")
    assert csr(*command(recipe, seeded, "--set", "seed=1")).status == 0
    assert contents(seeded)["1 nodes"] != contents(store)["1 nodes"]


@pytest.mark.parametrize(
    ("stage", "shard", "sizes"),
    [
        ("measure", (), {8}),  # of 16 captions
        ("sample", (1,), {1}),  # of 2 prompts
        ("evaluate", (), {1}),  # of batches of 2 questions
    ],
)
def test_two_waves_ask_half_at_once_and_make_the_same(
    csr: Csr,
    recipe: Path,
    store: RunStore,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    shard: tuple[int, ...],
    sizes: set[int],
) -> None:
    csr(*command(recipe, store, "--set", "num_iterations=1"))
    once = contents(store)
    context = open_attempt(str(store.home), f"{RUN}/01.1")
    record = manifest(store, 1).stage(stage, *shard)
    assert record is not None
    context.attempt.manifest.record(record.model_copy(update={"status": "failed", "files": ()}))
    asked = set()
    for name in ("sample_steps", "generate"):

        def noted(self: Any, requests: Any, settings: Any, call: Any = None) -> Any:
            if not requests[0].prefix:
                many = requests if stage == "measure" else {r.prompt.prompt_id for r in requests}
                asked.add(len(many))
            return call(self, requests, settings)

        call = getattr(ScriptedSampler, name)
        monkeypatch.setattr(ScriptedSampler, name, functools.partialmethod(noted, call=call))
    do_stage(context, stage, *shard, num_waves=2)
    assert asked == sizes
    assert contents(store) == once


def test_a_finished_run_builds_nothing(
    csr: Csr, recipe: Path, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert csr(*command(recipe, store)).status == 0
    before = times(store)
    for module in ("csr.samplers", "csr.trainers", "rewards.similarity"):
        monkeypatch.setattr(f"{module}.scripted.build", raise_(AssertionError("built")))
    monkeypatch.setattr("flows.checks.read_records", raise_(AssertionError("read again")))
    answer = csr(*command(recipe, store))
    assert answer.status == 0
    assert "finished already, nothing to do" in answer.err
    assert times(store) == before


SAMPLING = (ScriptedSampler, "sample_steps", 16)  # in shard 1 of 3
TRAINING = (ScriptedTrainer, "train", 1)
PROBING = (ScriptedTrainer, "score", 2)
BASE = {(0, "evaluate", 0), (0, "gate", 0)}
SAMPLED = {(1, "sample", shard) for shard in range(3)}


@pytest.mark.parametrize(
    ("place", "error", "kept"),
    [
        (
            SAMPLING,
            KeyboardInterrupt(),
            {*BASE, (1, "measure", 0), (1, "sample", 0)},
        ),
        (TRAINING, KeyboardInterrupt(), {*SAMPLED, (1, "pair", 0)}),
        (TRAINING, NumericalError("loss is nan"), {*SAMPLED, (1, "pair", 0)}),
        (PROBING, KeyboardInterrupt(), {*SAMPLED, (1, "train", 0), (2, "pair", 0)}),
    ],
)
def test_an_interrupted_run_goes_on_where_it_stopped(
    csr: Csr,
    recipe: Path,
    store: RunStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: tuple[type, str, int],
    error: BaseException,
    kept: set[tuple[int, str, int]],
) -> None:
    with monkeypatch.context() as patch:
        once(patch, *place, raise_(error))
        answer = csr(*command(recipe, store))
    if isinstance(error, KeyboardInterrupt):
        status, code, message = "suspended", 130, "Interrupted. The same command resumes the run."
    else:
        status, code, message = "failed", 1, f"failed: run {RUN}: loss is nan"
    assert answer.status == code
    assert answer.err.strip().splitlines()[-1] == message
    assert store.run(RUN).status == status
    assert manifest(store, store.iterations(RUN)[-1]).status == status
    assert not store.is_locked(RUN)
    before = times(store)
    assert kept <= before.keys()

    assert csr(*command(recipe, store)).status == 0
    after = times(store)
    assert {key: after[key] for key in before} == before
    assert len(after) > len(before)
    assert store.run(RUN).status == "done"
    undisturbed = RunStore(tmp_path / "undisturbed")
    assert csr(*command(recipe, undisturbed)).status == 0
    assert contents(store) == contents(undisturbed)


def test_an_interrupted_training_finds_its_checkpoints_and_a_finished_one_leaves_none(
    csr: Csr, recipe: Path, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, found = ScriptedTrainer.train, []

    def checkpointing(self: ScriptedTrainer, *, checkpoint_dir: Path, **job: Any) -> Any:
        found.append(sorted(path.name for path in checkpoint_dir.glob("*")))
        checkpoint_dir.mkdir(parents=True, exist_ok=True)
        (checkpoint_dir / f"step-{len(found)}").touch()
        if len(found) == 1:
            raise KeyboardInterrupt
        return original(self, **job)

    monkeypatch.setattr(ScriptedTrainer, "train", checkpointing)
    assert csr(*command(recipe, store)).status == 130
    assert csr(*command(recipe, store)).status == 0
    assert found == [[], ["step-1"], []]  # the last is the second iteration's
    assert not list(store.home.rglob("step-*"))
    assert not store.attempt(RUN, 1).checkpoints.exists()


def test_a_failed_stage_leaves_the_policy_and_starts_no_iteration(
    csr: Csr, recipe: Path, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ScriptedSimilarity.image_text
    asked = []

    def sick(self: ScriptedSimilarity, images: Any, texts: Any) -> list[float]:
        asked.append(1)
        values = original(self, images, texts)
        sick_now = len(store.iterations(RUN)) == 3  # iterations 0, 1 and 2 have begun
        return [float("nan"), *values[1:]] if sick_now and values else values

    monkeypatch.setattr(ScriptedSimilarity, "image_text", sick)
    answer = csr(*command(recipe, store, "--set", "num_iterations=3"))
    assert answer.status == 1
    assert "image_similarity of the step" in answer.err.splitlines()[-1]
    assert asked
    second = manifest(store, 2)
    assert second.policy_out is None
    assert second.status == "failed"
    failed = second.stage("measure")
    assert failed.status == "failed"
    assert failed.message.startswith("NumericalError: The image_similarity")
    page = (store.run_path(RUN) / "report.html").read_text()
    assert f"<bdi>{RUN}/02.1</bdi> failed in the stage measure: NumericalError: The image" in page
    assert manifest(store, 1).policy_out["iteration"] == 1
    assert store.iterations(RUN) == [0, 1, 2]


def test_every_stage_records_the_versions_it_ran_with(
    csr: Csr, recipe: Path, store: RunStore
) -> None:
    assert csr(*command(recipe, store)).status == 0
    stages = manifest(store, 1).stages
    assert {stage.packages["trl"] for stage in stages} == {importlib.metadata.version("trl")}
    assert {"torch", "transformers", "prefect", "pyarrow"} <= stages[0].packages.keys()


def test_a_metric_that_is_not_finite_stops_training(
    csr: Csr, recipe: Path, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ScriptedTrainer.train

    def diverged(self: ScriptedTrainer, **job: Any) -> Any:
        result = original(self, **job)
        result.metrics["loss"] = float("nan")
        return result

    monkeypatch.setattr(ScriptedTrainer, "train", diverged)
    answer = csr(*command(recipe, store))
    assert answer.status == 1
    assert "Training ended with {'loss': nan}" in answer.err
    assert manifest(store, 1).policy_out is None
    assert not store.attempt(RUN, 1).policy.exists()
    assert [p.name for p in store.attempt(RUN, 1).path.glob(".policy*")] == []


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("trainer.learning_rate=0", "training changed nothing"),
        ("trainer.spread=1.5", "The sampler and the trainer disagree"),
    ],
)
def test_the_probe_refuses_a_policy_that_did_not_arrive(
    csr: Csr, recipe: Path, store: RunStore, setting: str, message: str
) -> None:
    text = recipe.read_text().replace("trainer: scripted", "trainer: {name: scripted}")
    recipe.write_text(text)
    answer = csr(*command(recipe, store, "--set", setting))
    assert answer.status == 1
    assert message in answer.err
    assert manifest(store, 1).policy_out is None
    assert store.iterations(RUN) == [0, 1]


def test_the_probe_refuses_old_weights_that_differ_by_rounding_alone(
    csr: Csr, recipe: Path, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loose tolerance, as bf16 needs, would let them pass."""
    load, score, calls = ScriptedSampler.load_policy, ScriptedSampler.score, itertools.count()

    def load_once(self: ScriptedSampler, policy: PolicyRef) -> None:
        if self._policy is None:
            load(self, policy)

    def score_roughly(self: ScriptedSampler, *args: Any) -> list[tuple[float, ...]]:
        noise = 1e-3 * next(calls)
        return [tuple(value + noise for value in row) for row in score(self, *args)]

    monkeypatch.setattr(ScriptedSampler, "load_policy", load_once)
    monkeypatch.setattr(ScriptedSampler, "score", score_roughly)
    answer = csr(*command(recipe, store, "--set", "probe_tolerance=99"))
    assert answer.status == 1
    assert "the new weights did not reach it whole" in answer.err
    assert manifest(store, 1).policy_out is None


def test_a_log_probability_that_is_not_finite_is_refused_by_the_probe(
    csr: Csr, recipe: Path, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ScriptedTrainer.score

    def sick(self: ScriptedTrainer, *args: Any) -> list[tuple[float, ...]]:
        return [(*row[:-1], float("nan")) for row in original(self, *args)]

    monkeypatch.setattr(ScriptedTrainer, "score", sick)
    answer = csr(*command(recipe, store))
    assert answer.status == 1
    assert "disagree on the new policy by nan" in answer.err


def test_only_what_depends_on_a_changed_file_is_done_again(
    csr: Csr, recipe: Path, store: RunStore
) -> None:
    assert csr(*command(recipe, store)).status == 0
    before = times(store)
    write_prompts(recipe.parent / "heldout.jsonl", range(100, 102))
    assert csr(*command(recipe, store)).status == 0
    again = {key for key, time in times(store).items() if before[key] != time}
    assert again == {(n, stage, 0) for n in range(3) for stage in ("evaluate", "gate")}
    assert manifest(store, 2).metrics["num_captions"] == 2


def test_another_held_out_image_under_the_same_name_is_evaluated(
    csr: Csr, recipe: Path, store: RunStore
) -> None:
    assert csr(*command(recipe, store)).status == 0
    before = times(store)
    write_image(recipe.parent / "images/100.png", 500)
    assert csr(*command(recipe, store)).status == 0
    again = {key for key, time in times(store).items() if before[key] != time}
    assert again == {(n, stage, 0) for n in range(3) for stage in ("evaluate", "gate")}


def test_a_damaged_table_is_made_again_and_nothing_after_it_as_it_is_the_same(
    csr: Csr, recipe: Path, store: RunStore
) -> None:
    assert csr(*command(recipe, store)).status == 0
    before, made = times(store), contents(store)
    shard = store.attempt(RUN, 1).nodes / "00001.parquet"
    shard.write_bytes(b"x" + shard.read_bytes()[1:])
    assert csr(*command(recipe, store)).status == 0
    again = {key for key, time in times(store).items() if before[key] != time}
    assert again == {(1, "sample", 1)}
    assert contents(store) == made
    assert store.run(RUN).status == "done"


def test_weights_that_changed_since_are_refused(
    csr: Csr, recipe: Path, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        once(patch, *TRAINING, raise_(KeyboardInterrupt()))
        csr(*command(recipe, store))
    other = {"weight": np.ones(4, np.float32)}
    save_file(other, recipe.parent / "policy/model.safetensors")
    answer = csr(*command(recipe, store))
    assert answer.status == 1
    assert "The weights of the policy base" in answer.err


def test_a_recipe_that_yields_no_pair_says_so(csr: Csr, recipe: Path, store: RunStore) -> None:
    answer = csr(*command(recipe, store, "--set", "source.pair_filter={min_margin: 1000}"))
    assert answer.status == 1
    assert "No prompt yielded a preference pair" in answer.err
    assert '"small_margin"' in answer.err
    assert not store.attempt(RUN, 1).policy.exists()


def test_the_literal_calibration_needs_no_measuring(
    csr: Csr, recipe: Path, store: RunStore
) -> None:
    answer = csr(*command(recipe, store, "--set", "source.preset=paper"))
    assert answer.status == 0, answer.err
    assert manifest(store, 1).stage("measure") is None


def test_what_is_stored_names_the_source_not_the_recipe(
    csr: Csr, recipe: Path, store: RunStore
) -> None:
    assert csr(*command(recipe, store)).status == 0
    [*pairs] = pairs_from_table(read_table(store.attempt(RUN, 1).pairs, "pairs"))
    assert {pair.chosen.origin for pair in pairs} == {"csr"}
    assert {pair.source for pair in pairs} == {"csr"}


def test_a_log_line_stands_once_and_whole(csr: Csr, recipe: Path, store: RunStore) -> None:
    answer = csr(*command(recipe, store))
    lines = [line for line in answer.err.splitlines() if "train: done" in line]
    assert len(lines) == 2
    assert "probe_largest_error=0" in lines[0]
    assert len(lines[0]) > 80


def test_the_recipe_is_stored_with_every_preset_value(
    csr: Csr, recipe: Path, store: RunStore
) -> None:
    assert csr(*command(recipe, store)).status == 0
    stored = store.run(RUN).config["source"]
    assert stored["num_candidates"] == 4
    assert stored["temperature"] == 1.0
    assert None not in (*stored.values(), *stored["pair_filter"].values())
    assert stored["max_steps"] == 4
    assert json.loads(json.dumps(stored)) == stored
