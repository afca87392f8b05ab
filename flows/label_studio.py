"""Verdicts to and from Label Studio, by files: its tasks out, its JSON export in.

One task is one response: `data` holds the image (as a `data:` URI, so that nothing else must be
served), what was asked, the response and its IDs; the verdict is a choice. What people have said
already travels as annotations, each with its annotator's name in the result's `meta`, since Label
Studio refuses to import annotations of users that it does not know.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csr.annotations import Annotation, AnnotationVerdict
from csr.errors import ConfigError, DataError, shown
from csr.protocols import Json
from flows.review import Desk, Response
from flows.review_html import image_uri
from flows.waking import go_on
from storage.atomic import write_text
from storage.verdicts import annotator_name

CHOICES = tuple(verdict.value for verdict in AnnotationVerdict)
_FROM, _TO, _NAME = "verdict", "response", "csr_annotator"

INTERFACE = """\
<View>
  <Image name="image" value="$image"/>
  <Header value="$question"/>
  <Text name="response" value="$response"/>
  <Choices name="verdict" toName="response" choice="single" required="true" showInLine="true">
    <Choice value="accept" hotkey="a"/>
    <Choice value="refuse" hotkey="r"/>
    <Choice value="skip" hotkey="s"/>
  </Choices>
</View>
"""
"""Label Studio's labelling interface for these tasks."""


def export_tasks(desk: Desk, path: Path) -> Json:
    """Write the tasks to `path`, the labelling interface beside it as `.xml`.

    `{"exported": path, "interface": path, "num_tasks", "num_annotations"}`. DataError for an image
    that cannot be read; EnvironmentFault where the disk takes no more.
    """
    said: dict[str, list[Annotation]] = {}
    for each in desk.verdicts.read():
        said.setdefault(each.response_id, []).append(each)
    images: dict[str, str] = {}
    tasks = []
    for response in desk.responses:
        image = response.prompt.image
        if image.sha256 not in images:
            images[image.sha256] = image_uri(image)
        annotations = [_annotation(each) for each in said.get(response.response_id, [])]
        data = {**_identity(desk, response), "image": images[image.sha256]}
        tasks.append({"data": data, "annotations": annotations})
    interface = path.with_suffix(".xml")
    lines = ",\n".join(json.dumps(task, ensure_ascii=False) for task in tasks)
    write_text(path, f"[\n{lines}\n]\n")
    write_text(interface, INTERFACE)
    return {
        "exported": str(path),
        "interface": str(interface),
        "num_tasks": len(tasks),
        "num_annotations": sum(map(len, said.values())),
    }


def import_verdicts(desk: Desk, path: Path) -> Json:
    """Keep the annotations of Label Studio's JSON export as verdicts: all of them, or none.

    `{"imported": path, "num_verdicts", "num_known", "num_tasks_without"}`; a verdict that this
    person has given already counts as known. DataError names the task that cannot be used.
    """
    tasks = _read(path)
    found, num_without = list[Annotation](), 0
    for place, task in enumerate(tasks, start=1):
        verdicts = list(_verdicts(desk, task, f"{path}: task {place}"))
        found += verdicts
        num_without += not verdicts
    known = {(v.annotator, v.response_id): v.verdict for v in desk.verdicts.read()}
    num_new = 0
    for verdict in found:
        key = (verdict.annotator, verdict.response_id)
        if known.get(key) != verdict.verdict:
            desk.keep(verdict)
            known[key] = verdict.verdict
            num_new += 1
    standing = desk.standing("", desk.verdicts.read())
    told = go_on(desk.attempt) if standing.is_reached and not desk.is_closed() else ""
    return {
        "imported": str(path),
        "num_verdicts": num_new,
        "num_known": len(found) - num_new,
        "num_tasks_without": num_without,
        "num_judged": standing.num_judged,
        "num_wanted": standing.num_wanted,
        "goes_on": told,
    }


def table(shape: Json) -> str:
    """The shape for people."""
    if "exported" in shape:
        return (
            f"{shape['num_tasks']} tasks with {shape['num_annotations']} annotations: "
            f"{shape['exported']}\nLabelling interface: {shape['interface']}"
        )
    return (
        f"{shape['num_verdicts']} new verdicts, {shape['num_known']} known already, "
        f"{shape['num_tasks_without']} tasks without any.\n{shape['num_judged']} of "
        f"{shape['num_wanted']} responses are judged. {shape['goes_on']}"
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the file something is, for messages."""

    text: str

    def error(self, problem: str, mend: str) -> DataError:
        return DataError(f"{self.text}: {problem}. {mend}")


def _identity(desk: Desk, response: Response) -> dict[str, str]:
    return {
        "attempt": desk.attempt_id,
        "response_id": response.response_id,
        "prompt_id": response.prompt.prompt_id,
        "question": response.prompt.text,
        "response": response.text,
    }


def _annotation(verdict: Annotation) -> Json:
    result = {
        "from_name": _FROM,
        "to_name": _TO,
        "type": "choices",
        "value": {"choices": [verdict.verdict.value]},
        "meta": {_NAME: verdict.annotator},
    }
    return {"result": [result], "created_at": verdict.created_at}


def _read(path: Path) -> list[Any]:
    try:
        tasks = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}).") from error
    if not isinstance(tasks, list):
        raise DataError(
            f"{path} holds no list of tasks. Export from Label Studio as JSON, not as JSON-MIN, "
            "CSV or another format."
        )
    return tasks


def _verdicts(desk: Desk, task: Any, where: str) -> Iterator[Annotation]:
    place = _Place(where)
    if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
        raise place.error("no task with `data`", "Export from Label Studio as JSON.")
    response = _response(desk, task["data"], place)
    annotations = task.get("annotations", [])
    if not isinstance(annotations, list):
        raise place.error("`annotations` is no list", "Export from Label Studio as JSON.")
    for annotation in annotations:
        if not isinstance(annotation, dict):
            raise place.error("an annotation is no object", "Export from Label Studio as JSON.")
        result = _result(annotation, place)
        created = annotation.get("updated_at") or annotation.get("created_at")
        yield Annotation(
            response_id=response.response_id,
            prompt_id=response.prompt.prompt_id,
            verdict=_choice(annotation, result, place),
            annotator=_annotator(annotation, result, place),
            created_at=created if isinstance(created, str) else None,
        )


def _response(desk: Desk, data: Mapping[str, Any], place: _Place) -> Response:
    """The response that the task is about, proved to be this attempt's and unchanged."""
    identity = data.get("response_id")
    response = desk.by_id.get(identity) if isinstance(identity, str) else None
    mend = f"Import tasks that csr review {desk.attempt_id} --export wrote."
    if response is None:
        raise place.error(f"{desk.attempt_id} has no response {shown(identity)}", mend)
    for name, value in _identity(desk, response).items():
        if data.get(name) != value:
            raise place.error(f"its {name} is {shown(data.get(name))}, not {shown(value)}", mend)
    return response


def _result(annotation: Mapping[str, Any], place: _Place) -> Mapping[str, Any]:
    """The part that holds the choice; empty where the annotator skipped the task."""
    results = annotation.get("result")
    for result in results if isinstance(results, list) else []:
        if isinstance(result, dict) and result.get("from_name") == _FROM:
            return result
    if annotation.get("was_cancelled") is True:
        return {}
    raise place.error(
        f"an annotation has no choice {_FROM!r}", "Choose one there, or delete the annotation."
    )


def _choice(
    annotation: Mapping[str, Any], result: Mapping[str, Any], place: _Place
) -> AnnotationVerdict:
    if annotation.get("was_cancelled") is True:
        return AnnotationVerdict.SKIP
    value = result.get("value")
    choices = value.get("choices") if isinstance(value, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or choices[0] not in CHOICES:
        raise place.error(
            f"the choice is {shown(choices)}", f"It must be one of {', '.join(CHOICES)}."
        )
    return AnnotationVerdict(choices[0])


def _annotator(annotation: Mapping[str, Any], result: Mapping[str, Any], place: _Place) -> str:
    """The name that we gave out; else the user's e-mail address, or number."""
    meta, by = result.get("meta"), annotation.get("completed_by")
    name = meta.get(_NAME) if isinstance(meta, dict) else None
    if name is None and isinstance(by, dict):
        name = by.get("email") or by.get("id")
    elif name is None:
        name = by
    if isinstance(name, int) and not isinstance(name, bool):
        name = f"label-studio-{name}"
    if not isinstance(name, str):
        raise place.error(
            "an annotation names nobody in `completed_by`", "Export from Label Studio as JSON."
        )
    try:
        return annotator_name(name)
    except ConfigError as error:
        raise place.error(f"the annotator: {error}", "Rename the user there.") from None
