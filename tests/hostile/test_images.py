"""Hostile and unusual images: each is refused or set aside with its reason, or read right."""

from pathlib import Path

import pytest
from PIL import Image

from csr.errors import DataError
from csr.images import load_image
from csr.prompts import load_prompts
from storage.run_store import RunStore
from storage.tables import read_table
from tests.hostile.cases import Case, Fine, Quarantined
from tests.hostile.image_cases import IMAGES
from tests.hostile.inputs import Inputs, bad_share, names
from tests.scripted_run import Csr

JPEG_BLUR = 5
"""Largest difference of a colour value that lossy coding may leave."""


@pytest.mark.parametrize("case", IMAGES.cases(Quarantined), ids=names)
def test_a_bad_image_is_one_error_or_one_row(case: Case, inputs: Inputs) -> None:
    image = case.build(inputs.images)
    path = inputs.prompts({"id": "odd", "image": image, "input": "Describe."})
    with pytest.raises(DataError) as caught:
        load_prompts(path, inputs.images)
    message = str(caught.value)
    assert case.verdict.words in message
    assert "'odd'" in message
    assert message.isprintable()

    loaded = load_prompts(path, inputs.images, on_bad_record="skip", max_bad_share=1.0)
    (bad,) = loaded.bad_records
    assert (bad.prompt_id, bad.image) == ("odd", image)
    assert bad.reason is case.verdict.reason
    assert case.verdict.words in bad.message
    assert len(loaded.prompts) + len(loaded.bad_records) == inputs.num_good + 1


@pytest.mark.parametrize("case", IMAGES.cases(Fine), ids=names)
def test_an_unusual_image_is_read_right(case: Case, inputs: Inputs) -> None:
    path = inputs.prompts({"id": "odd", "image": case.build(inputs.images), "input": "Describe."})
    *_, prompt = load_prompts(path, inputs.images).prompts
    size, colours = case.verdict.expected
    image = load_image(prompt.image)
    assert (image.mode, image.size) == ("RGB", size)
    for place, colour in colours.items():
        assert near(image, place, colour), (place, image.getpixel(place), colour)


def near(image: Image.Image, place: tuple[int, int], colour: tuple[int, int, int]) -> bool:
    found = image.getpixel(place)
    assert isinstance(found, tuple)
    return all(abs(a - b) <= JPEG_BLUR for a, b in zip(found, colour, strict=True))


@pytest.mark.parametrize("case", IMAGES.cases(Quarantined)[::6], ids=names)
def test_the_command_stops_at_a_bad_image(csr: Csr, case: Case, inputs: Inputs) -> None:
    inputs.prompts({"id": "odd", "image": case.build(inputs.images), "input": "Describe."})
    inputs.check_refused(csr, case.verdict.words)


def test_a_run_goes_on_without_the_bad_images_and_with_all_others(csr: Csr, inputs: Inputs) -> None:
    """Every image of the corpus in one run, each in a folder of its own."""
    records = []
    for case in IMAGES.cases():
        folder = inputs.images / case.name / "images"
        folder.mkdir(parents=True)
        image = case.build(folder)
        inside = image if image.startswith("/") else f"{case.name}/images/{image}"
        records.append({"id": case.name, "image": inside, "input": "Describe."})
    inputs.prompts(*records)
    answer = csr(*inputs.command, *bad_share(1.0), "--json")
    assert answer.status == 0, answer.err

    # What leads out of a folder of its own stays inside the image folder that holds them all.
    stays = {"link_that_leads_out", "dots_that_lead_out", "absolute_path_outside"}
    stays.add("folder_link_that_leads_out")
    bad = {case.name for case in IMAGES.cases(Quarantined)} - stays
    num_fine = len(IMAGES) - len(bad)
    assert answer.json()["prompts"] == {
        "used": inputs.num_good + num_fine,
        "skipped": {"unreadable_image": len(bad)},
    }
    rows = read_table(RunStore(inputs.home).quarantine_path("run"), "quarantine").to_pylist()
    assert {row["prompt_id"] for row in rows} == bad


def test_the_share_of_bad_images_stops_a_run_before_it_writes(
    csr: Csr, inputs: Inputs, tmp_path: Path
) -> None:
    (inputs.images / "broken.png").write_bytes(b"no image")
    records = [{"id": f"bad {n}", "image": "broken.png", "input": "Describe."} for n in range(3)]
    inputs.prompts(*records)
    share = 3 / (inputs.num_good + 3)
    refused = csr(*inputs.command, *bad_share(share - 0.01))
    assert refused.status == 2
    assert f"3 of {inputs.num_good + 3} records cannot be used" in refused.err
    assert "(unreadable_image 3)" in refused.err
    assert refused.err.count("none of JPEG, PNG") == 3
    assert not inputs.home.exists()
    assert csr(*inputs.command, *bad_share(share)).status == 0
