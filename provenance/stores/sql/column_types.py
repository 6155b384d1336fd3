"""Column types: from values of this project to what both engines take, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from sqlalchemy import Dialect, String, Text, TypeDecorator

from provenance.formats.record import Json

E = TypeVar("E", bound=StrEnum)


class FreeText(TypeDecorator[str]):
    """Text that somebody else wrote: PostgreSQL takes no NUL, and neither engine takes
    a lone surrogate, so both become replacement characters."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


class EnumText(TypeDecorator[E]):
    """A member of an enum by its value."""

    impl = String
    cache_ok = True

    def __init__(self, kind: type[E]) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: E | None, dialect: Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> E | None:
        return None if value is None else self.kind(value)


class JsonText(TypeDecorator[Mapping[str, Json]]):
    """A JSON object as ASCII text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Mapping[str, Json] | None, dialect: Dialect) -> str:
        return json.dumps(dict(value or {}), sort_keys=True)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Mapping[str, Json]:
        result: dict[str, Json] = json.loads(value or "{}")
        return result


class Lines(TypeDecorator[tuple[str, ...]]):
    """Texts, each as JSON on a line of its own between line feeds, so that one is found whole."""

    impl = Text
    cache_ok = True

    @staticmethod
    def line(text: str) -> str:
        return f"\n{json.dumps(text)}\n"

    def process_bind_param(self, value: tuple[str, ...] | None, dialect: Dialect) -> str:
        return "".join(map(self.line, value or ()))

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[str, ...]:
        return tuple(json.loads(line) for line in (value or "").split("\n") if line)
