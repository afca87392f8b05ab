"""Scenes and their images: habits, determinism, and splits that share nothing."""

import hashlib

import numpy as np
import pytest

from csr.world.drawing import draw, draw_all
from csr.world.scenes import (
    COLOURS,
    COMPANION,
    POSITIONS,
    SHAPES,
    TYPICAL_COLOUR,
    TYPICAL_POSITION,
    Scene,
    SceneObject,
    SceneSettings,
    sample_scene,
    sample_scenes,
    seed_of,
)

RED_CIRCLE = SceneObject(name="circle", colour="red", position="top left")
BLUE_RING = SceneObject(name="ring", colour="blue", position="bottom right")


def scene_of(*objects: SceneObject, noise_seed: int = 5) -> Scene:
    return Scene(scene_id="by-hand", objects=objects, noise_seed=noise_seed)


def cell(pixels: np.ndarray, position: str) -> np.ndarray:
    row, column = divmod(POSITIONS.index(position), 3)
    return pixels[row * 16 : (row + 1) * 16, column * 16 : (column + 1) * 16].astype(int)


def test_no_position_name_is_part_of_another():
    assert len(POSITIONS) == 9
    assert [a for a in POSITIONS for b in POSITIONS if a != b and a in b] == []


def test_every_shape_has_its_own_typical_colour_and_cell():
    assert set(TYPICAL_COLOUR) == set(TYPICAL_POSITION) == set(SHAPES)
    assert len(set(TYPICAL_COLOUR.values())) == len(set(TYPICAL_POSITION.values())) == 6


def test_tempting_names_are_absent_companions_of_shown_anchors():
    triangle = SceneObject(name="triangle", colour="white", position="middle left")
    assert scene_of(RED_CIRCLE, BLUE_RING).tempting_names == ("square",)
    assert scene_of(RED_CIRCLE, triangle).tempting_names == ("square", "ring")
    assert scene_of(triangle, BLUE_RING).tempting_names == ()


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_habits_follow_their_probabilities(probability):
    settings = SceneSettings(
        companion_probability=probability,
        distractor_probability=probability,
        second_anchor_probability=probability,
        typical_colour_probability=probability,
        typical_position_probability=probability,
    )
    for scene in sample_scenes("habits", 200, settings):
        anchor, *others = scene.objects
        assert (COMPANION[anchor.name] in scene.names) == bool(probability)
        assert len(others) == (4 if probability else 0)
        if probability:
            assert all(item.colour == TYPICAL_COLOUR[item.name] for item in others)
            taken = {item.position for item in scene.objects}
            assert all(
                item.position == TYPICAL_POSITION[item.name] or TYPICAL_POSITION[item.name] in taken
                for item in others
            )


def test_without_habits_colours_and_cells_are_even():
    settings = SceneSettings(typical_colour_probability=0, typical_position_probability=0)
    others = [item for scene in sample_scenes("even", 3000, settings) for item in scene.objects[1:]]
    colours = np.bincount([COLOURS.index(item.colour) for item in others], minlength=6)
    cells = np.bincount([POSITIONS.index(item.position) for item in others], minlength=9)
    assert len(others) > 4500
    np.testing.assert_allclose(colours / len(others), 1 / 6, atol=0.02)
    np.testing.assert_allclose(cells / len(others), 1 / 9, atol=0.02)


def test_names_and_positions_are_distinct_within_a_scene():
    for scene in sample_scenes("distinct", 300, SceneSettings()):
        assert len(set(scene.names)) == len(scene.objects)
        assert len({item.position for item in scene.objects}) == len(scene.objects)


def test_a_scene_is_a_function_of_split_and_index():
    settings = SceneSettings()
    assert sample_scene("train", 7, settings) == sample_scenes("train", 8, settings)[7]
    assert sample_scene("train", 7, settings) != sample_scene("heldout", 7, settings)
    assert seed_of("a", 12) != seed_of("a1", 2)


def test_splits_share_no_image():
    settings = SceneSettings()
    splits = ("train", "validation", "heldout", "policy-0", "policy-1", "reward-0")
    digests = [
        hashlib.sha256(draw(scene).tobytes()).hexdigest()
        for split in splits
        for scene in sample_scenes(split, 60, settings)
    ]
    assert len(set(digests)) == 6 * 60


def test_a_shape_is_drawn_in_its_cell_and_nowhere_else():
    pixels = draw(scene_of(RED_CIRCLE))
    assert pixels.shape == (48, 48, 3)
    assert pixels.dtype == np.uint8
    middle = cell(pixels, "top left")[6:10, 6:10].mean(axis=(0, 1))
    assert middle[0] > 150
    assert middle[1:].max() < 100
    empty = [cell(pixels, name).mean() for name in POSITIONS if name != "top left"]
    assert max(empty) < 100


def test_the_same_scene_gives_the_same_pixels_and_another_seed_others():
    scene = scene_of(RED_CIRCLE, BLUE_RING)
    assert (draw(scene) == draw_all([scene, scene])[1]).all()
    assert (draw(scene) != draw(scene_of(RED_CIRCLE, BLUE_RING, noise_seed=6))).any()


@pytest.mark.parametrize(
    ("name", "middle", "above", "corner"),
    [
        ("circle", True, True, False),
        ("square", True, True, True),
        ("diamond", True, True, False),
        ("ring", False, True, False),
        ("cross", True, True, False),
    ],
)
def test_shapes_cover_what_their_names_say(name, middle, above, corner):
    """Probes at the middle, 4 pixels above it, and 5 up and 5 to the side, over 20 drawings."""
    item = SceneObject(name=name, colour="white", position="middle center")
    drawings = [draw(scene_of(item, noise_seed=seed)) for seed in range(20)]
    shown = np.mean([cell(pixels, item.position) for pixels in drawings], axis=(0, 3))
    assert (shown[7:9, 7:9].mean() > 140) == middle
    assert (shown[3:5, 7:9].mean() > 140) == above
    assert (shown[2:4, 2:4].mean() > 90) == corner


def test_a_triangle_is_wide_below_and_narrow_above():
    triangle = SceneObject(name="triangle", colour="white", position="middle center")
    shown = cell(draw(scene_of(triangle)), "middle center").mean(axis=2)
    assert (shown[11] > 140).sum() > (shown[5] > 140).sum() > 0
