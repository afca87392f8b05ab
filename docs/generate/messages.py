"""Every message that a user can be told, from the places in the code that raise it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from csr import errors

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("csr", "rewards", "storage", "flows")
KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.CSRError | errors.RunFailed)
}
INTRODUCTION = """\
# Messages

Everything that `csr` can refuse or fail with, read from the code. `…` stands for what you gave or
what was found. Search this page for a few words of your message;
[Troubleshooting](../troubleshooting.md) says more about the usual ones.
"""


@dataclass(frozen=True)
class Message:
    """One message, with `…` for what is filled in."""

    kind: str
    text: str
    file: str


def messages() -> list[Message]:
    """All that is raised as one of our errors with a text of its own."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    trees = {str(file.relative_to(ROOT)): ast.parse(file.read_text("utf-8")) for file in files}
    kinds = _kinds(trees.values())
    return [message for file, tree in trees.items() for message in _raised(file, tree, kinds)]


def texts(tree: ast.AST) -> Iterator[str]:
    """Every text in a piece of code, adjoining ones joined, `…` for what is filled in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield _joined(node)


def page() -> str:
    """The whole page as Markdown."""
    parts = [INTRODUCTION]
    found = messages()
    for kind in KINDS:
        mine = [message for message in found if message.kind == kind]
        if not mine:
            continue
        parts.append(f"## {kind}\n\n{(KINDS[kind].__doc__ or '').strip()}\n")
        parts += [f"- {_escaped(m.text)} (`{m.file}`)" for m in mine]
        parts.append("")
    return "\n".join(parts)


def _kinds(trees: Iterable[ast.AST]) -> dict[str, str]:
    """Class -> the kind that it is one of. A validator's `ValueError` is told as `ConfigError`."""
    kinds = {name: name for name in KINDS} | {"ValueError": "ConfigError"}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                for base in node.bases:
                    if isinstance(base, ast.Name) and base.id in KINDS:
                        kinds.setdefault(node.name, base.id)
    return kinds


def _raised(file: str, tree: ast.AST, kinds: dict[str, str]) -> Iterator[Message]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if node.func.id in kinds and node.args and (text := _text(node.args[0])):
            yield Message(kinds[node.func.id], text, file)


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return _joined(node)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BinOp):
        return (_text(node.left) or "…") + (_text(node.right) or "…")
    return ""


def _joined(node: ast.JoinedStr) -> str:
    return "".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in node.values)


def _escaped(text: str) -> str:
    """As Markdown, on one line."""
    for sign in r"\*_<>[]{}#|$":
        text = text.replace(sign, "\\" + sign)
    return " ".join(text.split())
