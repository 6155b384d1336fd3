"""An object of the configuration, and the kinds of value that several of them have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from msgspec import Meta, Struct

SECRET_FIELDS = frozenset(
    {"url", "redis_url", "broker_url", "database_url", "private_key", "password", "auth"}
)
"""Fields that are, or may carry, a secret: neither repr nor a message shows their values."""


def bounds(low: float, high: float, what: str) -> Meta:
    """Of a number, with how messages name it."""
    return Meta(ge=low, le=high, description=f"{what} from {low:g} to {high:g}")


Count = Annotated[int, bounds(1, 10_000, "a whole number")]
Text = Annotated[str, Meta(pattern=r"\S", description="a non-empty string")]


class Section(Struct, frozen=True, forbid_unknown_fields=True):
    """An object of the configuration. No secret is in its repr."""

    ALIASES: ClassVar[Mapping[str, str]] = {}
    """Second names of fields in JSON."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Fields and values that may be shown."""
        shown = (name for name in self.__struct_fields__ if name not in SECRET_FIELDS)
        return [(name, getattr(self, name)) for name in shown]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({shown})"
