"""A training's configuration as a record carries it: any Python value, nothing refused.

docs/configuration.md lists what becomes of which type. A value with a plain form of its own has
that form; any other is recorded by the name of its type, and a note says so, by the path of the
value. Nothing is recorded by ``repr``, which may hold an address of this process. No secret is
recorded: what the name of a key, an option or a parameter says to be one, and a password inside a
URL, becomes :data:`REDACTED`.

Packages are known by what is imported already; none is imported here.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import json
import os
import re
import sys
import types
import uuid
from collections import abc, deque
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, NamedTuple, TypeVar

from provenance.errors import InputError
from provenance.formats.json_text import MAX_SAFE_INTEGER
from provenance.formats.record import Json, normalise
from provenance.settings.redaction import REDACTED, is_secret, redacted

MAX_TEXT: Final = 16_384
"""Characters of a text that is recorded whole; of a longer one its start and its SHA-256."""
MAX_BYTES: Final = 64
"""Bytes that are recorded as hex; more as their SHA-256."""
MAX_ITEMS: Final = 10_000
"""Elements of an array that is recorded by its values."""
MAX_DEPTH: Final = 24
MAX_COST: Final = 2 * 1024 * 1024
"""Characters of a whole configuration, about; what comes behind is recorded by its type."""
MAX_NOTES: Final = 500
_HEAD: Final = 256
T = TypeVar("T")


class Hyperparameters(NamedTuple):
    """A configuration with a JSON form, and notes: how a value was recorded that has none, by
    its dotted path."""

    values: dict[str, Json]
    notes: dict[str, str]


def hyperparameters(config: object, name: str = "config") -> Hyperparameters:
    """What a record carries of a training's configuration.

    Args:
        config: A mapping, ``argparse.Namespace``, dataclass, pydantic, attrs or OmegaConf
            object, or any other with named fields; values of any type.
        name: What messages call it.

    Raises:
        InputError: It is no such thing as a whole.
    """
    reading = _Reading()
    named = named_fields(config)
    values: dict[str, Json] | None = None
    if isinstance(named, Mapping):
        values = _asked(lambda: reading.mapping(named, "", (id(config),), False), lambda: None)
    if values is None:
        found = f"{name}: found a {type(config).__name__}"
        raise InputError(f"{found}, expected a mapping, Namespace or dataclass that can be read")
    return Hyperparameters(values, reading.notes)


def named_fields(config: object) -> Mapping[Any, Any] | None:
    """The named fields of a configuration; None where it has none, or they cannot be read."""
    if isinstance(config, str | bytes):
        return None
    return _asked(lambda: _named_fields(config), lambda: None)


def _asked(read: Callable[[], T], otherwise: Callable[[], T]) -> T:
    """What an object of somebody else says of itself. Its properties, and the methods of its
    mappings, may raise anything: that must not end a training."""
    try:
        return read()
    except Exception:  # noqa: BLE001  as above; nothing else here reads such objects
        return otherwise()


class _Reading:
    """One configuration on its way."""

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}
        self._cost = 0

    def note(self, path: str, text: str) -> None:
        if len(self.notes) < MAX_NOTES:
            self.notes[path[:MAX_TEXT] or "."] = text
        else:
            self.notes["..."] = "more values were recorded so"

    def value(self, value: object, path: str, above: tuple[int, ...], secret: bool) -> Json:
        self._cost += 8
        return _asked(
            lambda: self._value(value, path, above, secret), lambda: self.by_type(value, path)
        )

    def by_type(self, value: object, path: str, why: str = "recorded by its type alone") -> str:
        name = _type_name(type(value))
        self.note(path, why)
        return name

    def _value(self, value: Any, path: str, above: tuple[int, ...], secret: bool) -> Json:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, enum.Enum):
            return self.value(value.value, path, above, secret)
        if isinstance(value, str):
            return self.text(str.__str__(value), path, secret)
        if isinstance(value, int):
            return self.whole(int(value), path)
        if isinstance(value, float):
            return normalise(float(value))
        if isinstance(value, bytes | bytearray | memoryview):
            return self.data(bytes(value), path, secret)
        simple = _simple(value)
        if simple is not None:
            return self.text(simple, path, secret)
        if id(value) in above:
            return self.by_type(value, path, "holds itself; recorded by its type alone")
        if len(above) >= MAX_DEPTH:
            return self.by_type(value, path, f"nested deeper than {MAX_DEPTH} levels; by its type")
        if self._cost > MAX_COST:
            return self.by_type(value, path, "the configuration is too large; by its type")
        above = (*above, id(value))
        if isinstance(value, range | slice):
            return {k: self.value(getattr(value, k), path, above, False) for k in _RANGE}
        if callable(value) and not _is_dataclass_like(value):
            name = self.callable(value, path, above)
            if name is not None:
                return name
        if _is_hidden(value):
            self.note(path, "redacted: its type is a secret's")
            return REDACTED
        if _is_array(value):
            return self.array(value, path, above)
        named = _named_fields(value)
        if named is not None:
            return self.mapping(named, path, above, secret)
        if isinstance(value, Set):
            items = [self.value(v, path, above, secret) for v in value]
            return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))
        if isinstance(value, _ORDERED):
            return self.items(value, path, above, secret)
        return self.by_type(value, path)

    def items(self, items: Iterable[Any], path: str, above: tuple[int, ...], secret: bool) -> Json:
        found: list[Json] = []
        before: object = None
        for at, item in enumerate(items):
            if self._cost > MAX_COST:
                self.note(path, f"the configuration is too large; the first {at} values")
                break
            option = isinstance(before, str) and before.startswith("-") and is_secret(before)
            found.append(self.value(item, f"{path}[{at}]", above, secret or option))
            before = item
        return found

    def mapping(
        self, named: Mapping[Any, Any], path: str, above: tuple[int, ...], secret: bool
    ) -> dict[str, Json]:
        found: dict[str, Json] = {}
        for at, (key, value) in enumerate(named.items()):
            if self._cost > MAX_COST:
                self.note(path, f"the configuration is too large; the first {at} values")
                break
            name = self.key(key)
            while name in found:
                self.note(f"{path}.{name}" if path else name, "two keys that read alike")
                name += "'"
            self._cost += len(name)
            below = f"{path}.{name}" if path else name
            numeric = issubclass(type(value), int | float | complex | Decimal)
            if numeric and type(value) is not bool and is_secret(name, text=False):
                value = REDACTED  # as a text under such a name it gets its note
            found[name] = self.value(value, below, above, secret or is_secret(name))
        return found

    def key(self, key: object) -> str:
        if isinstance(key, enum.Enum):
            key = key.value
        notes, self.notes = self.notes, {}
        plain = self.value(key, "", (), False)
        self.notes = notes
        return plain if isinstance(plain, str) else json.dumps(plain)

    def text(self, text: str, path: str, secret: bool) -> str:
        if secret and text:
            self.note(path, "redacted: its name is a secret's")
            return REDACTED
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
        shown, what = redacted(text)
        if what:
            self.note(path, f"redacted: {what}")
        if len(shown) > MAX_TEXT:
            digest = hashlib.sha256(shown.encode()).hexdigest()
            self.note(path, f"a text of {len(shown)} characters: its start and its SHA-256")
            shown = f"{shown[:_HEAD]}... sha256:{digest}"
        self._cost += len(shown)
        return shown

    def data(self, data: bytes, path: str, secret: bool) -> str:
        if secret and data:
            self.note(path, "redacted: its name is a secret's")
            return REDACTED
        if len(data) <= MAX_BYTES:
            return data.hex()
        self.note(path, f"{len(data)} bytes: their SHA-256")
        return f"sha256:{hashlib.sha256(data).hexdigest()}"

    def whole(self, number: int, path: str) -> Json:
        if abs(number) <= MAX_SAFE_INTEGER:
            return number
        try:
            text = str(number)
        except ValueError:  # sys.get_int_max_str_digits()
            size = number.bit_length() // 8 + 1
            digest = hashlib.sha256(number.to_bytes(size, "big", signed=True)).hexdigest()
            self.note(path, f"a whole number of {number.bit_length()} bits: its SHA-256")
            return f"sha256:{digest}"
        self._cost += len(text)
        return text

    def callable(self, value: Any, path: str, above: tuple[int, ...]) -> Json:
        if isinstance(value, functools.partial):
            return {
                "partial": self.value(value.func, f"{path}.partial", above, False),
                "args": self.items(value.args, f"{path}.args", above, False),
                "keywords": self.mapping(value.keywords, f"{path}.keywords", above, False),
            }
        if isinstance(value, type):
            return _type_name(value)
        name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
        if not isinstance(name, str):
            return None
        if "<lambda>" in name:
            self.note(path, "a lambda: its name alone")
        module = getattr(value, "__module__", None)
        return f"{module}.{name}" if isinstance(module, str) else name

    def array(self, value: Any, path: str, above: tuple[int, ...]) -> Json:
        shape = tuple(int(size) for size in value.shape)
        size = 1
        for length in shape:
            size *= length
        if size > MAX_ITEMS:
            self.note(path, "a large array: its type, dtype and shape")
            about = {"type": _type_name(type(value)), "dtype": str(value.dtype)}
            return {**about, "shape": list(shape)}
        if getattr(value.dtype, "kind", "") in ("M", "m"):  # tolist() gives bare numbers of some
            value = value.astype(str)
        plain = value.tolist()
        if type(plain) is type(value):  # NumPy's longdouble, which has no lesser form
            return normalise(value)
        return self.value(plain, path, above, False)


_RANGE: Final = ("start", "stop", "step")
_ORDERED: Final = (Sequence, deque, abc.ItemsView, abc.KeysView, abc.ValuesView)


def _simple(value: object) -> str | None:
    """The text of a value that has one form as a text."""
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return _duration(value)
    if isinstance(value, Decimal | Fraction | uuid.UUID | complex):
        return str(complex(value)) if isinstance(value, complex) else str(value)
    if isinstance(value, re.Pattern):
        return os.fsdecode(value.pattern)
    if isinstance(value, types.ModuleType):
        return value.__name__
    if isinstance(value, types.GenericAlias | types.UnionType):
        return _printed(value)
    kind = type(value)
    if kind.__module__ == "torch" and kind.__name__ in _TORCH_NAMES:
        return _printed(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.dtype):
        return _printed(value)
    printed = kind.__module__ in ("ipaddress", "pydantic.networks")
    printed = printed or kind.__name__ in ("ZoneInfo", "timezone")
    return _printed(value) if printed else None


_TORCH_NAMES: Final = ("device", "dtype", "layout", "memory_format")


def _printed(value: object) -> str | None:
    text = str(value)
    return None if "0x" in text else text


def _duration(value: timedelta) -> str:
    """ISO 8601, in days and seconds."""
    sign, whole = ("-", -value) if value < timedelta(0) else ("", value)
    part = f".{whole.microseconds:06}".rstrip("0") if whole.microseconds else ""
    return f"{sign}P{whole.days}DT{whole.seconds}{part}S"


def _type_name(kind: type) -> str:
    name = f"{kind.__module__}.{kind.__qualname__}"
    return name if "0x" not in name else kind.__name__


def _is_hidden(value: object) -> bool:
    """pydantic's types for secrets, by the method that all of them have."""
    return callable(getattr(type(value), "get_secret_value", None))


def _is_array(value: object) -> bool:
    return all(hasattr(value, name) for name in ("dtype", "shape", "tolist"))


def _is_dataclass_like(value: object) -> bool:
    return not isinstance(value, type) and (is_dataclass(value) or isinstance(value, Mapping))


def _named_fields(value: Any) -> Mapping[Any, Any] | None:
    """The named fields of what stands for a section of a configuration; None of another thing."""
    kind = type(value)
    omegaconf = sys.modules.get("omegaconf")
    if omegaconf is not None and omegaconf.OmegaConf.is_config(value):
        return _of_omegaconf(omegaconf, value)
    if isinstance(value, Mapping):
        return value
    argparse = sys.modules.get("argparse")
    if isinstance(value, types.SimpleNamespace) or (
        argparse is not None and isinstance(value, argparse.Namespace)
    ):
        return vars(value)
    if isinstance(value, type):
        return None
    if is_dataclass(value):
        names: Iterable[str] = [field.name for field in fields(value)]
    elif hasattr(kind, "__attrs_attrs__"):
        names = [field.name for field in kind.__attrs_attrs__]
    elif isinstance(value, tuple) and hasattr(kind, "_fields"):
        names = kind._fields
    elif isinstance(getattr(kind, "model_fields", None), Mapping):
        names = [*kind.model_fields, *(getattr(value, "__pydantic_extra__", None) or ())]
    elif isinstance(getattr(kind, "__fields__", None), Mapping):  # pydantic 1
        names = kind.__fields__
    elif hasattr(kind, "__struct_fields__"):
        names = kind.__struct_fields__
    elif kind.__module__.partition(".")[0] in _COMMAND_LINES:
        plain = getattr(value, _COMMAND_LINES[kind.__module__.partition(".")[0]], None)
        plain = plain() if callable(plain) else plain
        return plain if isinstance(plain, Mapping) else None
    elif "config" in kind.__name__.lower() and callable(getattr(value, "to_dict", None)):
        plain = value.to_dict()
        return plain if isinstance(plain, Mapping) else None
    else:
        return None
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


_COMMAND_LINES: Final = {"absl": "flag_values_dict", "click": "params"}
"""What has the options of a command line, by the package: of FlagValues, of a Context."""


def _of_omegaconf(omegaconf: Any, value: Any) -> Mapping[Any, Any] | None:
    """With what interpolations stand for, where they can be resolved."""
    try:
        plain = omegaconf.OmegaConf.to_container(value, resolve=True)
    except omegaconf.errors.OmegaConfBaseException:
        plain = omegaconf.OmegaConf.to_container(value, resolve=False)
    return plain if isinstance(plain, Mapping) else None
