"""`csr export`: checks, then a folder that appears whole or not at all, then the hub."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from csr.errors import ConfigError
from csr.protocols import Json
from flows.exporting import hub
from flows.exporting.dataset import write_dataset
from flows.exporting.model import write_model
from flows.exporting.output import checked_output, new_folder, write_record
from flows.exporting.request import ExportRequest
from flows.exporting.subject import Subject, read_subject

EXPORT_VERSION = 1


def export(request: ExportRequest) -> Json:
    """`{"exported", "format", "iteration_id", "counts", "left_out", "warnings", "pushed"}`.

    CSRError where anything is in the way; then nothing is written, and what was there stays.
    """
    _check_options(request)
    subject = read_subject(request.home, request.iteration_id)
    output = checked_output(
        request.output,
        overwrite=request.overwrite,
        closed=[subject.store.run_path(subject.run.run_id), Path(subject.base.model_path)],
        read=_inputs(subject),
    )
    push, api = _push(request), None
    if push is not None:
        api = hub.connect()
        hub.refuse_taken(api, push)
    with new_folder(output) as building:
        made = _write(subject, request, building, output)
        facts = {"export_version": EXPORT_VERSION, "format": request.format,
                 "iteration_id": subject.id, "counts": made["counts"],
                 "left_out": made["left_out"]}  # fmt: skip
        policy = {key: made["policy"][key] for key in ("name", "sha256")}
        record = {**facts, "warnings": subject.warnings(), "policy": policy}
        write_record(building, {**record, "csr": subject.manifest.code_version})
    url = None
    if push is not None and api is not None:
        url = hub.upload(api, push, output, f"{request.format} of {subject.id}, by csr export")
    del facts["export_version"]
    return {"exported": str(output), **facts, "warnings": subject.warnings(), "pushed": url}


def table(shape: Json) -> str:
    """The shape for people."""
    numbers = [f"{number:,} {what}" for what, number in shape["counts"].items()]
    numbers += [f"{number:,} left out ({why})" for why, number in shape["left_out"].items()]
    lines = [f"{shape['iteration_id']} as {shape['format']}: {', '.join(numbers)}"]
    lines += [f"Attention: {sentence}" for sentence in shape["warnings"]]
    lines += [f"Folder: {shape['exported']}"]
    return "\n".join([*lines, f"Hub: {shape['pushed']}"] if shape["pushed"] else lines)


def _check_options(request: ExportRequest) -> None:
    of_model = {"--what": request.what, "--base-model": request.base_model}
    unused = {"--images": request.images} if request.format == "model" else of_model
    if given := [option for option, value in unused.items() if value is not None]:
        raise ConfigError(
            f"{', '.join(given)} says nothing about --format {request.format}. Leave it out."
        )
    if request.push is None and request.private:
        raise ConfigError("--private says how to --push, and nothing is pushed. Give both.")
    if request.push is not None:
        hub.check_name(request.push, "--push")
        if request.images not in (None, "copy"):
            raise ConfigError(
                f"--images {request.images} leaves the images on this machine, where a hub has "
                "none of them. Push with --images copy."
            )
    if request.base_model is not None:
        hub.check_name(request.base_model, "--base-model")


def _push(request: ExportRequest) -> hub.Push | None:
    if request.push is None:
        return None
    return hub.Push(
        repo_id=request.push,
        repo_type="model" if request.format == "model" else "dataset",
        private=request.private,
        overwrite=request.overwrite,
    )


def _inputs(subject: Subject) -> Iterable[Path]:
    """What of the user's lies behind the run; a name that is no path here does no harm."""
    data = subject.config["data"]
    return [Path(data[name]) for name in ("images", "prompts") if data.get(name)]


def _write(subject: Subject, request: ExportRequest, building: Path, output: Path) -> Json:
    if request.format == "model":
        return write_model(
            subject,
            request.what or "merged",
            building,
            base_model=request.base_model,
            for_hub=request.push is not None,
        )
    return write_dataset(subject, request.format, request.images or "copy", building, output)
