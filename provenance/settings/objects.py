"""JSON objects on their way to a section, and msgspec's refusals in this project's words."""

from __future__ import annotations

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec.structs import FieldInfo, fields

from provenance.errors import ConfigError
from provenance.formats import json_text
from provenance.settings.section import SECRET_FIELDS, Section

_PLACEHOLDER = re.compile(r"^(your[_\- ]|<.*>$|change_?me$|xxx+$|0x?\.\.\.|todo$)", re.IGNORECASE)
_ERROR_AT = re.compile(r"at `\$\.(\w+)(?:\[(\d+)\])?")
_FIELD = re.compile(r"(unknown|required) field `(.+)`$")
_MAX_BYTES = 1024**2
_MAX_VALUES = 100_000
BASE_DIR = ("base_dir", "the path of a folder")
"""Its key, and what is expected, in messages."""
S = TypeVar("S", bound=Section)


class JsonObject:
    """An object of the configuration on its way to a :class:`Section`.

    Args:
        raw: Keys that begin with ``_comment`` or ``$schema`` are left out.
        path: The dotted path of its key; empty for the whole.
        source: The file that it was read from.

    Raises:
        ConfigError: Not an object.
    """

    def __init__(self, raw: object, path: str, source: str | None) -> None:
        self.path, self.source = path, source
        if not isinstance(raw, Mapping):
            raise ConfigError(path, f"found {show(raw)}, expected an object", source)
        odd = next((key for key in raw if not isinstance(key, str)), None)
        if odd is not None:
            raise ConfigError(path, f"found the key {odd!r}, expected a string", source)
        kept = {k: v for k, v in raw.items() if not is_comment(k)}
        self.raw: dict[str, Any] = kept

    def key(self, name: str) -> str:
        """The dotted path of a key of this object."""
        return f"{self.path}.{name}" if self.path else name

    def fail(self, key: str, problem: str) -> ConfigError:
        """The error about a key of this object."""
        return ConfigError(self.key(key), problem, self.source)

    def child(self, key: str) -> JsonObject:
        """The object under a key, taken out; an empty one where it is absent or null."""
        raw = self.raw.pop(key, None)
        return JsonObject({} if raw is None else raw, self.key(key), self.source)

    def optional_child(self, key: str) -> JsonObject | None:
        """The object under a key, taken out; None where it is absent or null."""
        given = self.raw.get(key) is not None
        child = self.child(key)
        return child if given else None

    def read(self, cls: type[S], **also: object) -> S:
        """The object as a section; ``also`` sets fields that JSON does not.

        Raises:
            ConfigError: A key that is unknown, missing, given twice under two names, of the
                wrong type, out of bounds, blank or a placeholder.
        """
        infos = {f.encode_name: f for f in fields(cls)}
        names: dict[str, str] = {}  # by field, the name that is written in the file
        values: dict[str, object] = {}
        for written, value in self.raw.items():
            name = cls.ALIASES.get(written, written)
            if value is None and name in infos:
                continue
            if name in names:
                raise self.fail(written, f"found beside {names[name]!r}, expected one of the two")
            if not written.isprintable():
                raise self.fail(ascii(written), "unknown key, with characters that do not print")
            texts = value if isinstance(value, list | tuple) else [value]
            if any(isinstance(text, str) and not text.isprintable() for text in texts):
                raise self.fail(written, "found characters that do not print, expected none")
            if isinstance(value, str) and _PLACEHOLDER.match(value.strip()):
                secret = name in infos and infos[name].name in SECRET_FIELDS
                shown = "" if secret else f" {value!r}"
                raise self.fail(written, f"found the placeholder{shown}, expected a real value")
            names[name], values[name] = written, value
        try:
            return msgspec.convert(values | also, cls, dec_hook=_path)
        except msgspec.ValidationError as error:
            raise self._refused(str(error), infos, names, cls.ALIASES) from error

    def _refused(
        self,
        message: str,
        infos: Mapping[str, FieldInfo],
        names: Mapping[str, str],
        aliases: Mapping[str, str],
    ) -> ConfigError:
        """msgspec's refusal in this project's words."""
        field = _FIELD.search(message)
        if field is not None and field[1] == "unknown":
            known = sorted(infos.keys() | aliases.keys())
            return self.fail(field[2], f"unknown key, expected one of {', '.join(known)}")
        if field is not None:
            return self.fail(field[2], f"missing, expected {_expected(infos[field[2]].type)}")
        at = _ERROR_AT.search(message)
        assert at is not None, message
        info, written = infos[at[1]], names[at[1]]
        value = self.raw[written] if at[2] is None else self.raw[written][int(at[2])]
        found = "" if info.name in SECRET_FIELDS else f"found {show(value)}, "
        return self.fail(written, f"{found}expected {_expected(info.type)}")


def path_of(path: object, key: str, expected: str) -> Path:
    """A path of any kind, its ``~`` the user's home; ConfigError where it is none."""
    if isinstance(path, str | os.PathLike) and "\0" not in (text := os.fsdecode(path)):
        return Path(os.path.expanduser(text))
    raise ConfigError(key, f"found {show(path)}, expected {expected}")


def absolute(path: object, key: str, expected: str) -> Path:
    """As :func:`path_of`, whatever the working directory becomes; ConfigError also where that is
    gone."""
    try:
        return path_of(path, key, expected).absolute()
    except OSError as error:
        raise ConfigError(key, f"the working directory: {error.strerror}") from error


def is_comment(key: object) -> bool:
    """Whether a key is for people, and its value not read."""
    return isinstance(key, str) and key.startswith(("_comment", "$schema"))


def read_file(path: Path, source: str | None) -> object:
    """The value in a JSON file, or in a YAML file (``.yaml``, ``.yml``) where PyYAML is installed;
    ConfigError where there is none, where it is no regular file, and for more than 1 MiB. A byte
    order mark is no part of it."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError("", "not a regular file, expected one of JSON or YAML", source)
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ConfigError("", f"more than {_MAX_BYTES} bytes", source)
        text = data.decode("utf-8-sig")
        if path.suffix.lower() in (".yaml", ".yml"):
            return _yaml(text, source)
        return json_text.loads(text)
    except json.JSONDecodeError as error:
        problem = f"not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        raise ConfigError("", problem, source) from error
    except OSError as error:
        raise ConfigError("", f"cannot read: {error.strerror}", source) from error
    except UnicodeDecodeError as error:
        raise ConfigError("", "not UTF-8 text", source) from error
    except ValueError as error:
        raise ConfigError("", f"not JSON: {error}", source) from error


def _yaml(text: str, source: str | None) -> object:
    """As PyYAML's safe loader reads it, but that a key given twice is refused."""
    try:
        import yaml
    except ModuleNotFoundError:
        extra = "pip install 'ml-provenance[yaml]'"
        problem = f"YAML, and PyYAML is not installed: {extra}, or write it as JSON"
        raise ConfigError("", problem, source) from None
    try:
        nodes, left = [yaml.compose(text, yaml.SafeLoader)], _MAX_VALUES
        while nodes:
            node, left = nodes.pop(), left - 1
            if left < 0:  # an alias may repeat others, or be in itself
                raise ConfigError("", f"not YAML: more than {_MAX_VALUES} values", source)
            if node is None or not isinstance(node.value, list):
                continue
            pairs = [each if isinstance(each, tuple) else (None, each) for each in node.value]
            nodes += [value for _, value in pairs]
            written = Counter(key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode))
            twice = next((key for key, times in written.items() if times > 1), None)
            if twice is not None:
                problem = f"key {twice[:60]!r} stands twice in one object"
                raise ConfigError("", f"not YAML: {problem}", source)
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark, what = error.problem_mark, error.problem or "cannot be read"
        where = "" if mark is None else f" at line {mark.line + 1} column {mark.column + 1}"
        raise ConfigError("", f"not YAML: {what}{where}", source) from error
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        what = (str(error).splitlines() or ["cannot be read"])[0]
        raise ConfigError("", f"not YAML: {what}", source) from error


def _path(kind: type, value: object) -> Path:
    """msgspec's hook for types that JSON does not have: paths."""
    if kind is Path and isinstance(value, str | Path) and str(value).strip():
        return absolute(value, "", _expected(kind))
    raise TypeError(f"expected {_expected(kind)}")


def _expected(kind: Any) -> str:
    """What a field takes, in words: its description, or the name of its type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return arguments[1].description or _expected(arguments[0])
    if origin is Literal:
        names = ", ".join(arguments)
        return f"one of {names}" if len(arguments) > 1 else json.dumps(arguments[0])
    if origin in (Union, UnionType):
        return " or ".join(_expected(part) for part in arguments if part is not type(None))
    return {
        bool: "true or false", int: "a whole number", Path: "the path of a file",
    }.get(kind, "an object")  # fmt: skip


def show(value: object) -> str:
    """A value in a message, at most 40 characters."""
    try:
        text = json.dumps(value, default=repr)
    except ValueError:  # of too many digits, or in itself
        return "a value that cannot be shown"
    return text if len(text) <= 40 else text[:37] + "..."
