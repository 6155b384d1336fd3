"""Frameworks as data: a table of requirements each, in ``frameworks/NAME.toml``.

The words are ours. A requirement names the topics (:mod:`provenance.compliance.topics`) that speak
to it, and what a person must write. Where its text is, ``source`` says.
"""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Final

import msgspec

FOLDER: Final = Path(__file__).resolve().parent / "frameworks"
FRAMEWORKS: Final = ("eu-ai-act", "nist-ai-rmf", "iso-42001")


class Requirement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of a table.

    Attributes:
        id: As the framework numbers it, such as ``Art. 10(2)(b)``.
        text: What it asks for, in our words.
        topics: Names of topics; none where no record can speak to it.
        write: What a person must write.
    """

    id: str
    title: str
    text: str
    topics: tuple[str, ...] = ()
    write: tuple[str, ...] = ()


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Requirements that stand together, such as an article; ``source`` is a URL."""

    title: str
    source: str
    requirements: tuple[Requirement, ...]


class Framework(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table. ``version`` is the table's own; ``edition`` says which text it was made from."""

    name: str
    title: str
    version: str
    edition: str
    scope: str
    groups: tuple[Group, ...]


def load_framework(name: str) -> tuple[Framework, str]:
    """A table of `FRAMEWORKS`, and the SHA-256 of its file as hex."""
    data = (FOLDER / f"{name}.toml").read_bytes()
    table = msgspec.convert(tomllib.loads(data.decode()), Framework)
    return table, hashlib.sha256(data).hexdigest()
