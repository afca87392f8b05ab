"""What the pages say to type: their fenced blocks, and the commands in them."""

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

from flows.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`((?:csr|make) [^`]+)`(?!`)")
ENDS = ("&&", "||", "|", ";", "&", ">")
"""What ends a command on its line."""


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: str
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """One command, as words."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def blocks(page: Path) -> list[Block]:
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [Block(page.name, language, textwrap.dedent(text)) for _, language, text in found]


def commands_of(block: Block) -> list[Command]:
    """Every command of a block that is written for a shell."""
    if block.language not in ("", "sh", "bash", "console"):
        return []
    lines = block.text.replace("\\\n", " ").splitlines()
    return [Command(block.page, words) for line in lines for words in split(line.strip())]


def split(line: str) -> list[tuple[str, ...]]:
    """The commands of a line, without comment. A line that is no shell's has none."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;>")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # an apostrophe in a text that is shown
        return []
    commands: list[list[str]] = [[]]
    for word in words:
        if word in ENDS:
            commands.append([])
        else:
            commands[-1].append(word)
    return [tuple(command) for command in commands if command]


def ours(program: str) -> list[Command]:
    """All commands of `program` in the pages' blocks and in the examples of `csr --help`."""
    shown = [block for page in PAGES for block in blocks(page)]
    helps = [app, *(app[name] for name in verbs())]
    shown += [
        Block(f"csr {each.name[0]} --help", "sh", text)
        for each in helps
        for text in re.findall(r"```sh\n(.*?)```", each.help_epilogue or "", re.DOTALL)
    ]
    found = [command for block in shown for command in commands_of(block)]
    return [each for each in found if each.words[0] in (program, f".venv/bin/{program}")]


def verbs() -> list[str]:
    """The commands of `csr`, by name."""
    return [name for name in app if not name.startswith("-")]


def inline_commands() -> list[Command]:
    """Commands in running text: often a part of one, such as `csr plan`."""
    return [
        Command(page.name, words)
        for page in PAGES
        for code in INLINE.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
        for words in split(" ".join(code.split()))[:1]
    ]
