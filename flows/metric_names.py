"""What people read in place of metric names, and which way each is better."""

from __future__ import annotations

from dataclasses import dataclass

LOWER = "lower is better"
HIGHER = "higher is better"


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of an evaluation."""

    name: str
    title: str = ""
    better: str = ""
    """Which way is better; "" where neither is."""
    plotted: bool = True


CI_LOW, CI_HIGH, STANDARD_ERROR = "_ci_low", "_ci_high", "_se"
"""Behind a figure's name: the bounds of its 95 % interval, and its standard error."""

HEADLINE_GROUP = "Hallucination, recall and length"

METRICS = {
    HEADLINE_GROUP: (
        Metric("chair_s", "CHAIR_s: captions that name an absent object", LOWER),
        Metric("chair_i", "CHAIR_i: mentions of absent objects", LOWER),
        Metric("recall", "Recall: present objects that are named", HIGHER),
        Metric("mean_response_sentences", "Length in sentences"),
        Metric("mean_response_tokens", "Length in tokens"),
        Metric("truncated_share", "Responses cut by the token limit", LOWER, plotted=False),
        Metric("empty_share", "Responses without a word", LOWER, plotted=False),
    ),
    "Attributes": (
        Metric("colour_accuracy", "Colours that are right", HIGHER),
        Metric("position_accuracy", "Positions that are right", HIGHER),
        Metric("sentence_accuracy", "Sentences that are right in everything", HIGHER),
        Metric("repeated_object_share", "Objects named again", LOWER, plotted=False),
    ),
    "Yes-or-no questions (POPE)": (
        Metric("pope_accuracy", "Accuracy, mean of the splits", HIGHER),
        Metric("pope_f1", "F1, mean of the splits", HIGHER),
        Metric("pope_yes_ratio", "Answers that are yes"),
        Metric("pope_calibrated_accuracy", "Accuracy, calibrated content-free", HIGHER),
        Metric("pope_calibrated_yes_ratio", "Answers that are yes, calibrated", plotted=False),
        Metric("pope_random_accuracy", "Accuracy, random", HIGHER, plotted=False),
        Metric("pope_popular_accuracy", "Accuracy, popular", HIGHER, plotted=False),
        Metric("pope_adversarial_accuracy", "Accuracy, adversarial", HIGHER, plotted=False),
    ),
    "AMBER": (
        Metric("amber_chair", "CHAIR: objects named that are absent", LOWER),
        Metric("amber_cover", "Cover: present objects that are named", HIGHER),
        Metric("amber_hal", "Hal: responses with an absent object", LOWER),
        Metric("amber_cog", "Cog: absent objects that people expect, and that are named", LOWER),
        Metric("amber_accuracy", "Accuracy of yes-or-no questions", HIGHER),
        Metric("amber_f1", "F1 of yes-or-no questions, of the answer no", HIGHER),
        Metric("amber_existence_f1", "F1, existence", HIGHER, plotted=False),
        Metric("amber_attribute_f1", "F1, attributes", HIGHER, plotted=False),
        Metric("amber_relation_f1", "F1, relations", HIGHER, plotted=False),
    ),
    "Rationales": (Metric("rationale_rouge_l", "ROUGE-L with the references", HIGHER),),
    "Multiple choice": (
        Metric("multiple_choice_accuracy", "Accuracy", HIGHER),
        Metric("multiple_choice_calibrated_accuracy", "Accuracy, calibrated content-free", HIGHER),
    ),
    "Diversity": (
        Metric("distinct_1", "Distinct words", plotted=False),
        Metric("distinct_2", "Distinct pairs of words"),
        Metric("repetition", "Responses that repeat a sentence", LOWER),
        Metric("repeated_4gram_share", "Repeated four-word sequences", LOWER, plotted=False),
    ),
}
"""Group title -> metrics in the order in which they are shown."""

ALL_METRICS = tuple(each for group in METRICS.values() for each in group)
METRIC_NAMES = tuple(each.name for each in ALL_METRICS)
HEADLINES = tuple(each.name for each in ALL_METRICS if each.plotted)
"""What is shown where there is not room for every figure."""

TESTED_METRICS = tuple(each.name for each in ALL_METRICS if each.better and each.plotted)
"""What two policies are compared in by a test: a few, since each more blunts the others."""


def is_count(name: str) -> bool:
    """Whether the figure counts something, so that it is whole, and shards' are added up."""
    return name.startswith("num_") or "_num_" in name or name.endswith("_count")


def is_companion(name: str) -> bool:
    """Whether it only says how far another figure may lie from the true one."""
    return name.endswith((STANDARD_ERROR, CI_LOW, CI_HIGH))


DISTRIBUTIONS = {
    "reward": "Reward of the response",
    "likelihood": "Likelihood, raw, nats",
    "image_similarity": "Image similarity, raw, 100 × cosine",
    "pmi": "PMI of text and image, raw, nats a token",
    "self_check": "Self-check, probability of yes",
    "num_tokens": "Length in tokens",
    "num_steps": "Length in sentences",
}
"""Part of a pair's sides -> its title."""
