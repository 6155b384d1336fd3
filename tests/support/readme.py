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
_INNER = re.compile(r"\$\(([^()]*)\)")
_ASSIGNED = re.compile(r"\w+=")
_KEYWORDS = frozenset({"do", "done", "else", "fi", "if", "then", "while", "!", "export"})


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


def commands(script: str) -> Iterator[list[str]]:
    """Every command of a shell script, those inside ``$(...)`` too, as its words.

    Keywords, assignments before a command, and redirections are left out.

    Raises:
        ValueError: A quote is not closed on its line.
    """
    for line in script.replace("\\\n", " ").splitlines():
        for inner in _INNER.findall(line):
            yield from commands(inner)
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()<>")
        lexer.whitespace_split = True
        words: list[str] = []
        redirected = False
        for word in [*lexer, ";"]:
            if set(word) <= set(";&|()"):
                if words and words[0] != "for":
                    yield words
                words = []
            elif set(word) <= set("<>&"):
                redirected = True
            elif redirected:
                redirected = False
            elif words or not (word in _KEYWORDS or _ASSIGNED.match(word)):
                words.append(word)


def spans(text: str) -> list[str]:
    """Code inside of lines, each on one line."""
    return [span.replace("\n", " ") for span in _SPAN.findall(_FENCE.sub("", text))]


def markdown(root: Path) -> list[Path]:
    """Every page: at the root, under docs, and those of folders."""
    return sorted([*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("deploy/**/*.md")])
