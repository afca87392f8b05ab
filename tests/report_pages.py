"""A report's data with known figures, and what a reader's program finds on its page."""

from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

from flows.report_data import ReportData, ReportExample, ReportIteration, ReportStage

VOID = {"meta", "img", "br", "line", "path", "circle", "rect", "input"}


class Page(HTMLParser):
    """The tags, attributes and visible text of a page; notes tags that do not close."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += data + " "

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def example(path: Path, **changes: str) -> ReportExample:
    fields = {
        "pair_id": "p1#0",
        "prompt": "Describe the image.",
        "image_path": str(path),
        "chosen": "A red circle.",
        "rejected": "A blue square.",
    }
    return ReportExample(
        **(fields | changes),
        margin=1.4375,
        chosen_parts={"reward": 2.125, "likelihood": -0.5},
        rejected_parts={"reward": 0.6875},
    )


def report_data(folder: Path) -> ReportData:
    """A base and one iteration, whose training failed."""
    picture = folder / "a.png"
    Image.new("RGB", (48, 48), "red").save(picture)
    base = ReportIteration(
        iteration=0,
        attempt="tiny-4f2a/00.1",
        status="done",
        metrics={
            "chair_s": 0.2925,
            "chair_s_se": 0.0228,
            "recall": 0.972,
            "mean_response_sentences": 3.2,
            "num_captions": 400.0,
            "my_own_figure": 0.123,
        },
        stages=[ReportStage(name="evaluate", status="done", seconds=3.25)],
    )
    first = ReportIteration(
        iteration=1,
        attempt="tiny-4f2a/01.2",
        status="done",
        metrics={
            "chair_s": 0.182,
            "chair_s_se": 0.0193,
            "recall": 0.968,
            "mean_response_sentences": 3.075,
            "num_captions": 400.0,
        },
        num_prompts=128,
        num_pairs=119,
        stages=[
            ReportStage(
                name="sample",
                status="done",
                seconds=10.25,
                peak_memory_bytes=600 * 1024**2,
                skipped={"duplicate_sibling": 40},
                metrics={"num_nodes": 1200.0, "mean_depth": 2.0},
            ),
            ReportStage(
                name="sample",
                status="done",
                seconds=5.5,
                peak_memory_bytes=512 * 1024**2,
                skipped={"duplicate_sibling": 2},
                metrics={"num_nodes": 34.0, "mean_depth": 3.0},
            ),
            ReportStage(
                name="pair",
                status="done",
                seconds=0.125,
                skipped={"small_margin": 9},
                metrics={"mean_margin": 1.512},
            ),
            ReportStage(name="train", status="failed", seconds=7.0, message="the disk is full"),
        ],
        chosen={"reward": [1.0, 2.0, 3.0], "likelihood": [-0.5, -0.25, -0.1]},
        rejected={"reward": [0.0, 0.5, 1.0], "likelihood": [-0.9, -0.75, -0.5]},
        history=[{"step": 1, "loss": 0.693}, {"step": 2, "loss": 0.512}],
        examples=[example(picture)],
    )
    return ReportData(
        run_id="tiny-4f2a",
        recipe="tiny",
        status="done",
        seed=11,
        iterations=[base, first],
        config={"trainer": {"name": "dpo", "beta": 0.1}},
        versions={"trl": "1.16.0"},
        facts={"Started": "2026-01-02"},
        benchmarks={"captions": "“Describe the image.”, at most 64 tokens"},
    )
