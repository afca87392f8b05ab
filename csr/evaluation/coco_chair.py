"""CHAIR on COCO, from COCO's own annotation files.

Rohrbach et al. 2018, "Object Hallucination in Image Captioning": what an image shows are the
classes of its annotated instances and what people name in its five reference captions. Which words
name a class says a synonym table, by default our own: docs/evaluation.md says how figures that are
to be compared with published ones are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field

from csr.config import ComponentConfig, Location
from csr.errors import DataError
from csr.evaluation._benchmark import SelectiveBenchmark
from csr.evaluation._captions import (
    caption_figures,
    knows_tokens,
    length_ratios,
    scored_sentences,
)
from csr.evaluation._chair import CaptionObjects, chair_metrics, chair_outcomes, compare_mentions
from csr.evaluation._coco_files import CocoImage, read_coco
from csr.evaluation._coco_words import OWN_SYNONYMS, CocoWords, read_synonyms
from csr.evaluation._image_ids import read_image_ids
from csr.evaluation._records import build_prompts
from csr.outcomes import Outcome, outcomes_of
from csr.planning import ExpectedResponse, PlannedCall, PlannedQuestions
from csr.records import Record
from csr.truthfulness import FalseMention, absent_objects
from csr.types import GeneratedResponse, Prompt

FIGURES = "chair"
"""No other benchmark of the same figures may stand beside it in a recipe."""


class Config(ComponentConfig):
    """Where COCO is, which of its images are captioned, and how captions are counted."""

    annotations: Location
    """Folder with `instances_val2014.json` and `captions_val2014.json`, and the same of train2014
    where `image_ids` lists images of it."""
    images: Location
    """Folder with the image files, or with `val2014` and `train2014` folders of them."""
    year: Literal[2014, 2017] = 2014
    """Which release; published figures are of 2014."""
    image_ids: Location | None = None
    """File with the COCO ids of the images to caption, a JSON list or one a line; None takes all of
    val, 40,504 in 2014."""
    max_images: int | None = Field(default=None, ge=1)
    """Images at most, those with the smallest ids; None takes all."""
    synonyms: Location | None = None
    """The table of CHAIR's code, `data/synonyms.txt`; None takes our own, whose figures are not
    those of the published table."""
    prompt: str = "Please describe this image in detail."
    """What is asked of each image. CHAIR depends on it."""
    max_response_tokens: int = Field(default=512, ge=1)
    """Tokens. CHAIR depends on it: longer captions hallucinate more."""
    unique_numerator: bool = False
    """Count each hallucinated object once a caption in CHAIR_i's numerator, as some later
    codebases do; Rohrbach et al. 2018 count every mention."""
    drop_unfinished_sentence: bool = True
    """Leave out the last sentence of a caption that the token limit cut: its object may be
    cut in half."""


def build(config: Config) -> CocoChairBenchmark:
    """The benchmark. Files are read when its prompts are asked for."""
    return CocoChairBenchmark(config)


def planned_questions(config: Config, expected: ExpectedResponse) -> PlannedQuestions:
    """A caption of each image, as long as a response."""
    length = expected.cut(config.max_response_tokens)
    try:
        listed = len(read_image_ids(Path(config.image_ids))) if config.image_ids else None
    except DataError:
        listed = None
    counts = [count for count in (listed, config.max_images) if count is not None]
    return PlannedQuestions(
        num_prompts=min(counts, default=None),
        calls=(PlannedCall(name="caption", generated_tokens=length),),
    )


@dataclass
class CocoChairBenchmark(SelectiveBenchmark):
    """Asks for captions of COCO images and counts the objects that they name."""

    config: Config
    response_fields: tuple[str, str] = field(default=("image_id", "caption"), init=False)
    """Of a record in a file of captions, as COCO's caption evaluation reads them."""
    SELECTED = ("_images", "_prompts")

    def prompt_ids(self) -> Sequence[str]:
        """The images' ids; no image file is looked at."""
        return [str(image.image_id) for image in self._images]

    def evaluate(
        self,
        responses: Sequence[GeneratedResponse],
        label_logprobs: Sequence[tuple[float, ...]] = (),
    ) -> dict[str, float]:
        """CHAIR and recall, lengths and diversity; see `chair_metrics`, `caption_figures`.

        `mean_present_objects` is how many classes an image shows, by instances and captions.
        """
        captions = self._sentences(responses)
        counts = self._counts(captions)
        present = sum(count.num_present for count in counts) / len(counts)
        return {
            **caption_figures(responses, captions),
            **chair_metrics(counts),
            "mean_present_objects": present,
        }

    def outcomes(
        self,
        responses: Sequence[GeneratedResponse],
        label_logprobs: Sequence[tuple[float, ...]] = (),
    ) -> Sequence[Outcome]:
        """Each caption's part in CHAIR, recall and the mean lengths."""
        captions = self._sentences(responses)
        with_tokens = knows_tokens(responses)
        found: list[Outcome] = []
        rows = zip(self._images, responses, captions, self._counts(captions), strict=True)
        for image, response, sentences, counts in rows:
            name = str(image.image_id)
            lengths = length_ratios(response, sentences, with_tokens=with_tokens)
            found += outcomes_of(name, name, lengths)
            found += chair_outcomes(name, name, counts)
        return found

    def response_records(self, responses: Sequence[GeneratedResponse]) -> list[Record]:
        """The captions in the form of COCO's caption evaluation."""
        return [{"image_id": int(r.prompt_id), "caption": r.text} for r in responses]

    def false_mentions(self, responses: Sequence[GeneratedResponse]) -> list[list[FalseMention]]:
        """Mentions, in the whole captions, of classes that neither annotators nor people saw."""
        return [
            absent_objects(self._words.mentions(response.text), self._present(image))
            for response, image in zip(responses, self._images, strict=True)
        ]

    def _sentences(self, responses: Sequence[GeneratedResponse]) -> list[list[str]]:
        """What is scored of one response for each image."""
        assert [r.prompt_id for r in responses] == self.prompt_ids(), "one response a prompt"
        drop = self.config.drop_unfinished_sentence
        return [scored_sentences(response, drop_unfinished=drop) for response in responses]

    def _counts(self, captions: Sequence[Sequence[str]]) -> list[CaptionObjects]:
        unique = self.config.unique_numerator
        return [
            compare_mentions(
                self._words.find(" ".join(sentences)),
                self._present(image),
                unique_numerator=unique,
            )
            for image, sentences in zip(self._images, captions, strict=True)
        ]

    def _present(self, image: CocoImage) -> set[str]:
        """Classes of its instances, and what its reference captions name."""
        unknown = image.objects - self._words.names
        if unknown:
            raise DataError(
                f"The synonym table has no line for COCO's {sorted(unknown)[0]!r}. Begin each line "
                "with the class as instances_val2014.json names it."
            )
        return image.objects.union(*map(self._words.find, image.captions))

    @cached_property
    def _words(self) -> CocoWords:
        return read_synonyms(Path(self.config.synonyms) if self.config.synonyms else OWN_SYNONYMS)

    @cached_property
    def _images(self) -> list[CocoImage]:
        found = sorted(self._annotated.values(), key=lambda image: image.image_id)
        if self._kept is not None:
            return [image for image in found if str(image.image_id) in self._kept]
        return found[: self.config.max_images]

    @cached_property
    def _annotated(self) -> dict[int, CocoImage]:
        listed = _listed_ids(self.config.image_ids)
        return read_coco(Path(self.config.annotations), self.config.year, listed)

    @cached_property
    def _prompts(self) -> list[Prompt]:
        root = Path(self.config.images)
        records: list[Record] = [
            {
                "id": str(image.image_id),
                "image": _place(root, image.file_name, self.config.year),
                "input": self.config.prompt,
            }
            for image in self._images
        ]
        return build_prompts(records, root, "coco")


def _listed_ids(path: str | None) -> list[int] | None:
    if path is None:
        return None
    names = [name.rpartition("/")[2] for name in read_image_ids(Path(path))]
    wrong = [name for name in names if not name.isdecimal()]
    if wrong:
        raise DataError(
            f"{path}: {wrong[0]!r} is no COCO image id. Give numbers, or names like "
            "COCO_val2014_000000000042.jpg."
        )
    return [int(name) for name in names]


def _place(root: Path, file_name: str, year: int) -> str:
    """Where the file lies below `root`: there, or in its set's folder."""
    places = (file_name, *(f"{split}{year}/{file_name}" for split in ("val", "train")))
    return next((place for place in places if (root / place).is_file()), file_name)
