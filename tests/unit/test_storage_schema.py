"""The declared columns, pinned: a change here is a new schema version."""

import pytest

from storage.schema import TABLES

RESPONSE = {
    "response_id": "string",
    "text": "string",
    "token_ids": "list<element: int32>",
    "num_steps": "int32",
    "num_tokens": "int32",
    "sum_logprob": "double",
    "reward": "double",
    "breakdown": "list<element: struct<name: string, value: double>>",
    "finish_reason": "string",
    "origin": "string",
}
TURN = "list<element: struct<role: string, content: string>>"
GOLDEN = {
    "prompts": {
        "position": "int32",
        "prompt_id": "string",
        "text": "string",
        "image_uri": "string",
        "image_sha256": "string",
        "image_corruption": "string?",
        "reference": "string?",
        "dataset": "string",
    },
    "nodes": {
        "iteration": "int32",
        "prompt_id": "string",
        "node_id": "string",
        "parent_id": "string?",
        "depth": "int32",
        "text": "string",
        "token_ids": "list<element: int32>",
        "token_logprobs": "list<element: double>",
        "sum_logprob": "double",
        "num_tokens": "int32",
        "finish_reason": "string",
        "reward": "double",
        "likelihood": "double?",
        "image_similarity": "double?",
        "redundancy": "double?",
        "likelihood_calibrated": "double?",
        "image_similarity_calibrated": "double?",
        "breakdown": "list<element: struct<name: string, value: double>>",
        "cumulative_reward": "double",
        "kept": "bool",
        "policy": "string",
        "origin": "string",
    },
    "responses": {"iteration": "int32", "prompt_id": "string", **RESPONSE, "policy": "string"},
    "pairs": {
        "images": "list<element: struct<bytes: binary, path: string>>?",
        "prompt": TURN,
        "chosen": TURN,
        "rejected": TURN,
        "iteration": "int32",
        "pair_id": "string",
        "prompt_id": "string",
        "prompt_text": "string",
        "image_uri": "string",
        "image_sha256": "string",
        "image_corruption": "string?",
        "reference": "string?",
        "dataset": "string",
        **{f"chosen_{name}": type_ for name, type_ in RESPONSE.items()},
        **{f"rejected_{name}": type_ for name, type_ in RESPONSE.items()},
        "margin": "double",
        "source": "string",
        "policy": "string",
        "rejected_image_uri": "string?",
        "rejected_image_sha256": "string?",
        "rejected_image_corruption": "string?",
    },
    "annotations": {
        "iteration": "int32",
        "prompt_id": "string",
        "response_id": "string",
        "annotator": "string",
        "verdict": "string",
        "score": "double?",
        "created_at": "string?",
    },
    "demonstrations": {
        "images": "list<element: struct<bytes: binary, path: string>>?",
        "prompt": "list<element: struct<role: string, content: string>>",
        "completion": "list<element: struct<role: string, content: string>>",
        "iteration": "int32",
        "demonstration_id": "string",
        "prompt_id": "string",
        "prompt_text": "string",
        "image_uri": "string",
        "image_sha256": "string",
        "image_corruption": "string?",
        "reference": "string?",
        "dataset": "string",
        "text": "string",
        "token_ids": "list<element: int32>?",
        "weight": "double",
        "kind": "string",
        "source": "string",
    },
    "generations": {
        "iteration": "int32",
        "benchmark": "string",
        "prompt_id": "string",
        "prompt_text": "string",
        "image_uri": "string",
        "image_sha256": "string",
        "text": "string",
        "token_ids": "list<element: int32>",
        "token_logprobs": "list<element: double>",
        "finish_reason": "string",
        "policy": "string",
    },
    "outcomes": {
        "iteration": "int32",
        "benchmark": "string",
        "prompt_id": "string",
        "image": "string",
        "metric": "string",
        "stratum": "string",
        "numerator": "double",
        "denominator": "double",
    },
    "quarantine": {
        "position": "int32",
        "prompt_id": "string?",
        "image_uri": "string?",
        "reason": "string",
        "message": "string",
    },
}
VERSIONS = dict.fromkeys(GOLDEN, 1) | {"quarantine": 2}


@pytest.mark.parametrize("name", TABLES)
def test_columns_are_the_pinned_ones(name):
    found = {
        field.name: str(field.type).replace("item: ", "element: ") + "?" * field.nullable
        for field in TABLES[name].schema
    }
    assert found == GOLDEN[name]
    assert list(found) == list(GOLDEN[name])
    assert TABLES[name].version == VERSIONS[name]


@pytest.mark.parametrize("name", TABLES)
def test_every_column_has_a_description_and_numbers_have_a_unit(name):
    for field in TABLES[name].schema:
        about = {key.decode(): value.decode() for key, value in field.metadata.items()}
        assert about["description"], field.name
        numeric = "int" in str(field.type) or "double" in str(field.type)
        assert bool(about["unit"]) == (numeric or field.name.endswith("sha256")), field.name


@pytest.mark.parametrize("name", TABLES)
def test_key_columns_exist_and_are_never_null(name):
    columns = {column.name: column for column in TABLES[name].columns}
    assert TABLES[name].key
    assert not any(columns[key].nullable for key in TABLES[name].key)
