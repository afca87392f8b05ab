"""Lengths, diversity and repetition of responses; needs no ground truth.

A policy can lower its hallucination rate by saying less, or the same thing twice.
These figures show it on any data.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

_WORD = re.compile(r"[\w']+")
_REPEATED_NGRAM = 4


def diversity_metrics(responses: Sequence[Sequence[str]]) -> dict[str, float]:
    """Figures over responses, each given as its sentences.

    - `mean_response_sentences`.
    - `distinct_1`, `distinct_2`: distinct words, and pairs of adjacent words, over all
      of them in the corpus (Li et al. 2016). Compare only at like sizes: more text
      lowers them.
    - `repetition`: share of responses that say a sentence twice.
    - `repeated_4gram_share`: share of four-word sequences seen before in their response.
    - `empty_share`: share of responses without a word.

    A ratio with nothing to count is 0.0.
    """
    assert responses, "a benchmark has at least one response"
    words = [_words(" ".join(sentences)) for sentences in responses]
    num_repeated, num_fourgrams = _repeated_fourgrams(words)
    return {
        "mean_response_sentences": sum(map(len, responses)) / len(responses),
        "distinct_1": _distinct([(word,) for response in words for word in response]),
        "distinct_2": _distinct([pair for response in words for pair in pairwise(response)]),
        "repetition": sum(map(_has_repeated_sentence, responses)) / len(responses),
        "repeated_4gram_share": num_repeated / num_fourgrams if num_fourgrams else 0.0,
        "empty_share": sum(not response for response in words) / len(responses),
    }


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _distinct(ngrams: Sequence[tuple[str, ...]]) -> float:
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def _has_repeated_sentence(sentences: Sequence[str]) -> bool:
    said = [tuple(words) for words in map(_words, sentences) if words]
    return len(set(said)) < len(said)


def _repeated_fourgrams(responses: Sequence[Sequence[str]]) -> tuple[int, int]:
    """Four-word sequences seen before in the same response, and all of them."""
    num_repeated = num_all = 0
    for words in responses:
        ngrams = [tuple(words[i : i + _REPEATED_NGRAM]) for i in range(len(words) - 3)]
        num_repeated += len(ngrams) - len(set(ngrams))
        num_all += len(ngrams)
    return num_repeated, num_all
