"""What `accelerate launch` is told, and what of a user's file cannot be launched."""

import re
from pathlib import Path

import pytest

from csr.errors import EnvironmentFault
from csr.trainers._processes import launch_settings
from csr.trainers.dpo import Config

ROOT = Path(__file__).parents[2]


def test_without_a_file_each_process_has_a_whole_copy() -> None:
    settings = launch_settings(Config(num_processes=3, device="cpu"))
    assert (settings["distributed_type"], settings["num_processes"]) == ("MULTI_GPU", 3)
    assert (settings["use_cpu"], settings["mixed_precision"]) == (True, "no")


@pytest.mark.parametrize("name", ["fsdp", "deepspeed_zero3"])
def test_the_recipes_file_decides_but_for_the_number_of_processes(name: str) -> None:
    file = ROOT / "deploy" / "accelerate" / f"{name}.yaml"
    config = Config(num_processes=8, accelerate_config=file, checkpoint_every_num_steps=0)
    assert config.is_launched
    settings = launch_settings(config)
    assert settings["distributed_type"] == {"fsdp": "FSDP"}.get(name, "DEEPSPEED")
    assert (settings["num_processes"], settings["num_machines"]) == (8, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ("- a", "has no distributed_type"),
        ("num_machines: 1", "has no distributed_type"),
        ("{distributed_type: FSDP, num_machines: 4}", "is for 4 machines"),
    ],
)
def test_a_file_that_cannot_be_launched_is_refused(
    tmp_path: Path, text: str | None, message: str
) -> None:
    file = tmp_path / "accelerate.yaml"
    if text is not None:
        file.write_text(text)
    config = Config(accelerate_config=file, checkpoint_every_num_steps=0)
    told = f"accelerate_config: {re.escape(str(file))} {message}"
    with pytest.raises(EnvironmentFault, match=told):
        launch_settings(config)


def test_shards_are_not_checkpointed() -> None:
    with pytest.raises(ValueError, match="checkpoint_every_num_steps cannot go with"):
        Config(accelerate_config=Path("fsdp.yaml"))
