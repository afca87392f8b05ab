"""Every table that a run writes, declared once: columns, types, units, meanings.

The declaration travels inside each Parquet file. Arrow readers find `unit` and
`description` in the metadata of each field; readers that see key-value metadata
only (duckdb's `parquet_kv_metadata`) find the same under `csr.columns`. The table's
name and schema version stand under `csr.table` and `csr.schema_version`.

Lists of `{name, value}` stand where Arrow would have a map: `datasets` cannot read
maps.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow as pa

STRING = pa.string()
INT = pa.int32()
REAL = pa.float64()
"""64 bits: log-probabilities and rewards come back exactly as they were."""
TOKENS = pa.list_(pa.int32())
PARTS = pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())]))
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
IMAGES = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
"""How Hugging Face `datasets` stores `List(Image())`; it knows nullable columns only."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `unit` is "" for what has none (names, texts, flags)."""

    name: str
    type: pa.DataType
    unit: str
    description: str
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table. `key` orders its rows and names each of them uniquely."""

    name: str
    version: int
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema with units and descriptions in its metadata."""
        fields = [
            pa.field(
                column.name,
                column.type,
                nullable=column.nullable,
                metadata={"unit": column.unit, "description": column.description},
            )
            for column in self.columns
        ]
        about = {c.name: {"unit": c.unit, "description": c.description} for c in self.columns}
        metadata = {
            "csr.table": self.name,
            "csr.schema_version": str(self.version),
            "csr.columns": json.dumps(about),
        }
        features = {
            c.name: {"feature": {"_type": "Image"}, "_type": "List"}
            for c in self.columns
            if c.type == IMAGES
        }
        if features:
            metadata["huggingface"] = json.dumps({"info": {"features": features}})
        return pa.schema(fields, metadata=metadata)


_ITERATION = Column("iteration", INT, "count", "iteration of the run, from 1; 0 is the base model")
_PROMPT_ID = Column("prompt_id", STRING, "", "which prompt")
_POLICY = Column("policy", STRING, "", "name of the policy that spoke")
_FINISH = "why it stopped: step, eos, cut or length"

PROMPTS = Table(
    "prompts",
    1,
    ("position",),
    (
        Column("position", INT, "count", "place in the order of the run's prompts, from 0"),
        _PROMPT_ID,
        Column("text", STRING, "", "what is asked, without image marker or template"),
        Column("image_uri", STRING, "", "absolute path of the image"),
        Column("image_sha256", STRING, "hex", "digest of the image file's bytes"),
        Column("image_corruption", STRING, "", "corruption applied after decoding", True),
        Column("reference", STRING, "", "a reference answer, where the prompt has one", True),
        Column("dataset", STRING, "", "where the prompt comes from"),
    ),
)

NODES = Table(
    "nodes",
    1,
    ("iteration", "prompt_id", "node_id"),
    (
        _ITERATION,
        _PROMPT_ID,
        Column("node_id", STRING, "", "prompt id, then the child indices from the root"),
        Column("parent_id", STRING, "", "parent's node id; null for a first sentence", True),
        Column("depth", INT, "sentences", "1 for a first sentence"),
        Column("text", STRING, "", "the sentence as decoded"),
        Column("token_ids", TOKENS, "token ids", "the sentence's tokens as sampled"),
        Column("token_logprobs", pa.list_(REAL), "nats", "raw log-probability of each token"),
        Column("sum_logprob", REAL, "nats", "sum of token_logprobs"),
        Column("num_tokens", INT, "tokens", "length of token_ids"),
        Column("finish_reason", STRING, "", _FINISH),
        Column("reward", REAL, "reward", "the sentence's reward"),
        Column(
            "likelihood",
            REAL,
            "nats or probability",
            "raw likelihood part (R_T)",
            True,
        ),
        Column("image_similarity", REAL, "100 x cosine", "raw image-text part (R_I)", True),
        Column("redundancy", REAL, "cosine", "likeness to the sentences before", True),
        Column("likelihood_calibrated", REAL, "reward", "calibrated likelihood part", True),
        Column("image_similarity_calibrated", REAL, "reward", "calibrated image-text part", True),
        Column("breakdown", PARTS, "by name", "all parts of the reward, named ones included"),
        Column("cumulative_reward", REAL, "reward", "the search's score of the path to here"),
        Column("kept", pa.bool_(), "", "whether the search expanded it or kept it as finished"),
        _POLICY,
        Column("origin", STRING, "", "name of the preference source that sampled it"),
    ),
)


def _response_columns(prefix: str, what: str) -> tuple[Column, ...]:
    """The columns of one whole response; `prefix` tells the sides of a pair apart."""
    return (
        Column(f"{prefix}response_id", STRING, "", f"{what}: the leaf's node id"),
        Column(f"{prefix}text", STRING, "", f"{what}: text without special tokens, stripped"),
        Column(f"{prefix}token_ids", TOKENS, "token ids", f"{what}: tokens as sampled"),
        Column(f"{prefix}num_steps", INT, "sentences", f"{what}: number of sentences"),
        Column(f"{prefix}num_tokens", INT, "tokens", f"{what}: number of tokens"),
        Column(f"{prefix}sum_logprob", REAL, "nats", f"{what}: sum of raw log-probabilities"),
        Column(f"{prefix}reward", REAL, "reward", f"{what}: reward of the whole response"),
        Column(f"{prefix}breakdown", PARTS, "by name", f"{what}: mean parts over its sentences"),
        Column(f"{prefix}finish_reason", STRING, "", f"{what}: {_FINISH}"),
        Column(f"{prefix}origin", STRING, "", f"{what}: name of the source it comes from"),
    )


RESPONSES = Table(
    "responses",
    1,
    ("iteration", "prompt_id", "response_id"),
    (_ITERATION, _PROMPT_ID, *_response_columns("", "response"), _POLICY),
)

_FOR_TRL = (
    Column("images", IMAGES, "", "the prompt's image, for TRL; bytes null means: see path", True),
    Column("prompt", MESSAGES, "", "the user's turn, for TRL, which adds the image marker"),
)
"""The image and the user's turn as TRL reads them."""

_ASKED = (
    Column("prompt_text", STRING, "", "what is asked, without image marker or template"),
    Column("image_uri", STRING, "", "absolute path of the prompt's image"),
    Column("image_sha256", STRING, "hex", "digest of the image file's bytes"),
    Column("image_corruption", STRING, "", "corruption applied after decoding", True),
    Column("reference", STRING, "", "the prompt's reference answer", True),
    Column("dataset", STRING, "", "where the prompt comes from"),
)
"""The prompt, column by column."""

PAIRS = Table(
    "pairs",
    1,
    ("iteration", "pair_id"),
    (
        *_FOR_TRL,
        Column("chosen", MESSAGES, "", "the preferred assistant's turn, for TRL"),
        Column("rejected", MESSAGES, "", "the other assistant's turn, for TRL"),
        _ITERATION,
        Column("pair_id", STRING, "", "which pair"),
        _PROMPT_ID,
        *_ASKED,
        *_response_columns("chosen_", "chosen"),
        *_response_columns("rejected_", "rejected"),
        Column("margin", REAL, "reward", "chosen_reward - rejected_reward"),
        Column("source", STRING, "", "name of the preference source that paired them"),
        _POLICY,
        Column("rejected_image_uri", STRING, "", "image of the rejected side if another", True),
        Column("rejected_image_sha256", STRING, "hex", "its digest", True),
        Column("rejected_image_corruption", STRING, "", "its corruption", True),
    ),
)

ANNOTATIONS = Table(
    "annotations",
    1,
    ("iteration", "response_id", "annotator"),
    (
        _ITERATION,
        _PROMPT_ID,
        Column("response_id", STRING, "", "the judged response: its leaf's node id"),
        Column("annotator", STRING, "", "who judged: a person's name, or the critic's"),
        Column("verdict", STRING, "", "accept, refuse or skip"),
        Column("score", REAL, "by critic", "what the critic measured", True),
        Column("created_at", STRING, "", "when a person judged: ISO 8601, UTC", True),
    ),
)

DEMONSTRATIONS = Table(
    "demonstrations",
    1,
    ("iteration", "demonstration_id"),
    (
        *_FOR_TRL,
        Column("completion", MESSAGES, "", "the assistant's turn to imitate, for TRL"),
        _ITERATION,
        Column("demonstration_id", STRING, "", "which demonstration"),
        _PROMPT_ID,
        *_ASKED,
        Column("text", STRING, "", "the response to imitate"),
        Column("token_ids", TOKENS, "token ids", "as sampled; null: not sampled", True),
        Column("weight", REAL, "1", "of its loss"),
        Column("kind", STRING, "", "what it teaches, by the source's names"),
        Column("source", STRING, "", "name of the preference source"),
    ),
)

GENERATIONS = Table(
    "generations",
    1,
    ("iteration", "benchmark", "prompt_id"),
    (
        _ITERATION,
        Column("benchmark", STRING, "", "name of the benchmark that asked"),
        _PROMPT_ID,
        Column("prompt_text", STRING, "", "what was asked"),
        Column("image_uri", STRING, "", "absolute path of the image"),
        Column("image_sha256", STRING, "hex", "digest of the image file's bytes"),
        Column("text", STRING, "", "the response as decoded"),
        Column("token_ids", TOKENS, "token ids", "the response's tokens as sampled"),
        Column("token_logprobs", pa.list_(REAL), "nats", "raw log-probability of each token"),
        Column("finish_reason", STRING, "", _FINISH),
        _POLICY,
    ),
)

OUTCOMES = Table(
    "outcomes",
    1,
    ("iteration", "benchmark", "metric", "stratum", "prompt_id"),
    (
        _ITERATION,
        Column("benchmark", STRING, "", "name of the benchmark that asked"),
        _PROMPT_ID,
        Column("image", STRING, "", "which image: what is asked of one is not independent"),
        Column("metric", STRING, "", "the figure that this response is a part of"),
        Column("stratum", STRING, "", "part of the benchmark; figures are means over strata"),
        Column("numerator", REAL, "by metric", "the response's part in the figure's numerator"),
        Column("denominator", REAL, "by metric", "its part in the figure's denominator"),
    ),
)

QUARANTINE = Table(
    "quarantine",
    2,
    ("position", "message"),
    (
        Column("position", INT, "count", "line or place in the prompt file's list, from 1"),
        Column("prompt_id", STRING, "", "the record's id, where it has a usable one", True),
        Column("image_uri", STRING, "", "the image as the prompt file names it", True),
        Column("reason", STRING, "", "the skip reason under which it is counted"),
        Column("message", STRING, "", "what is wrong with it and what to do"),
    ),
)

TABLES = {
    table.name: table
    for table in (
        PROMPTS,
        NODES,
        ANNOTATIONS,
        RESPONSES,
        PAIRS,
        DEMONSTRATIONS,
        GENERATIONS,
        OUTCOMES,
        QUARANTINE,
    )
}
"""Table name -> declaration."""
