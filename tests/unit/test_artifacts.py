"""What the flow UI is given: right numbers, inert texts, small pages, usable keys."""

import json
import logging
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from PIL import Image

from csr.gates import Verdict
from csr.images import image_ref
from csr.types import (
    Demonstration,
    FinishReason,
    ImageRef,
    PreferencePair,
    Prompt,
    ScoredResponse,
)
from flows import artifacts
from flows.artifacts import Narrator, Pages, publish_verdicts, tell_run
from flows.data_pages import NUM_SHOWN, demonstration_page, pair_page
from flows.forms import IterationRequest, RunRequest
from flows.inert import as_code, fitting
from flows.promotion import promote
from storage.attempt import AttemptDir, IterationId
from storage.run_store import RunStore
from tests.scripted_run import iterate_plainly, run_plainly, write_recipe

RUN = "Night_01"
KEY = "night-01-2cdf"
HOSTILE = (
    "a `b` ``c`` <img src=x onerror=alert(1)> [click](javascript:alert(1)) ![x](http://evil/x) "
    "https://evil.example | cell |\n\n# heading\n```\nfence\n``` \u202ereversed \x1b[31m"
)
Made = dict[str, list[dict[str, Any]]]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """Key -> the artifacts that were made under it, newest last."""
    kept: Made = {}

    def keep(kind: str) -> Callable[..., UUID]:
        def create(data: Any, *, key: str, description: str) -> UUID:
            made = {"kind": kind, "data": data, "description": description}
            kept.setdefault(key, []).append(made)
            return uuid4()

        return create

    for kind in ("markdown", "table"):
        monkeypatch.setattr(artifacts, f"create_{kind}_artifact", keep(kind))
    monkeypatch.setattr(artifacts, "emit", lambda *args, **kwargs: None)
    return kept


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run of two iterations."""
    monkeypatch.setattr(os, "fsync", lambda file: None)  # slow, and no power fails here
    recipe = write_recipe(tmp_path / "data")
    run_plainly(RunRequest(home=str(tmp_path / "home"), recipe=str(recipe), run_id=RUN))
    return tmp_path / "home"


def response(text: str, reward: float) -> ScoredResponse:
    return ScoredResponse(
        response_id="p/0",
        prompt_id="p",
        text=text,
        token_ids=(1, 2),
        num_steps=1,
        num_tokens=2,
        sum_logprob=-1.0,
        reward=reward,
        breakdown={"likelihood": -0.5, "unknown_part": 9.0},
        finish_reason=FinishReason.EOS,
        origin="test",
    )


def pair(image: ImageRef, text: str, name: str = "p") -> PreferencePair:
    return PreferencePair(
        pair_id=f"{name}#0",
        prompt=Prompt(prompt_id=name, text=text, image=image, dataset="test"),
        chosen=response(text, 2.25),
        rejected=response(f"not {text}", -1.0),
        margin=3.25,
        source="test",
    )


def write_noise(path: Path, pixels: int, seed: int = 0) -> ImageRef:
    """The image that compresses worst."""
    noise = np.random.default_rng(seed).integers(0, 256, (pixels, pixels, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return image_ref(path)


def test_hostile_text_stays_one_piece_of_code() -> None:
    shown = as_code(HOSTILE)
    assert shown[0] == shown[-1] == "`"
    assert set("`\n\u202e\x1b") & set(shown[1:-1]) == set()
    assert "<img src=x onerror=alert(1)> [click](javascript:alert(1))" in shown  # as it was
    assert "\ufffdreversed \ufffd[31m" in shown
    assert as_code(" \n ") == as_code("") == "`(nothing)`"


def test_text_of_any_script_is_kept_and_a_long_one_is_cut() -> None:
    scripts = "नमस्\u200dते שלום 日本語 👍🏽"
    assert as_code(scripts) == f"`{scripts}`"
    assert as_code("x" * 50, max_characters=40) == "`" + "x" * 40 + " ... (cut)`"
    assert as_code("x" * 40, max_characters=40) == "`" + "x" * 40 + "`"


def test_parts_fit_up_to_the_limit() -> None:
    assert fitting(["aa", "b", "ccc"], len, 3) == ["aa", "b"]
    assert fitting(["aa", "b", "ccc"], len, 6) == ["aa", "b", "ccc"]
    assert fitting(["aa"], len, 1) == []


def test_a_pair_is_shown_with_its_image_and_its_figures(tmp_path: Path) -> None:
    Image.new("RGB", (48, 36), "red").save(tmp_path / "a.png")
    page = pair_page("r/01.1", [pair(image_ref(tmp_path / "a.png"), HOSTILE)], 190_000)
    heading, title, picture, prompt, chosen, rejected, table = page.split("\n\n")
    assert heading == "# r/01.1: 1 of 1 pairs"
    assert title == "## Pair 1, margin 3.250"
    assert re.fullmatch(r"!\[image\]\(data:image/png;base64,[A-Za-z0-9+/=]+\)", picture)
    assert prompt == f"**prompt** {as_code(HOSTILE)}"
    assert chosen == f"**chosen** {as_code(HOSTILE)}"
    assert rejected == f"**rejected** {as_code('not ' + HOSTILE)}"
    assert table.splitlines() == [
        "|  | reward | likelihood | num_tokens | num_steps |",
        "| --- | --- | --- | --- | --- |",
        "| chosen | 2.250 | -0.500 | 2 | 1 |",
        "| rejected | -1.000 | -0.500 | 2 | 1 |",
    ]


def test_a_pair_without_its_image_says_so(tmp_path: Path) -> None:
    (tmp_path / "`x` <b>.png").write_bytes(b"no image")
    broken = ImageRef(uri=str(tmp_path / "`x` <b>.png"), sha256="0" * 64)
    gone = replace(broken, uri="/nowhere/a.png")
    shown = pair_page("r/01.1", [pair(broken, "a"), pair(gone, "b")], 190_000)
    assert "![image]" not in shown
    assert "'x' <b>.png" in shown
    assert "/nowhere/a.png" in shown
    assert shown.count("`") == 2 * (1 + 3) * 2  # the problem and three texts, of two pairs
    other = replace(pair(broken, "a"), rejected_image=replace(broken, corruption="blur"))
    assert "The rejected side saw another image: `blur`" in pair_page("r/01.1", [other], 190_000)


def test_the_page_of_pairs_has_pairs_from_all_over_the_table(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    pairs = [pair(image_ref(tmp_path / "a.png"), f"text {n}") for n in range(20)]
    shown = re.findall(r"## Pair (\d+)", pair_page("r/01.1", pairs, 190_000))
    assert shown == ["1", "3", "6", "8", "11", "13", "16", "18"]
    assert pair_page("r/01.1", [], 190_000) == "# r/01.1: 0 of 0 pairs"


def test_the_page_of_pairs_stays_small_whatever_is_in_it(tmp_path: Path) -> None:
    noise = [write_noise(tmp_path / f"{size}.png", size, size) for size in (90, 320, 700)]
    wide = "\U0001f600" * 100_000
    pairs = [pair(noise[n % 3], wide, f"p{n}") for n in range(NUM_SHOWN)]
    page = pair_page("r/01.1", pairs, artifacts.MAX_ARTIFACT_BYTES)
    assert 100_000 < len(page.encode()) <= artifacts.MAX_ARTIFACT_BYTES
    num_shown = len(re.findall("^## Pair", page, re.MULTILINE))
    assert f"# r/01.1: {num_shown} of 8 pairs" in page
    assert page.count("![image](data:image/") == num_shown  # each was made small enough
    plain = [pair(noise[2], "a sentence of words. " * 100, f"p{n}") for n in range(8)]
    page = pair_page("r/01.1", plain, artifacts.MAX_ARTIFACT_BYTES)
    assert page.count("![image](data:image/jpeg") == 8


def test_a_demonstration_is_shown_with_its_image_and_its_weight(tmp_path: Path) -> None:
    Image.new("RGB", (48, 36), "red").save(tmp_path / "a.png")
    demonstration = Demonstration(
        demonstration_id="p/0",
        prompt=pair(image_ref(tmp_path / "a.png"), HOSTILE).prompt,
        text=HOSTILE,
        token_ids=None,
        weight=2.5,
        kind="rationale",
        source="illume",
    )
    page = demonstration_page("r/01.1", [demonstration] * 20, 190_000)
    heading, title, picture, prompt, said, *_ = page.split("\n\n")
    assert heading == "# r/01.1: 8 of 20 demonstrations"
    assert title == "## Demonstration 1, weight 2.500"
    assert picture.startswith("![image](data:image/png;base64,")
    assert prompt == f"**prompt** {as_code(HOSTILE)}"
    assert said == f"**rationale** {as_code(HOSTILE)}"


def test_the_runs_pages_have_the_stored_figures(home: Path, made: Made) -> None:
    store = RunStore(home)
    tell_run(store, RUN, Pages())
    assert set(made) == {f"csr-{kind}-{KEY}" for kind in ("figures", "plots", "report")}
    assert all(re.fullmatch(r"[a-z0-9-]+", key) for key in made)
    (figures,) = made[f"csr-figures-{KEY}"]
    assert [row["attempt"] for row in figures["data"]] == [f"{RUN}/0{n}.1" for n in range(3)]
    for number, row in enumerate(figures["data"]):
        stored = store.attempt(RUN, number).manifest.read().metrics
        assert row["status"] == "done"
        assert row["mean_response_tokens"] == stored["mean_response_tokens"]
        assert row["distinct_2"] == pytest.approx(stored["distinct_2"], abs=5e-5)
    assert figures["description"] == f"{RUN} on held-out images"  # no chair_s to read with care
    (plots,) = made[f"csr-plots-{KEY}"]
    assert re.findall(r"!\[(\w+)\]\(data:image/svg\+xml;base64,", plots["data"]) == [
        "mean_response_sentences",
        "mean_response_tokens",
    ]


def test_a_rerun_and_a_stale_iteration_are_seen_in_the_figures(home: Path, made: Made) -> None:
    store = RunStore(home)
    fewer_pairs = ("source.pair_filter.min_margin_quantile=0.5",)
    iterate_plainly(
        IterationRequest(home=str(home), iteration_id=f"{RUN}/01", settings=fewer_pairs)
    )
    promote(home, f"{RUN}/01.2")
    tell_run(store, RUN, Pages())
    (figures,) = made[f"csr-figures-{KEY}"]
    assert [(row["attempt"], row["status"]) for row in figures["data"]] == [
        (f"{RUN}/00.1", "done"),
        (f"{RUN}/01.1", "done, not current"),
        (f"{RUN}/01.2", "done"),
        (f"{RUN}/02.1", "stale"),
    ]


def test_of_very_many_attempts_the_newest_are_shown(
    home: Path, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"attempt": f"{RUN}/{n:02d}.1", "status": "done", "chair_s": 0.5} for n in range(5000)]
    monkeypatch.setattr(artifacts, "_figure_rows", lambda store, run_id: rows)
    tell_run(RunStore(home), RUN, Pages())
    (figures,) = made[f"csr-figures-{KEY}"]
    shown = figures["data"]
    assert shown == rows[-len(shown) :]
    assert len(json.dumps(shown)) < 200_000
    assert figures["description"] == (
        f"{RUN} on held-out images; read chair_s beside recall and length; the oldest "
        f"{5000 - len(shown)} left out"
    )


def test_the_gates_that_tripped_stand_first_with_what_they_mean(made: Made) -> None:
    attempt = AttemptDir(IterationId("tiny", 2, 3), Path("/nowhere"))
    fine = Verdict(
        gate="recall_drop", value=0.0123456, limit=0.05, tripped=False, message="", bound="at most"
    )
    unknown = replace(fine, gate="kl_nats_per_token", value=None, message="not measured")
    tripped = Verdict(
        gate="length_drift",
        value=float("nan"),
        limit=None,
        tripped=True,
        message="captions grew short",
    )
    publish_verdicts(attempt, [fine, unknown, tripped, replace(fine, value=-0.0)])
    publish_verdicts(attempt, [fine])
    first, second = made["csr-gates-tiny-02"]
    assert first["description"] == "tiny/02.3: held: 1 of 4 gates tripped"
    assert second["description"] == "tiny/02.3: no gate tripped"
    assert first["data"].splitlines() == [
        "# tiny/02.3: held: 1 of 4 gates tripped",
        "",
        "- **length_drift**: captions grew short",
        "",
        "| gate | verdict | value | limit |",
        "| --- | --- | --- | --- |",
        "| length_drift | **TRIPPED** | nan |  |",
        "| recall_drop | fine | 0.01235 | at most 0.05 |",
        "| kl_nats_per_token | not measured |  | at most 0.05 |",
        "| recall_drop | fine | 0 | at most 0.05 |",
    ]
    assert second["data"].splitlines()[:3] == [
        "# tiny/02.3: no gate tripped",
        "",
        "| gate | verdict | value | limit |",
    ]


def test_the_report_is_a_link_where_its_address_is_known(
    home: Path, made: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CSR_HOME", str(home))
    path = f"`{home}/{RUN}/report.html`"
    shown = []
    for url in ("http://127.0.0.1:4201/", "javascript:alert(1)//", "http://x/) [y](", ""):
        monkeypatch.setenv("CSR_REPORT_URL", url)
        tell_run(RunStore(home), RUN, Pages())
        shown.append(made[f"csr-report-{KEY}"][-1]["data"])
    linked, *unlinked = shown
    assert f"[Open the report](http://127.0.0.1:4201/{RUN}/report.html)" in linked
    assert "](" not in "".join(unlinked)
    assert all(path in text for text in shown)
    assert caplog.text.count("is no http address") == 2

    monkeypatch.setenv("CSR_REPORT_URL", "http://127.0.0.1:4201")
    monkeypatch.setenv("CSR_HOME", str(home.parent))  # the reports of other runs are there
    tell_run(RunStore(home), RUN, Pages())
    assert "](" not in made[f"csr-report-{KEY}"][-1]["data"]


def test_what_prefect_refuses_is_a_warning(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("server is gone")

    for name in ("markdown", "table", "progress"):
        monkeypatch.setattr(artifacts, f"create_{name}_artifact", refuse)
    monkeypatch.setattr(artifacts, "emit", refuse)
    store = RunStore(home)
    narrator = Narrator(store, store.attempt(RUN, 1), num_shards=3)
    monkeypatch.setattr(logging.getLogger("csr"), "propagate", True)
    for stage in (("sample", 0), ("pair",), ("gate",)):
        narrator.tell(*stage)
    tell_run(store, RUN, Pages())
    # Another test's libraries may have the logger heard twice.
    messages = dict.fromkeys((each.levelname, each.getMessage()) for each in caplog.records)
    assert list(messages) == [
        ("WARNING", f"{RUN}/01.1: nothing shown of sample"),
        ("WARNING", f"{RUN}/01.1: nothing shown of pair"),
        ("WARNING", f"{RUN}/01.1: nothing shown of gate"),
        ("WARNING", f"{RUN}: its figures are not shown"),
    ]
    assert "server is gone" in caplog.text


def test_no_two_runs_share_a_key() -> None:
    names = ("tiny-4f2a", "tiny_4f2a", "TINY-4f2a", "tiny.4f2a", "tiny-4f2a-", "x" * 64)
    keys = [artifacts._key("figures", name) for name in names]
    assert len(set(keys)) == len(names)
    assert keys[0] == "csr-figures-tiny-4f2a"
    assert artifacts._key("pairs", "tiny-4f2a", 2) == "csr-pairs-tiny-4f2a-02"
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", key) for key in keys)
