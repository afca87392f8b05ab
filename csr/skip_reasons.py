"""Why something is left out: each reason is counted wherever it applies."""

from __future__ import annotations

from enum import StrEnum


class SkipReason(StrEnum):
    """Why a record is left out of a run, a prompt yields no pair, a candidate is dropped, or a row
    is left out of an export.

    Counted in the quarantine table (records), in the manifest (prompts, candidates) and in the
    export's record (rows).
    """

    INVALID_JSON = "invalid_json"
    INVALID_RECORD = "invalid_record"
    DUPLICATE_ID = "duplicate_id"
    UNREADABLE_IMAGE = "unreadable_image"
    PROMPT_TOO_LONG = "prompt_too_long"
    MISSING_REFERENCE = "missing_reference"
    LATER_TURN = "later_turn"
    NO_IMAGE = "no_image"

    DUPLICATE_SIBLING = "duplicate_sibling"
    UNREFUTED_REWRITE = "unrefuted_rewrite"
    JUNK_REWRITE = "junk_rewrite"
    REWRITE_PROMPT_TOO_LONG = "rewrite_prompt_too_long"
    TRUNCATED_SIMILARITY_TEXT = "truncated_similarity_text"
    FILTERED_TEXT = "filtered_text"
    TOO_FEW_RESPONSES = "too_few_responses"
    UNFINISHED = "unfinished"
    EQUAL_TEXT = "equal_text"
    SMALL_MARGIN = "small_margin"
    LENGTH_MISMATCH = "length_mismatch"
    REPETITION = "repetition"
    CRITIC_PROMPT_TOO_LONG = "critic_prompt_too_long"
    MALFORMED_VERDICT = "malformed_verdict"
    DISAGREEING_VERDICTS = "disagreeing_verdicts"
    NO_VERDICT = "no_verdict"
    REFUSED = "refused"
    DISPUTED = "disputed"

    MEDIA_MARKER = "media_marker"


NO_FAULT = frozenset({SkipReason.LATER_TURN, SkipReason.NO_IMAGE})
"""Records with nothing wrong, of which the data's format has many and this method asks none: they
are counted like the others, but stop no run."""
