"""Items that a person names, as the bytes that a set's items have.

A set's record states the form of its items: their nodes' types and shapes. An item is brought into
that form where nothing of it is lost, and refused where it has another: a digest of other bytes is
never in a set, so "it was not in the data" would be true and say nothing.
"""

from __future__ import annotations

import csv
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np

from provenance import files
from provenance.errors import InputError, MissingExtraError
from provenance.fingerprint.arrays import DTYPE_NAMES
from provenance.fingerprint.data.items import joined_form, nodes_of
from provenance.fingerprint.elements import element_bytes
from provenance.formats.item_set import Form, FormNode
from provenance.formats.json_text import canonical_json, loads

EXPECTED: Final = (
    "expected a file with one item's bytes, a .npy, .npz, .csv, .jsonl or .parquet file of items,"
    " FILE:ROW of one, - for stdin, or JSON"
)
_ROW: Final = re.compile(r"(?P<file>.+):(?P<row>[0-9]{1,18})", re.DOTALL)
_NUMPY: Final = {name: np.dtype(own) for own, name in DTYPE_NAMES.items()
                 if not own.startswith(("bfloat", "float8"))}  # fmt: skip


def named_items(words: Sequence[str], form: Form | None) -> Iterator[tuple[str, Any]]:
    """Each item that the words of a command name, with what a message calls it; ``InputError``."""
    as_bytes = form is not None and form[0].dtype == "BYTES"
    for word in words:
        row = _ROW.fullmatch(word)
        if word == "-":
            yield "stdin", sys.stdin.buffer.read()
        elif os.path.isfile(word):
            yield from _of_file(Path(word), as_bytes)
        elif row and os.path.isfile(row["file"]):
            found = list(_of_file(Path(row["file"]), False))
            if int(row["row"]) >= len(found):
                raise InputError(f"{word}: found {len(found)} items, counted from 0")
            yield found[int(row["row"])]
        else:
            try:
                yield word[:60], loads(word)
            except (ValueError, RecursionError):
                raise InputError(f"{word[:60]!r}: found neither, {EXPECTED}") from None


def _of_file(path: Path, as_bytes: bool) -> Iterator[tuple[str, Any]]:
    reader = None if as_bytes else _READERS.get(path.suffix)
    with files.errors_of(path, "read"):
        if reader is None:
            yield str(path), path.read_bytes()
            return
        try:
            found = reader(path)
            yield from ((f"{path}:{row}", item) for row, item in enumerate(found))
        except _UNREADABLE as error:
            reason = str(error).partition("\n")[0][:200]
            raise InputError(f"{path}: cannot be read as {path.suffix}: {reason}") from error


def _npy(path: Path) -> Sequence[Any]:
    array: Sequence[Any] = np.load(path, allow_pickle=False)
    return array


def _npz(path: Path) -> Iterator[Any]:
    with np.load(path, allow_pickle=False) as archive:
        return zip(*(archive[name] for name in archive.files), strict=True)


def _csv(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, strict=True):
            if None in row or None in row.values():
                raise ValueError("a row has more or fewer cells than the first")
            yield {key: _Text(value) if value else None for key, value in row.items()}


def _jsonl(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as file:
        yield from (loads(line) for line in file if line.strip())


def _parquet(path: Path) -> Iterator[Any]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "", "pip install pyarrow") from error
    for batch in parquet.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


_READERS: Final[Mapping[str, Callable[[Path], Any]]] = {
    ".npy": _npy, ".npz": _npz, ".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet,
}  # fmt: skip
_UNREADABLE: Final = (ValueError, KeyError, EOFError, csv.Error, BadZipFile, zlib.error)
"""What the readers raise of a file that is none of theirs."""


class _Text(str):
    """A cell of a CSV file: the text of a value of any type."""


def item_bytes(where: str, value: Any, form: Form | None, is_table: bool) -> bytes:
    """The bytes of an item in a set's form.

    Args:
        where: What a message calls it.
        form: Of the set; None takes the item as it is.
        is_table: The set is of a table's rows, in which NaN is a missing cell.

    Raises:
        InputError: It has another form, or would lose something in this one.
    """
    if form is None:
        if isinstance(value, Mapping) and any(isinstance(cell, _Text) for cell in value.values()):
            expected = "expected JSON, .jsonl or .parquet, since the set states no types"
            raise InputError(f"{where}: found texts of a .csv file, {expected}")
        return element_bytes(value, where)
    nodes = {node.name: node for node in form}
    data = element_bytes(_in_form(where, value, (), nodes, is_table), where)
    found = nodes_of(data)
    if joined_form(form, found) != form:
        own = next((node for node in found or () if node not in form), None)
        raise InputError(f"{where}: found {_shown(own)}, the set's items have {_some(form)}")
    return data


def _in_form(
    where: str, value: Any, path: tuple[int | str, ...], nodes: Mapping[str, FormNode], table: bool
) -> Any:
    node = nodes.get(canonical_json(list(path)).decode())
    if node is None or value is None:
        return value
    if table and isinstance(value, float | np.floating) and value != value:
        return None
    if node.dtype == "LIST" and isinstance(value, list | tuple):
        return [_in_form(where, v, (*path, at), nodes, table) for at, v in enumerate(value)]
    if node.dtype == "DICT" and isinstance(value, Mapping):
        return {key: _in_form(where, v, (*path, key), nodes, table) for key, v in value.items()}
    if node.dtype == "UTF8" and isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: found bytes that are not UTF-8, expected a text") from error
    if node.dtype.startswith("TS[") and "," not in node.dtype:
        unit: Any = node.dtype[3:-1]
        return _exactly(where, node, value, lambda: np.datetime64(value, unit))
    if (wanted := _NUMPY.get(node.dtype)) is None or isinstance(value, bytes):
        return str(value) if isinstance(value, _Text) else value
    if isinstance(value, _Text):
        value = _number(value)
    return _exactly(where, node, value, lambda: np.asarray(value).astype(wanted))


def _number(text: str) -> object:
    """The number or boolean that a cell of a CSV file has; the text where it has none."""
    if (word := text.lower()) in ("true", "false"):
        return word == "true"
    for number in (int, float):
        with suppress(ValueError):
            return number(text)
    return text


def _exactly(where: str, node: FormNode, value: Any, make: Callable[[], Any]) -> Any:
    """What ``make`` gives, where it is the value: a number of Python may be rounded to a float."""
    try:
        with np.errstate(all="ignore"):
            made = make()
        given = np.asarray(value) if made.dtype.kind != "M" else np.datetime64(value)
        rounded = made.dtype.kind in "fc" and not hasattr(value, "dtype")
        same = rounded or bool(np.all((made == given) | ((made != made) & (given != given))))
    except (ValueError, TypeError, OverflowError):
        same = False
    if not same or made.shape != node.shape:
        found = f"{value!r}"[:60] if not hasattr(value, "dtype") else f"{value.dtype}{value.shape}"
        raise InputError(f"{where}: found {found}, the set's items have {_shown(node)}")
    return made


def _shown(node: FormNode | None) -> str:
    return f"{node.dtype}{list(node.shape)} at {node.name[:60]}" if node else "an item too deep"


def _some(form: Form) -> str:
    return ", ".join(map(_shown, form[:4])) + (", ..." if len(form) > 4 else "")
