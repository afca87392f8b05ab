"""Attempts and their manifests under any order of events: create, record, damage, promote."""

import json
import tempfile
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import event
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from csr.errors import DataError
from storage.attempt import AttemptDir
from storage.manifest import StageRecord, fingerprint, utc_now
from storage.run_store import RunStore
from tests.hostile.fuzz import bounded

RUN = "run"
ITERATIONS = (0, 1, 2)
STAGES = ("sample", "pair", "train")
STATUSES = ("running", "suspended", "done", "failed", "held")


class Attempts(RuleBasedStateMachine):
    """The store beside a model of what it must say."""

    attempts = Bundle("attempts")

    @initialize()
    def create(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = RunStore(Path(self.folder.name))
        self.config = {"a": 1}
        self.create_again()
        self.numbers: dict[int, list[int]] = {n: [] for n in ITERATIONS}
        self.current: dict[int, int] = {}
        self.statuses: dict[tuple[int, int], str] = {}
        self.records: dict[tuple[int, int], dict[tuple[str, int], str]] = {}
        self.files: dict[Path, bytes | None] = {}
        """What each file held when it was recorded."""
        self.owners: dict[tuple[int, int, str, int], list[Path]] = {}

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    @rule()
    def create_again(self) -> None:
        record = self.store.create_run(
            RUN, recipe="r", config=self.config, seed=3, code_version="0"
        )
        assert record.config == self.config

    @rule(target=attempts, iteration=st.sampled_from(ITERATIONS))
    def new_attempt(self, iteration: int) -> tuple[int, int]:
        attempt = self.store.new_attempt(RUN, iteration)
        assert attempt.number not in self.numbers[iteration]
        assert attempt.number == len(self.numbers[iteration]) + 1
        self.numbers[iteration].append(attempt.number)
        key = (iteration, attempt.number)
        self.statuses[key], self.records[key] = "running", {}
        return key

    @rule(key=attempts, status=st.sampled_from(STATUSES))
    def update(self, key: tuple[int, int], status: str) -> None:
        self.attempt(key).manifest.update(status=status)
        self.statuses[key] = status

    @rule(
        key=attempts,
        stage=st.sampled_from(STAGES),
        shard=st.integers(0, 2),
        contents=st.lists(st.binary(max_size=8), max_size=2),
        inputs=st.integers(0, 2),
        failed=st.booleans(),
    )
    def record(
        self,
        key: tuple[int, int],
        stage: str,
        shard: int,
        contents: list[bytes],
        inputs: int,
        failed: bool,
    ) -> None:
        attempt = self.attempt(key)
        paths = [attempt.path / stage / f"{shard}-{n}.bin" for n in range(len(contents))]
        for path, data in zip(paths, contents, strict=True):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        mark = fingerprint(inputs=inputs)
        attempt.manifest.record(stage_record(stage, shard, mark, failed), files=paths)
        self.records[key][stage, shard] = "" if failed else mark
        self.owners[(*key, stage, shard)] = paths
        self.files |= dict(zip(paths, contents, strict=True))

    @precondition(lambda self: self.existing_files())
    @rule(data=st.data(), how=st.sampled_from(["change", "cut", "grow", "remove", "mend"]))
    def damage(self, data: st.DataObject, how: str) -> None:
        path = data.draw(st.sampled_from(sorted(self.files)))
        good = self.files[path]
        assert good is not None
        match how:
            case "change":
                path.write_bytes(bytes(byte ^ 1 for byte in good) or b"x")
            case "cut":
                path.write_bytes(good[:-1])
            case "grow":
                path.write_bytes(good + b"\x00")
            case "remove":
                path.unlink(missing_ok=True)
            case "mend":
                path.write_bytes(good)

    @rule(key=attempts)
    def set_current(self, key: tuple[int, int]) -> None:
        self.store.set_current(RUN, *key)
        self.current[key[0]] = key[1]

    @rule(key=attempts, crash_at=st.sampled_from(["write", "replace"]))
    def crash(self, key: tuple[int, int], crash_at: str) -> None:
        """A process that dies while it writes leaves the old manifest."""
        target = {"write": "pathlib.Path.write_text", "replace": "os.replace"}[crash_at]
        with patch(target, side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
            self.attempt(key).manifest.update(status="done", metrics={"a": 1.0})

    @rule()
    def reopen(self) -> None:
        """Another process reads the same."""
        self.store = RunStore(Path(self.folder.name))

    # ------------------------------------------------------------ what always holds

    @invariant()
    def every_attempt_is_there(self) -> None:
        with_any = [n for n in ITERATIONS if self.numbers[n]]
        assert self.store.iterations(RUN) == with_any
        for iteration in ITERATIONS:
            assert self.store.attempts(RUN, iteration) == self.numbers[iteration]
            expected = self.current.get(iteration, 1 if self.numbers[iteration] else None)
            assert self.store.current_attempt(RUN, iteration) == expected
        with pytest.raises(DataError):
            self.store.attempt(RUN, 1, 99)

    @invariant()
    def manifests_say_what_was_told_to_them(self) -> None:
        for key, records in self.records.items():
            manifest = self.attempt(key).manifest.read()
            assert (manifest.iteration, manifest.attempt) == key
            assert manifest.status == self.statuses[key]
            assert manifest.metrics == {}
            places = [(stage.stage, stage.shard) for stage in manifest.stages]
            assert places == list(records), "one record a stage and shard, in the first order"

    @invariant()
    def done_is_what_has_its_fingerprint_and_its_files(self) -> None:
        for key, records in self.records.items():
            manifest = self.attempt(key).manifest
            for (stage, shard), mark in records.items():
                intact = all(self.is_intact(path) for path in self.owners[(*key, stage, shard)])
                for inputs in range(3):
                    asked = fingerprint(inputs=inputs)
                    expected = asked == mark and intact
                    assert manifest.is_done(stage, shard, asked) == expected
                    event("done" if expected else "not done")
            assert not manifest.is_done("evaluate", 0, fingerprint(inputs=0))

    @invariant()
    def every_json_file_is_whole(self) -> None:
        for path in Path(self.folder.name).rglob("*.json"):
            assert isinstance(json.loads(path.read_text()), dict)
        assert list(Path(self.folder.name).rglob("*.tmp")) == []

    # ------------------------------------------------------------ helpers

    def attempt(self, key: tuple[int, int]) -> AttemptDir:
        return self.store.attempt(RUN, *key)

    def existing_files(self) -> bool:
        return bool(self.files)

    def is_intact(self, path: Path) -> bool:
        return path.exists() and path.read_bytes() == self.files[path]


def stage_record(stage: str, shard: int, mark: str, failed: bool) -> StageRecord:
    return StageRecord(
        stage=stage,
        shard=shard,
        status="failed" if failed else "done",
        fingerprint=mark,
        started_at=utc_now(),
        finished_at=utc_now(),
        seconds=0.0,
    )


def test_attempts_and_manifests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda file: None)  # slow, and no power fails here
    run_state_machine_as_test(Attempts, settings=bounded(50, stateful_step_count=25))
