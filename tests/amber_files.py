"""An AMBER of three images and six questions in its official files, to be counted by hand."""

import json
from pathlib import Path

from PIL import Image

from csr.evaluation.amber import Config

RELATION = {
    "sky": [], "road": ["path", "street"], "person": ["people", "man", "woman"], "dog": ["puppy"],
    "tree": ["leave"], "sun": [], "cloud": [], "car": ["vehicle"], "bird": [],
}  # fmt: skip
ANNOTATIONS = [
    {"id": 1, "type": "generative", "truth": ["sky", "road", "person"], "hallu": ["sun", "car"]},
    {"id": 2, "type": "generative", "truth": ["dog", "tree"], "hallu": ["bird"]},
    {"id": 3, "type": "generative", "truth": ["sky"], "hallu": ["cloud", "sun"]},
    {"id": 4, "type": "discriminative-hallucination", "truth": "no"},
    {"id": 5, "type": "discriminative-attribute-state", "truth": "yes"},
    {"id": 6, "type": "discriminative-attribute-number", "truth": "no"},
    {"id": 7, "type": "discriminative-attribute-action", "truth": "yes"},
    {"id": 8, "type": "discriminative-relation", "truth": "yes"},
    {"id": 9, "type": "relation", "truth": "no"},
]
IMAGE_OF = {1: 1, 2: 2, 3: 3, 4: 1, 5: 1, 6: 2, 7: 2, 8: 3, 9: 3}

SAID = {
    1: "A man and a woman walk on the street under the sky. The sun and a bird are there.",
    2: "Two puppies play. A camera lies there.",
    3: "Nothing.",
    4: "No, there is none.",
    5: "Yes",
    6: "Yes, two.",
    7: "No.",
    8: "It seems so.",
    9: "There isn't.",
}
"""1: man, woman (person), street (road), sky: present; sun: expected, absent; bird: absent.
   6 mentions, 2 hallucinated, 3 of 3 covered, 1 of 2 imagined.
2: puppy (dog); camera is safe. 2 mentions, none hallucinated, 1 of 2 covered, 0 of 1 imagined.
3: none. 0 of 1 covered, 0 of 2 imagined.
Answers: no, yes, yes, no, none, no; truth: no, yes, no, yes, yes, no: right are 4, 5, 9."""


def write_amber(folder: Path) -> Config:
    data = folder / "data"
    (data / "query").mkdir(parents=True, exist_ok=True)
    (data / "annotations.json").write_text(json.dumps(ANNOTATIONS))
    (data / "relation.json").write_text(json.dumps(RELATION | {"camera": []}))
    (data / "safe_words.txt").write_text("camera\nrange")
    (data / "metrics.txt").write_text("chair_num=0.001\nchair_score=0\nqa_correct_num=0.001\n")
    queries = [
        {"id": n, "image": f"AMBER_{image}.jpg", "query": f"Question {n}?"}
        for n, image in IMAGE_OF.items()
    ]
    (data / "query/query_all.json").write_text(json.dumps(queries, indent=1))
    for image in (1, 2, 3):
        Image.new("RGB", (4, 4), "red").save(folder / f"AMBER_{image}.jpg")
    return Config(
        annotations=str(data), queries=str(data / "query/query_all.json"), images=str(folder)
    )
