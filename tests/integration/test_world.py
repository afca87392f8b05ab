"""A micro world from end to end: its files load where users load them, and nothing varies."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from csr.errors import EnvironmentFault
from csr.world import clip, stages
from csr.world.build import Config, build_world
from csr.world.captions import DESCRIBE
from csr.world.drawing import draw
from csr.world.lessons import user_message
from csr.world.parts import run_parallel
from csr.world.scenes import SceneSettings, sample_scene, sample_scenes
from csr.world.tokenizer import IMAGE_ID
from csr.world.vlm import new_policy, save_policy

pytestmark = pytest.mark.slow

CONFIG = Config.micro()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_world(CONFIG, tmp_path_factory.mktemp("cache"), parallel=False)


def digests(directory):
    """Every file's hash but that of the summary, which tells times."""
    return {
        str(file.relative_to(directory)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in directory.rglob("*")
        if file.is_file() and file.name != "world.json"
    }


def records(world, name):
    return [json.loads(line) for line in (world / "data" / f"{name}.jsonl").open()]


def first_image(world):
    return Image.open(world / "data" / "images" / records(world, "train")[0]["image"])


def test_children_build_the_same_world_and_report_progress(world, tmp_path):
    seen = []
    again = build_world(CONFIG, tmp_path, lambda *event: seen.append(event))
    assert digests(again) == digests(world)
    assert len(digests(world)) > 50
    for part, total in (("data", 44), ("policy", 12), ("clip", 4)):
        counts = [done for name, done, of in seen if name == part and of == total]
        assert counts == sorted(counts)
        assert counts[-1] == total
    assert [entry.name for entry in (tmp_path / "worlds").iterdir()] == [again.name]


def test_another_seed_changes_the_policy_alone(world, tmp_path):
    other = digests(build_world(Config.micro(seed=1), tmp_path, parallel=False))
    changed = {name for name, digest in digests(world).items() if other[name] != digest}
    assert changed == {"policy/model.safetensors"}


def test_building_leaves_the_callers_random_state_alone(tmp_path):
    import torch

    torch.manual_seed(3)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    build_world(CONFIG, tmp_path, parallel=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_a_child_that_fails_is_reported_with_its_last_words(tmp_path):
    broken = CONFIG.model_dump(mode="json") | {"seed": "not a number"}
    with pytest.raises(EnvironmentFault, match=r"(?s)exit status 1.*not a number"):
        run_parallel(broken, tmp_path, lambda part, done, total: None)


def test_the_data_is_what_the_scenes_say(world):
    train, heldout = records(world, "train"), records(world, "heldout_captions")
    assert [len(train), len(heldout), len(records(world, "validation"))] == [24, 12, 8]
    assert train[0] == {"id": "train-00000", "image": "train-00000.png", "input": DESCRIBE}
    scene = sample_scene("heldout", 3, SceneSettings())
    assert heldout[3]["objects"][0] == {
        "name": scene.objects[0].name,
        "colour": scene.objects[0].colour,
        "position": scene.objects[0].position,
    }
    pixels = np.asarray(Image.open(world / "data" / "images" / heldout[3]["image"]))
    assert (pixels == draw(scene)).all()
    assert len(records(world, "heldout_pope")) == 3 * 2 * 6


def test_no_image_is_in_two_splits(world):
    files = list((world / "data" / "images").iterdir())
    hashes = {hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    assert len(hashes) == len(files) == 24 + 8 + 12


def test_the_models_are_trained_on_no_scene_of_the_dataset(tmp_path, monkeypatch):
    """Each draws its scenes from a split of its own, which no file of the dataset shows."""
    asked = {"stages": [], "clip": []}
    for module in (stages, clip):
        name = module.__name__.rpartition(".")[2]

        def spy(split, count, settings, name=name):
            asked[name].append(split)
            return sample_scenes(split, count, settings)

        monkeypatch.setattr(module, "sample_scenes", spy)
    build_world(CONFIG, tmp_path, parallel=False)
    assert asked == {"stages": ["policy-0"], "clip": ["reward-0"]}


def test_the_summary_tells_configuration_quality_and_times(world):
    summary = json.loads((world / "world.json").read_text())
    assert Config.model_validate(summary["config"]) == CONFIG
    assert set(summary["seconds"]) == set(summary["quality"]) == {"policy", "clip"}
    assert 0 <= summary["quality"]["policy"]["pope_accuracy_adversarial"] <= 1
    assert 0 <= summary["quality"]["clip"]["auc_shape"] <= 1
    assert summary["num_parameters"]["policy"] > 10_000


def test_the_policy_loads_with_the_logits_it_was_saved_with(world, tmp_path):
    """By the Auto classes and by path, after the renaming of the vision tower's weights."""
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForImageTextToText, AutoProcessor

    with torch.random.fork_rng(devices=[]):
        model = new_policy(CONFIG.policy, vocabulary_size=400).eval()
    save_policy(model, tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    processor = AutoProcessor.from_pretrained(tmp_path)
    text = processor.apply_chat_template([user_message(DESCRIBE)], add_generation_prompt=True)
    inputs = processor(images=first_image(world), text=text, return_tensors="pt")
    assert (inputs["input_ids"] == IMAGE_ID).sum() == 9
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    with safe_open(tmp_path / "model.safetensors", "pt") as weights:
        tower = [name for name in weights.keys() if "vision_tower" in name]  # noqa: SIM118
    assert tower
    assert all("vision_tower.vision_model." in name for name in tower)


def test_the_trained_policy_loads_by_path(world):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(world / "policy")
    assert model.config.text_config.vocab_size == len(
        AutoProcessor.from_pretrained(world / "policy").tokenizer
    )


def test_the_processor_normalises_as_training_did(world):
    import torch
    from transformers import AutoProcessor

    from csr.world.towers import normalise

    image = first_image(world)
    processor = AutoProcessor.from_pretrained(world / "policy")
    pixels = processor.image_processor(images=image, return_tensors="pt")["pixel_values"]
    trained_on = normalise(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])
    torch.testing.assert_close(pixels, trained_on, atol=1e-5, rtol=0)


def test_open_clip_reads_the_reward_model_by_path_wherever_it_lies(world, tmp_path):
    import open_clip
    import torch

    from csr.world.clip import encode_phrases
    from csr.world.scenes import SceneObject
    from csr.world.tokenizer import build_tokenizer
    from csr.world.towers import normalise

    moved = shutil.copytree(world / "clip", tmp_path / "moved")
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{moved}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{moved}")
    item = SceneObject(name="ring", colour="blue", position="top left")
    expected = encode_phrases(build_tokenizer(closed=True), [(item, 0)])
    assert tokenizer(["A blue ring is at the top left."]).tolist() == expected.tolist()
    image = first_image(world)
    trained_on = normalise(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])
    torch.testing.assert_close(preprocess(image)[None], trained_on, atol=1e-5, rtol=0)
    with torch.no_grad():
        cosine = (
            model.encode_image(trained_on, normalize=True)
            @ model.encode_text(expected, normalize=True).T
        )
    assert cosine.shape == (1, 1)
    assert -1 <= cosine.item() <= 1


def test_training_encodes_sentences_as_open_clip_does(world):
    import open_clip
    import torch

    from csr.world.clip import SENTENCES, encode_phrases, encode_text
    from csr.world.tokenizer import build_tokenizer

    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{world / 'clip'}")
    ids = encode_phrases(build_tokenizer(closed=True), [(item, 1) for item in SENTENCES[:40]])
    with torch.no_grad():
        torch.testing.assert_close(encode_text(model, ids), model.encode_text(ids, normalize=True))
