"""What a benchmark's settings count by in a stage's fingerprint: the content of what they name."""

import json
from pathlib import Path

import pytest

from flows.choices import BenchmarkChoice
from flows.inputs import component_inputs
from tests.amber_files import write_amber


@pytest.mark.parametrize("name", ["safe_words.txt", "metrics.txt", "annotations.json"])
def test_every_file_of_a_folder_of_annotations_counts(tmp_path: Path, name: str) -> None:
    settings = write_amber(tmp_path).model_dump(mode="json")
    choice = BenchmarkChoice.model_validate({"name": "amber", **settings})
    before = component_inputs(choice)
    assert component_inputs(choice) == before
    file = tmp_path / "data" / name
    file.write_text(file.read_text() + " ")
    assert component_inputs(choice) != before


def test_labels_of_a_folder_of_json_lines_count(tmp_path: Path) -> None:
    record = {"question_id": 1, "image": "a.jpg", "text": "Is there a dog?", "label": "yes"}
    for split in ("random", "popular", "adversarial"):
        (tmp_path / f"coco_pope_{split}.jsonl").write_text(json.dumps(record))
    settings = {"name": "pope", "prompts": str(tmp_path), "images": str(tmp_path)}
    choice = BenchmarkChoice.model_validate(settings)
    before = component_inputs(choice)
    assert before is not None
    assert "images" not in before
    (tmp_path / "coco_pope_random.jsonl").write_text(json.dumps(record | {"label": "no"}))
    assert component_inputs(choice) != before
