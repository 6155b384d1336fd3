"""Items that a person names, as the bytes that a set's items have.

A set's record states the form of its items: their nodes' types and shapes. An item is brought into
that form where nothing of it is lost, and refused where it has another: a digest of other bytes is
never in a set, so "it was not in the data" would be true and say nothing.
"""

from __future__ import annotations

import csv
import math
import os
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

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
MAX_UNPACKED: Final = 4 * 1024**3
"""Bytes that a .npz may unpack to."""
_BATCH: Final = 1024
"""Rows of a .parquet file that lie in memory at once."""
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
            yield _row(word, Path(row["file"]), int(row["row"]))
        else:
            try:
                yield word[:60], loads(word, parse_float=_float)
            except (ValueError, RecursionError):
                raise InputError(f"{word[:60]!r}: found neither, {EXPECTED}") from None


def _row(word: str, path: Path, wanted: int) -> tuple[str, Any]:
    count = 0
    for item in _of_file(path, False):
        if count == wanted:
            return item
        count += 1
    raise InputError(f"{word}: found {count} items, counted from 0")


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
    with path.open("rb") as file:
        _require_all(file, path.stat().st_size)
    array: Sequence[Any] = np.load(path, allow_pickle=False)
    return array


def _npz(path: Path) -> Iterator[Any]:
    with zipfile.ZipFile(path) as packed:
        size = sum(member.file_size for member in packed.infolist())
        if size > MAX_UNPACKED:
            raise ValueError(f"unpacks to {size} bytes, at most {MAX_UNPACKED} are read")
        for member in packed.infolist():
            with packed.open(member) as file:
                _require_all(file, member.file_size)
    with np.load(path, allow_pickle=False) as archive:
        return zip(*(archive[name] for name in archive.files), strict=True)


def _require_all(file: IO[bytes], size: int) -> None:
    """The elements that a .npy header states are in the file, before room is made for them."""
    first = np.lib.format.read_magic(file) == (1, 0)
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    stated, found = math.prod(shape) * dtype.itemsize, size - file.tell()
    if max(stated, *shape[:1], 0) > found:
        raise ValueError(f"its header states {stated} bytes in shape {shape}, the file has {found}")


def _csv(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, strict=True):
            if None in row or None in row.values():
                raise ValueError("a row has more or fewer cells than the first")
            yield {key: _Text(value) if value else None for key, value in row.items()}


def _jsonl(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as file:
        yield from (loads(line, parse_float=_float) for line in file if line.strip())


def _parquet(path: Path) -> Iterator[Any]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "", "pip install pyarrow") from error
    for batch in parquet.ParquetFile(path).iter_batches(_BATCH):
        yield from batch.to_pylist()


_READERS: Final[Mapping[str, Callable[[Path], Any]]] = {
    ".npy": _npy, ".npz": _npz, ".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet,
}  # fmt: skip
_UNREADABLE: Final = (
    ValueError, KeyError, EOFError, csv.Error, zipfile.BadZipFile, zlib.error, MemoryError
)  # fmt: skip
"""What the readers raise of a file that is none of theirs."""


class _Text(str):
    """A cell of a CSV file: the text of a value of any type."""


def item_bytes(
    where: str, value: Any, form: Form | None, is_table: bool, nearest: list[str] | None = None
) -> bytes:
    """The bytes of an item in a set's form.

    Args:
        where: What a message calls it.
        form: Of the set; None takes the item as it is.
        is_table: The set is of a table's rows, in which NaN is a missing cell.
        nearest: Takes a line where a number is not one of its type, and the nearest was taken.

    Raises:
        InputError: It has another form, or would lose something in this one.
    """
    if form is None:
        if isinstance(value, Mapping) and any(isinstance(cell, _Text) for cell in value.values()):
            expected = "expected JSON, .jsonl or .parquet, since the set states no types"
            raise InputError(f"{where}: found texts of a .csv file, {expected}")
        return element_bytes(value, where)
    nodes = {node.name: node for node in form}
    rounded = list[str]()
    data = element_bytes(_in_form(where, value, (), nodes, is_table, rounded), where)
    found = nodes_of(data)
    if joined_form(form, found) != form:
        own = next((node for node in found or () if node not in form), None)
        raise InputError(f"{where}: found {_shown(own)}, the set's items have {_some(form)}")
    if nearest is not None and rounded:
        nearest.append(f"{where}: {rounded[0]}" + (", ..." if len(rounded) > 1 else ""))
    return data


def _in_form(
    where: str,
    value: Any,
    path: tuple[int | str, ...],
    nodes: Mapping[str, FormNode],
    table: bool,
    rounded: list[str],
) -> Any:
    node = nodes.get(canonical_json(list(path)).decode())
    if node is None or value is None:
        return value
    if table and isinstance(value, float | np.floating) and value != value:
        return None
    if node.dtype == "LIST" and isinstance(value, list | tuple):
        return [
            _in_form(where, v, (*path, at), nodes, table, rounded) for at, v in enumerate(value)
        ]
    if node.dtype == "DICT" and isinstance(value, Mapping):
        return {
            key: _in_form(where, v, (*path, key), nodes, table, rounded) for key, v in value.items()
        }
    if node.dtype == "UTF8" and isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: found bytes that are not UTF-8, expected a text") from error
    if node.dtype.startswith("TS[") and "," not in node.dtype:
        unit: Any = node.dtype[3:-1]
        return _exactly(where, node, value, lambda: np.datetime64(value, unit), np.datetime64)
    if (wanted := _NUMPY.get(node.dtype)) is None or isinstance(value, bytes):
        return str(value) if isinstance(value, _Text) else value
    if isinstance(value, _Text):
        value = _number(value)
    if hasattr(value, "dtype") and not (value.dtype.kind in "iu" and wanted.kind in "fc"):
        return _exactly(where, node, value, lambda: np.asarray(value).astype(wanted), np.asarray)
    return _nearest(where, node, value, wanted, rounded)


def _number(text: str) -> object:
    """The number or boolean that a cell of a CSV file has; the text where it has none."""
    if (word := text.lower()) in ("true", "false"):
        return word == "true"
    for number in (int, _float):
        with suppress(ValueError):
            return number(text)
    return text


def _float(text: str) -> float:
    """``ValueError``: no number, or too large for a float."""
    number = float(text)
    if math.isinf(number) and "inf" not in text.lower():
        raise ValueError(f"{text[:40]} is too large for a float")
    return number


def _exactly(
    where: str,
    node: FormNode,
    value: Any,
    make: Callable[[], Any],
    given: Callable[[Any], Any],
) -> Any:
    """What ``make`` gives, where nothing is lost."""
    try:
        with np.errstate(all="ignore"):
            made = make()
        own = given(value)
        same = bool(np.all((made == own) | ((made != made) & (own != own))))
    except (ValueError, TypeError, OverflowError):
        same = False
    if not same or made.shape != node.shape:
        raise _other(where, node, value)
    return made


def _nearest(where: str, node: FormNode, value: Any, wanted: Any, rounded: list[str]) -> Any:
    """Numbers of Python in an element type: whole ones as they are, others the nearest, of which
    ``rounded`` takes a line."""
    try:
        given = np.array(value, dtype=object)
        with np.errstate(all="ignore"):
            made = given.astype(wanted)
    except (ValueError, TypeError, OverflowError):
        raise _other(where, node, value) from None
    if made.shape != node.shape:
        raise _other(where, node, value)
    for own, held in zip(given.ravel().tolist(), made.ravel().tolist(), strict=True):
        if own == held or (held != held and (own is None or own != own)):
            continue
        whole = isinstance(own, int | str | bytes) or not isinstance(held, float | complex)
        if whole or not np.isfinite(held):
            raise _other(where, node, value)
        rounded.append(f"{own} is no {node.dtype}, asked is {held}")
    return made


def _other(where: str, node: FormNode, value: Any) -> InputError:
    found = f"{value!r}"[:60] if not hasattr(value, "dtype") else f"{value.dtype}{value.shape}"
    return InputError(f"{where}: found {found}, the set's items have {_shown(node)}")


def _shown(node: FormNode | None) -> str:
    return f"{node.dtype}{list(node.shape)} at {node.name[:60]}" if node else "an item too deep"


def _some(form: Form) -> str:
    return ", ".join(map(_shown, form[:4])) + (", ..." if len(form) > 4 else "")
