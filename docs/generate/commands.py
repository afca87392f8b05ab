"""Every command, as its own help tells it."""

from __future__ import annotations

import re

from flows.cli import app

INTRODUCTION = """\
# Commands

What `csr COMMAND --help` says, in the order of `csr --help`. Exit status: 0; 1 when a run fails,
waits for people, or a check finds something; 2 for a mistake that you can mend, told in one
message.

`csr completion --install` teaches bash, zsh or fish to complete all of this, runs and iterations
included.
"""


def page() -> str:
    """The whole page as Markdown."""
    text = app.generate_docs(heading_level=1, usage_name="csr")
    overview, *sections = re.split(r"^(?=## csr )", text, flags=re.MULTILINE)
    index = overview[overview.index("**First steps**") :]
    index = re.sub(r"\n+\* `(--help|--version).*", "", index)
    told = {section.split()[2]: section for section in sections}
    order = re.findall(r"^\* \[`([\w-]+)`\]", index, flags=re.MULTILINE)
    examples = [_with_examples(told[name]) for name in order]
    return "\n".join([INTRODUCTION, index.rstrip() + "\n", *examples])


def _with_examples(section: str) -> str:
    """The section with the examples that end the command's help."""
    name = section.split()[2]
    return f"{section.rstrip()}\n\n{app[name].help_epilogue or ''}\n"
