"""What the command line may ask of an export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FormatName = Literal["trl", "llama-factory", "ms-swift", "llava", "model"]
ImagesMode = Literal["copy", "link", "reference"]
What = Literal["merged", "adapter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """One `csr export`."""

    home: Path
    iteration_id: str
    format: FormatName
    output: Path
    images: ImagesMode | None = None
    """None copies them."""
    what: What | None = None
    """Of a model; None is the merged one."""
    base_model: str | None = None
    """Hub id of the base where the recipe names a directory."""
    push: str | None = None
    private: bool = False
    overwrite: bool = False
