"""The one strict reader of JSON objects.

:class:`Fields` is a JSON object with a getter for each kind of field. A getter returns the
value in its Python type, or raises an error of one form, on one line::

    run.json: records[3].epoch: found 'two', expected a whole number from 0

Reading is declarative: name the keys, then take each field once::

    top = Fields.parse(data, "run.json").only("version", "run", "heads", "records")
    top.version(1, "version")
    run = top.uuid("run")
    heads = top.items("heads", Fields.integer)
    records = [(r.text("path"), r.maybe("epoch", r.integer))
               for r in top.objects("records", "path", "epoch")]

A getter takes a key of an object, or the index of a list inside :meth:`Fields.items`; so
``Fields.integer`` reads an item as it reads a field. JSON's ``true`` and ``false`` are never
numbers. Hex is lower case and a UUID has hyphens, as this project writes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Final, NoReturn, Self, TypeVar
from uuid import UUID

from provenance.errors import (
    FormatError,
    InputError,
    ProvenanceError,
    TooLargeError,
    UnknownVersionError,
)
from provenance.formats.json_text import (
    DEFAULT_LIMITS,
    Limits,
    canonical_json,
    loads,
    parse_canonical,
)

MAX_INTEGER: Final = 2**63 - 1
MAX_NUMBER: Final = 1e18

Key = str | int
"""A key of an object, or an index of a list."""

_Error = type[ProvenanceError]
T = TypeVar("T")
E = TypeVar("E", bound=Enum)
_ABSENT: Final = object()
_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Fields:
    """One JSON object whose getters name file, key, what was found and what is expected.

    Attributes:
        raw: The object; inside :meth:`items` a list, by index.
        file: What the messages call the document.
        path: Where in it this object is, such as ``records[3]``; empty at the top.
        private: True keeps the values out of the messages.
    """

    raw: Mapping[Any, Any]
    file: str
    path: str = ""
    error: type[ProvenanceError] = FormatError
    private: bool = False

    @classmethod
    def of(
        cls, value: object, file: str, *, error: _Error = FormatError, private: bool = False
    ) -> Self:
        """A JSON value that must be an object; raises ``error``."""
        if not isinstance(value, Mapping):
            found = type(value).__name__ if private else _shown(value)
            raise error(f"{file}: found {found}, expected an object")
        return cls(value, file, error=error, private=private)

    @classmethod
    def parse(
        cls,
        data: bytes | str,
        file: str,
        *,
        private: bool = False,
        limits: Limits = DEFAULT_LIMITS,
    ) -> Self:
        """The object that untrusted JSON text is, or ``FormatError``, as `loads` says."""
        try:
            value = loads(data, limits=limits)
        except (ValueError, RecursionError) as problem:
            if private:  # the cause would carry the text
                raise FormatError(f"{file}: is not JSON") from None
            raise FormatError(f"{file} is not JSON: {problem}") from problem
        return cls.of(value, file, private=private)

    @classmethod
    def parse_canonical(
        cls, data: bytes | str, file: str, version: int | str, *, key: str = "v", limit: int
    ) -> Self:
        """The object that text in RFC 8785 form is, or ``FormatError``: over ``limit`` bytes, of
        another version (told before the form is looked at), no object, or not in that form."""
        if len(data) > limit:
            raise TooLargeError(f"{file} of {len(data)} bytes, at most {limit}")
        if isinstance(data, str):
            data = data.encode("utf-8", "surrogatepass")
        value, is_canonical = parse_canonical(data, file)
        top = cls.of(value, file)
        top.version(version, key)
        try:
            is_canonical = is_canonical or canonical_json(top.raw) == data
        except (InputError, RecursionError) as error:
            raise FormatError(f"{file}: {error}") from error
        if not is_canonical:
            raise FormatError(f"{file} is not in canonical form (RFC 8785)")
        return top

    def refuse(self, key: Key, expected: str) -> NoReturn:
        """Raise the error for a field that is not as expected."""
        found = self._shown(self.raw[key]) if key in self.raw else "nothing"
        raise self.error(f"{self.file}: {self.path_of(key)}: found {found}, expected {expected}")

    def path_of(self, key: Key) -> str:
        """Where in the document a field is, such as ``records[3].epoch``."""
        if isinstance(key, int):
            return f"{self.path}[{key}]"
        name = key[:_SHOWN] if key.isprintable() else repr(key[:_SHOWN])
        return f"{self.path}.{name}" if self.path else name

    def only(self, *keys: str) -> Self:
        """This object, which has no other keys than these; its getters tell of a missing one."""
        unknown = self.raw.keys() - set(keys)
        if unknown:
            path = self.path_of(min(unknown, key=str))
            raise self.error(f"{self.file}: {path}: unknown key, expected {', '.join(keys)}")
        return self

    def version(self, expected: int | str, key: str = "v") -> None:
        """Refuse another version with ``UnknownVersionError``, whatever the getters raise."""
        value = self.raw.get(key)
        if value != expected or type(value) is not type(expected):  # In Python, 1 == True == 1.0.
            found = f"version {self._shown(value)}" if key in self.raw else "no version"
            raise UnknownVersionError(
                f"{self.file}: {self.path_of(key)}: found {found}, expected {expected}"
            )

    def text(self, key: Key) -> str:
        """A string."""
        value = self.raw.get(key)
        return value if isinstance(value, str) else self.refuse(key, "text")

    def matching(self, key: Key, pattern: re.Pattern[str], expected: str) -> str:
        """A string that the pattern matches as a whole; ``expected`` describes it."""
        value = self.raw.get(key)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self.refuse(key, expected)
        return value

    def one_of(self, key: Key, options: Sequence[str]) -> str:
        """One of several strings."""
        value = self.raw.get(key)
        if not isinstance(value, str) or value not in options:
            self.refuse(key, f"one of {', '.join(options)}")
        return value

    def enum(self, key: Key, kind: type[E]) -> E:
        """A member of an enumeration of strings, by its value."""
        text = self.text(key)
        try:
            member = kind(text)
        except ValueError:
            self.refuse(key, f"one of {', '.join(str(member.value) for member in kind)}")
        return member

    def integer(self, key: Key, least: int = 0, most: int = MAX_INTEGER) -> int:
        """A whole number from ``least`` to ``most``."""
        value = self.raw.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            until = "" if most == MAX_INTEGER else f" to {most}"
            self.refuse(key, f"a whole number from {least}{until}")
        return value

    def number(self, key: Key) -> float:
        """A finite number, at most 1e18 either way."""
        value = self.raw.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool):
            self.refuse(key, "a number")
        if not abs(value) <= MAX_NUMBER:  # NaN too
            self.refuse(key, f"a number up to {MAX_NUMBER:g}")
        return float(value)

    def boolean(self, key: Key) -> bool:
        """true or false."""
        value = self.raw.get(key)
        return value if isinstance(value, bool) else self.refuse(key, "true or false")

    def hex(self, key: Key, size: int) -> bytes:
        """``size`` bytes as lower-case hex."""
        value = self.raw.get(key)
        decoded = _from_hex(value)
        if decoded is None or len(decoded) != size:
            self.refuse(key, f"{2 * size} lower-case hex digits")
        return decoded

    def uuid(self, key: Key) -> UUID:
        """A UUID in its one spelling: lower case, with hyphens."""
        text = self.text(key)
        try:
            value = _uuid(text)
        except ValueError:
            self.refuse(key, "a UUID")
        return value if str(value) == text else self.refuse(key, str(value))

    def maybe(self, key: Key, read: Callable[[Key], T]) -> T | None:
        """None where the value is null, else what ``read`` makes of the key."""
        return None if self.raw.get(key, _ABSENT) is None else read(key)

    def optional(self, key: Key, read: Callable[[Key], T]) -> T | None:
        """None where the key is missing, else what ``read`` makes of it."""
        return read(key) if key in self.raw else None

    def object(self, key: Key, *keys: str) -> Self:
        """An object; where keys are given, one that has no others."""
        value = self.raw.get(key)
        if not isinstance(value, Mapping):
            self.refuse(key, "an object")
        inner = self._inner(value, key)
        return inner.only(*keys) if keys else inner

    def mapping(self, key: Key, read: Callable[[Self, str], T]) -> dict[str, T]:
        """An object whose keys are data; ``read`` takes it and one of its keys."""
        inner = self.object(key)
        return {name: read(inner, name) for name in inner.raw}

    def by_hex(self, key: Key, size: int, read: Callable[[Self, str], T]) -> dict[bytes, T]:
        """As :meth:`mapping`, where the keys are ``size`` bytes as lower-case hex."""
        found = {}
        for name, value in self.mapping(key, read).items():
            decoded = _from_hex(name)
            if decoded is None or len(decoded) != size:
                shown = "another" if self.private else _shown(name)
                where = f"{self.file}: {self.path_of(key)}: found the key {shown}"
                raise self.error(f"{where}, expected {2 * size} lower-case hex digits")
            found[decoded] = value
        return found

    def items(self, key: Key, read: Callable[[Self, int], T]) -> tuple[T, ...]:
        """A list; ``read`` takes it and the index of an item, so a getter will do."""
        value = self.raw.get(key)
        if not isinstance(value, list):
            self.refuse(key, "a list")
        inner = self._inner(dict(enumerate(value)), key)
        return tuple(read(inner, at) for at in range(len(value)))

    def objects(self, key: Key, *keys: str) -> tuple[Self, ...]:
        """A list of objects; where keys are given, they have no others."""
        return self.items(key, lambda items, at: items.object(at, *keys))

    def hashes(self, key: Key, size: int = 32) -> tuple[bytes, ...]:
        """A list of byte strings of ``size`` bytes, as lower-case hex."""
        return self.items(key, lambda items, at: items.hex(at, size))

    def _shown(self, value: Any) -> str:
        return type(value).__name__ if self.private else _shown(value)

    def _inner(self, value: Mapping[Any, Any], key: Key) -> Self:
        return type(self)(value, self.file, self.path_of(key), self.error, self.private)


def names_of(kind: type[Any]) -> tuple[str, ...]:
    """The names of a dataclass's fields: the keys of the object that :func:`as_json` makes."""
    return tuple(field.name for field in fields(kind))


def as_json(value: object) -> Any:
    """A value as JSON, for :class:`Fields` to read back: bytes become lower-case hex, a UUID and
    an enumeration's member their text, a tuple a list, and a dataclass an object with a key for
    each of its fields, so that their names are part of the format."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [as_json(item) for item in value]
    if is_dataclass(type(value)):
        return {name: as_json(getattr(value, name)) for name in names_of(type(value))}
    return dict(value) if isinstance(value, Mapping) else value


_uuid = lru_cache(maxsize=64)(UUID)
"""All records of a run name the same one."""


def _from_hex(value: object) -> bytes | None:
    """The bytes of lower-case hex; None where it is none."""
    if not isinstance(value, str):
        return None
    try:
        decoded = bytes.fromhex(value)
    except ValueError:
        return None
    return decoded if decoded.hex() == value else None


def _shown(value: object) -> str:
    """A JSON value for a message: short, and on one line."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value[:_SHOWN]) if isinstance(value, str) else repr(value)[:_SHOWN]
