"""Reads Markdown the way its readers use it: code blocks, links, commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_SHELL_END = frozenset({"|", "&&", ";", "&", ">", "2>&1"})


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language tag, its text and the heading it stands under."""

    language: str
    text: str
    heading: str

    def lines(self) -> list[str]:
        """Its commands, continuation lines joined, comments left out."""
        joined = self.text.replace("\\\n", " ").splitlines()
        return [line for line in joined if line.strip() and not line.lstrip().startswith("#")]


def blocks(text: str) -> list[Block]:
    """Every fenced block in order."""
    found = []
    for match in _FENCE.finditer(text):
        above = _HEADING.findall(text[: match.start()])
        found.append(Block(match[1], match[2], above[-1] if above else ""))
    return found


def links(text: str) -> list[str]:
    """Targets of links to files."""
    return _LINK.findall(text)


def commands(text: str, program: str) -> Iterator[list[str]]:
    """Every command line of a program: in fenced blocks and in code spans."""
    lines = [line.removeprefix("$ ") for block in blocks(text) for line in block.lines()]
    lines += [span.replace("\n", " ") for span in _SPAN.findall(_FENCE.sub("", text))]
    for line in lines:
        if not line.startswith(f"{program} "):
            continue
        words = shlex.split(line, comments=True)
        end = next((at for at, word in enumerate(words) if word in _SHELL_END), len(words))
        yield words[:end]


def markdown(root: Path) -> list[Path]:
    """The README, the pages under docs and the one about deployment."""
    return [root / "README.md", *sorted(root.glob("docs/**/*.md")), root / "deploy" / "README.md"]
