"""Pickles that leave a mark when they are loaded, in every place where weights might lie."""

import io
import shlex
import zipfile
from pathlib import Path

PICKLE = b"\x80\x02]."
"""A harmless one: an empty list."""

NAMES = (
    "pytorch_model.bin",
    "model.pkl",
    "model.pickle",
    "model.pt",
    "model.pth",
    "last.ckpt",
    "optimizer.pt",
    "training_args.bin",
    "adapter_model.bin",
    "open_clip_pytorch_model.bin",
    "prompts.pkl",
    "model.joblib",
)


def malicious(marker: Path) -> bytes:
    """A pickle that makes the file `marker` when it is loaded."""
    command = f"echo {shlex.quote(str(marker))} >> {shlex.quote(str(marker))}"
    assert "\n" not in command
    return f"cos\nsystem\n(V{command}\ntR.".encode()


def malicious_archive(marker: Path) -> bytes:
    """The same as PyTorch saves it: a zip archive around a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", malicious(marker))
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def lay(folder: Path, marker: Path) -> list[Path]:
    """Put all of them into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in NAMES]
    for number, path in enumerate(paths):
        path.write_bytes((malicious, malicious_archive)[number % 2](marker))
    return paths
