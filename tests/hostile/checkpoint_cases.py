"""Model directories. Builders get a good one, of `config.json` and safetensors, and spoil it."""

import json
import os
import shutil
import struct
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.hostile.bait import PICKLE, malicious
from tests.hostile.cases import Corpus, Fine, Refused

WEIGHTS = "model.safetensors"
NO_WEIGHTS = "has no safetensors weights"
NO_JSON = "cannot be read as JSON"
DAMAGED = "is damaged and cannot be read"
BROKEN = "has NaN or infinite values in 1 weights (first: broken)"

CHECKPOINTS = Corpus()


def write_weights(policy: Path, **tensors: np.ndarray) -> None:
    save_file({"good": np.ones(3, np.float32)} | tensors, policy / WEIGHTS)


def write_header(policy: Path, header: bytes, data: bytes = b"") -> None:
    """A safetensors file of this header, whatever it says."""
    (policy / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header + data)


@CHECKPOINTS.add(Refused("the path does not exist"))
def nothing(policy: Path) -> None:
    shutil.rmtree(policy)


@CHECKPOINTS.add(Refused("is a file. Give the directory"))
def a_file(policy: Path) -> None:
    shutil.rmtree(policy)
    policy.write_bytes(PICKLE)


@CHECKPOINTS.add(Refused("has no config.json"))
def an_empty_folder(policy: Path) -> None:
    shutil.rmtree(policy)
    policy.mkdir()


for name in ("pytorch_model.bin", "model.pkl", "model.pt", "model.pth", "last.ckpt"):

    def pickle_alone(policy: Path, name: str = name) -> None:
        (policy / WEIGHTS).unlink()
        (policy / name).write_bytes(malicious(policy / "owned"))

    CHECKPOINTS.put(
        f"{name}_alone",
        pickle_alone,
        Refused(f"{NO_WEIGHTS} (only {name}, which can run code when loaded)"),
    )


@CHECKPOINTS.add(Refused(DAMAGED))
def pickle_named_safetensors(policy: Path) -> None:
    (policy / WEIGHTS).write_bytes(malicious(policy / "owned"))


@CHECKPOINTS.add(Refused(f"{NO_WEIGHTS} (none)"))
def no_weights_at_all(policy: Path) -> None:
    (policy / WEIGHTS).unlink()


@CHECKPOINTS.add(Refused(DAMAGED))
def truncated_weights(policy: Path) -> None:
    data = (policy / WEIGHTS).read_bytes()
    (policy / WEIGHTS).write_bytes(data[:-3])


@CHECKPOINTS.add(Refused(DAMAGED))
def truncated_header(policy: Path) -> None:
    data = (policy / WEIGHTS).read_bytes()
    (policy / WEIGHTS).write_bytes(data[:20])


@CHECKPOINTS.add(Refused(DAMAGED))
def empty_weights(policy: Path) -> None:
    (policy / WEIGHTS).write_bytes(b"")


@CHECKPOINTS.add(Refused(DAMAGED))
def header_of_an_exabyte(policy: Path) -> None:
    (policy / WEIGHTS).write_bytes(struct.pack("<Q", 2**60) + b"{}")


@CHECKPOINTS.add(Refused(DAMAGED))
def header_that_is_no_json(policy: Path) -> None:
    write_header(policy, b"{not json")


@CHECKPOINTS.add(Refused(DAMAGED))
def tensors_that_overlap(policy: Path) -> None:
    tensor = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    write_header(policy, json.dumps({"a": tensor, "b": tensor}).encode(), bytes(4))


@CHECKPOINTS.add(Refused(DAMAGED))
def tensor_that_points_outside(policy: Path) -> None:
    tensor = {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}
    write_header(policy, json.dumps({"a": tensor}).encode(), bytes(4))


@CHECKPOINTS.add(Refused(DAMAGED))
def bytes_behind_the_weights(policy: Path) -> None:
    with (policy / WEIGHTS).open("ab") as file:
        file.write(PICKLE)


@CHECKPOINTS.add(Refused("it is no file"))
def weights_that_are_a_pipe(policy: Path) -> None:
    os.mkfifo(policy / "more.safetensors")


@CHECKPOINTS.add(Refused(BROKEN))
def one_nan(policy: Path) -> None:
    write_weights(policy, broken=np.array([1, np.nan, 3], np.float32))


@CHECKPOINTS.add(Refused(BROKEN))
def one_infinity(policy: Path) -> None:
    write_weights(policy, broken=np.array([1, 2, -np.inf], np.float32))


@CHECKPOINTS.add(Refused(BROKEN))
def one_nan_in_16_bits(policy: Path) -> None:
    write_weights(policy, broken=np.array([65504, np.nan], np.float16))


@CHECKPOINTS.add(Refused(BROKEN))
def one_infinity_in_64_bits(policy: Path) -> None:
    write_weights(policy, broken=np.array([1e308, np.inf]))


@CHECKPOINTS.add(Refused(BROKEN))
def one_nan_in_bfloat16(policy: Path) -> None:
    tensor = {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}
    write_header(policy, json.dumps({"broken": tensor}).encode(), struct.pack("<HH", 1, 0x7FC0))


@CHECKPOINTS.add(Refused("first: broken"))
def one_nan_in_a_second_file(policy: Path) -> None:
    save_file({"broken": np.array([np.nan], np.float32)}, policy / "model-00002.safetensors")


for name, text in {
    "config_cut_in_the_middle": '{"model_type": ',
    "config_nested_100000_deep": '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "config_with_a_huge_integer": '{"a": ' + "9" * 5000 + "}",
    "config_that_is_a_list": "[1, 2]",
    "config_that_is_empty": "",
    "config_of_100_megabytes": '{"a": "' + "x" * 2**24 + '"}',
}.items():

    def spoil_config(policy: Path, text: str = text) -> None:
        (policy / "config.json").write_text(text)

    CHECKPOINTS.put(name, spoil_config, Refused(NO_JSON))


@CHECKPOINTS.add(Refused(NO_JSON))
def config_in_utf_16(policy: Path) -> None:
    (policy / "config.json").write_bytes('{"a": "é"}'.encode("utf-16"))


@CHECKPOINTS.add(Refused("has no config.json"))
def config_that_is_a_pipe(policy: Path) -> None:
    (policy / "config.json").unlink()
    os.mkfifo(policy / "config.json")


@CHECKPOINTS.add(Fine())
def pickle_beside_safetensors(policy: Path) -> None:
    for name in ("pytorch_model.bin", "optimizer.pt", "training_args.bin"):
        (policy / name).write_bytes(malicious(policy / "owned"))


@CHECKPOINTS.add(Fine())
def code_that_is_never_run(policy: Path) -> None:
    config = {"model_type": "scripted", "auto_map": {"AutoConfig": "modeling.Config"}}
    (policy / "config.json").write_text(json.dumps(config))
    (policy / "modeling.py").write_text("raise SystemExit('code of the checkpoint ran')\n")


@CHECKPOINTS.add(Fine())
def extreme_but_finite_weights(policy: Path) -> None:
    largest = np.finfo(np.float32).max
    write_weights(policy, large=np.array([largest, -largest, 1e-45], np.float32))


@CHECKPOINTS.add(Fine())
def a_tensor_of_no_values(policy: Path) -> None:
    write_weights(policy, none=np.zeros((0, 4), np.float32), count=np.array([-1], np.int64))
