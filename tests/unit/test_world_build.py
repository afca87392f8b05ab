"""Where a world is kept, and that a half-built one is never seen."""

import fcntl
import os

import pytest

from csr.world.build import Config, build_world, world_name


class Interrupted(Exception):
    """Stands for any failure while building."""


def interrupt(part: str, done: int, total: int) -> None:
    if (part, done) == ("data", 20):
        raise Interrupted


def test_the_name_follows_the_configuration():
    assert world_name(Config()) == world_name(Config())
    assert world_name(Config()) != world_name(Config(seed=1))
    assert world_name(Config()) != world_name(Config.micro())


def test_a_failed_build_leaves_nothing(tmp_path):
    with pytest.raises(Interrupted):
        build_world(Config.micro(), tmp_path, interrupt)
    assert list((tmp_path / "worlds").iterdir()) == []


def test_what_a_killed_builder_left_is_removed_and_another_at_work_is_not(tmp_path):
    worlds = tmp_path / "worlds"
    left, used = worlds / ".building-left", worlds / ".building-used"
    for folder in (left, used):
        folder.mkdir(parents=True)
        (folder / "half").touch()
    handle = os.open(used, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # as its builder holds it
        with pytest.raises(Interrupted):
            build_world(Config.micro(), tmp_path, interrupt)
    finally:
        os.close(handle)
    assert list(worlds.iterdir()) == [used]
    assert (used / "half").exists()


def test_an_existing_world_is_returned_at_once(tmp_path):
    world = tmp_path / "worlds" / world_name(Config.micro())
    world.mkdir(parents=True)
    assert build_world(Config.micro(), tmp_path, interrupt) == world
    assert list(world.iterdir()) == []
