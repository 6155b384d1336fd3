"""Items of a dataset as bytes: what is asked for when somebody asks whether a record was in it.

WARNING: FROZEN FORMAT, as in elements.py: an item is an element (docs/FORMAT.md, 3.4 and 3.6).

=====================  ====================================================================
dataset                item
=====================  ====================================================================
array                  a row: the array without its first axis
tuple, mapping         the list, or dict, of the items of its entries at one place, ``[x, y]``
table                  a row: the dict of its columns, each cell of the column's type; NULL
                       where it is missing, as NaN is. With columns of lists, structs or
                       objects the row as the dict that the library gives
sequence, torch data   an element
file, folder           a file: its bytes, as BYTES; its name is no part of it
=====================  ====================================================================

So a row of NumPy, of torch, and an element of a list that is the same array have the same bytes.
Rows of numbers are put together many at a time.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from math import prod
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from provenance.errors import InputError, ProvenanceError
from provenance.fingerprint.arrays import ITEM_BYTES, from_package, type_name
from provenance.fingerprint.data.blocks import Blocks, array_blocks, is_sparse, tensor_blocks
from provenance.fingerprint.data.blocks import tensor_rows as rows_of_tensors
from provenance.fingerprint.data.cells import Column, Texts, little_endian
from provenance.fingerprint.data.progress import Progress
from provenance.fingerprint.data.remote import is_url
from provenance.fingerprint.data.sources import is_hf, is_hf_stream, resolved, unreadable
from provenance.fingerprint.datasets import (
    has_blocks,
    is_column,
    is_dataset,
    is_sequence,
    is_table,
    sorted_entries,
)
from provenance.fingerprint.elements import Path as NodePath
from provenance.fingerprint.elements import element_bytes, node_head
from provenance.fingerprint.file_tree import folder_files, hash_unchanged
from provenance.fingerprint.hashers import Digest, Hasher
from provenance.formats.fields import Fields
from provenance.formats.item_set import MAX_FORM_NODES, Form, FormNode

ROWS_BYTES: Final = 4 << 20
"""Rows of numbers are put together so many bytes at a time."""
ROWS: Final = 4096
"""Other items, so many at a time."""
_NESTED: Final = ("LIST<", "STRUCT<", "INTERVAL[", "OBJECT")
_VAR: Final = frozenset({"UTF8", "BYTES", "DECIMAL"})

Rows = NDArray[np.uint8] | list[bytes]
"""Bytes of a node, or of several, of some items: a row of a matrix or an entry of a list each."""


class _Leaf(NamedTuple):
    """What of each item one array, column or sequence gives."""

    name: str
    rows: int
    row_bytes: int
    read: Callable[[int, int], Rows]


class ItemReader:
    """Reads datasets item by item, and makes the keyed digests of the items.

    Attributes:
        count: Items so far.
        form: The nodes that all of them have (formats/item_set.py); None where they differ.
    """

    def __init__(self, key: bytes, progress: Progress) -> None:
        self.count = 0
        self.form: Form | None = ()
        self._key, self._progress = key, progress
        self._hasher = blake3(key=key)

    def digests(self, data: Any) -> Iterator[bytes]:
        """The digests of a dataset's items, many at a time, 32 bytes each, in its order; of data as
        `dataset_digest` takes it. ``InputError``: it has no items that can be told apart, or as
        `dataset_digest` raises it."""
        try:
            yield from self._digests(data)
        except ProvenanceError:
            raise
        except Exception as error:  # a dataset's own code may raise anything
            raise unreadable(error) from error

    def _digests(self, data: Any) -> Iterator[bytes]:
        files = _files(data)
        if files is not None:
            self._progress.part("files", len(files))
            for path in files:
                self.form = (FormNode("[]", "BYTES", ()),)
                yield self._file(path)
                self._progress.add(1)
            return
        if is_hf_stream(data):
            for index, item in enumerate(resolved(data)[0]):
                yield self.of_items([element_bytes(item, f"data item {index}")])
            return
        for rows in _chunks(_parts(data, ()), self._progress):
            yield self.of_items(rows)

    def of_items(self, items: Rows) -> bytes:
        """The digests of items as bytes."""
        same_form = isinstance(items, np.ndarray)
        listed = _listed(items)
        for item in listed[:1] if same_form else listed:
            if self.form is not None:
                self.form = joined_form(self.form, nodes_of(item))
        reset, update, finish = self._hasher.reset, self._hasher.update, self._hasher.digest
        found = []
        for item in listed:
            reset()
            update(item)
            found.append(finish())
        self.count += len(found)
        return b"".join(found)

    def _file(self, path: Path) -> bytes:
        def begun(size: int) -> Hasher:
            self._hasher.reset()
            self._hasher.update(node_head((), "BYTES", ()) + struct.pack("<q", size))
            return self._hasher

        _, digest = hash_unchanged(path, begun)
        self.count += 1
        return digest


def nodes_of(item: bytes) -> Form | None:
    """The nodes that an item's bytes have; None of more than a form states."""
    nodes: list[FormNode] = []
    at = 0
    while at < len(item):
        end = at + 4 + int.from_bytes(item[at : at + 4], "little")
        node, size = _node(item[at:end])
        at = end + size
        if node.dtype in _VAR:
            lengths = struct.unpack_from(f"<{size // 8}q", item, end)
            at += sum(lengths)
        nodes.append(node)
        if len(nodes) > MAX_FORM_NODES:
            return None
    return tuple(nodes)


@lru_cache(maxsize=4096)
def _node(head: bytes) -> tuple[FormNode, int]:
    """What a header says, and how many bytes follow it; of texts those of their lengths."""
    fields = Fields.parse(head[4:], "item")
    shape = fields.items("shape", Fields.integer)
    node = FormNode(fields.text("name"), fields.text("dtype"), shape)
    if node.dtype in ("LIST", "DICT", "NULL"):
        return node, 0
    return node, prod(shape) * (ITEM_BYTES.get(node.dtype) or (4 if node.dtype == "D32" else 8))


def joined_form(form: Form | None, other: Form | None) -> Form | None:
    """The form of items of both: where one of two nodes is NULL, it is the other's."""
    if form == () or form == other or other is None:
        return other
    if form is None or len(form) != len(other):
        return None
    nodes = []
    for own, new in zip(form, other, strict=True):
        if own != new and (own.name != new.name or "NULL" not in (own.dtype, new.dtype)):
            return None
        nodes.append(new if own.dtype == "NULL" else own)
    return tuple(nodes)


def _files(data: Any) -> list[Path] | None:
    """The files that a path, or a list of them, stands for; None of what is no path."""
    if isinstance(data, Digest) or (isinstance(data, str) and is_url(data)):
        found = "a ready digest" if isinstance(data, Digest) else "a URL"
        raise InputError(f"data: found {found}, expected what has items: files here, or an object")
    if isinstance(data, str | os.PathLike):
        path = Path(os.fsdecode(data))
        return [place for _, place in folder_files(path)] if path.is_dir() else [path]
    if isinstance(data, list | tuple) and data:
        paths = [Path(os.fsdecode(item)) for item in data if isinstance(item, os.PathLike)]
        return paths if len(paths) == len(data) else None
    return None


def _chunks(parts: list[bytes | _Leaf], progress: Progress) -> Iterator[Rows]:
    """The items, some at a time, whose bytes are the parts one after another."""
    leaves = [part for part in parts if isinstance(part, _Leaf)]
    rows = leaves[0].rows if leaves else 0
    for leaf in leaves:
        if leaf.rows != rows:
            found = f"found {leaf.rows} rows, and {rows} in {leaves[0].name!r}"
            raise InputError(f"data part {leaf.name!r}: {found}, expected as many: items of both")
    plain = all(leaf.row_bytes for leaf in leaves)
    step = max(1, ROWS_BYTES // sum(leaf.row_bytes + 64 for leaf in leaves)) if plain else ROWS
    progress.part("items", rows)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        read = [
            part.read(start, stop)
            if isinstance(part, _Leaf)
            else np.broadcast_to(np.frombuffer(part, np.uint8), (stop - start, len(part)))
            for part in parts
        ]
        matrices = [part for part in read if isinstance(part, np.ndarray)]
        if len(matrices) == len(read):
            yield matrices[0] if len(read) == 1 else np.concatenate(matrices, axis=1)
        else:
            yield [b"".join(pieces) for pieces in zip(*map(_listed, read), strict=True)]
        progress.add(stop - start)


def _listed(rows: Rows) -> list[bytes]:
    if isinstance(rows, list):
        return rows
    listed: list[bytes] = np.ascontiguousarray(rows).view(f"V{rows.shape[1]}").ravel().tolist()
    return listed


def _parts(data: Any, path: NodePath) -> list[bytes | _Leaf]:
    """Headers that are the same in each item, and leaves, in the order of an item's nodes."""
    data, _ = resolved(data)
    name = ".".join(map(str, path)) or "items"
    if (tensors := rows_of_tensors(data)) is not None:
        entries = [(at, tensor_blocks(str(at), pieces)) for at, pieces in enumerate(tensors)]
        head = node_head(path, "LIST", (len(entries),))
        return [head, *(_array((*path, at), blocks) for at, blocks in entries)]
    if is_table(data):
        return _table(data, path)
    if is_column(data):
        from provenance.fingerprint.tables import array_column

        return [_column(array_column(name, data), path)]
    if has_blocks(data):
        kind = getattr(getattr(data, "dtype", None), "kind", "")
        if fields := getattr(getattr(data, "dtype", None), "names", None):
            return _entries("DICT", [(field, data[field]) for field in sorted(fields)], path)
        if is_sparse(data):
            raise InputError(f"data part {name!r}: found a sparse matrix, expected a dense array")
        if kind not in ("U", "S", "O", "T") and not from_package(data, "numpy.ma"):
            return [_array(path, array_blocks(name, data))]
    elif isinstance(data, Mapping):
        return _entries("DICT", sorted_entries(data), path)
    elif isinstance(data, list | tuple):
        kinds = {type(item): item for item in data}.values()
        if any(map(is_dataset, kinds)) or (isinstance(data, tuple) and any(map(has_blocks, kinds))):
            return _entries("LIST", list(enumerate(data)), path)
    if isinstance(data, str | bytes | bytearray) or not is_sequence(data):
        raise InputError(f"data part {name!r}: found {type_name(data)}, expected what has items")
    return [_sequence(name, data, path)]


def _entries(kind: str, entries: list[tuple[Any, Any]], path: NodePath) -> list[bytes | _Leaf]:
    parts: list[bytes | _Leaf] = [node_head(path, kind, (len(entries),))]
    for key, value in entries:
        parts += _parts(value, (*path, key if kind == "LIST" else str(key)))
    return parts


def _array(path: NodePath, blocks: Blocks) -> _Leaf:
    head = node_head(path, blocks.dtype, blocks.shape[1:])

    def read(start: int, stop: int) -> Rows:
        _, chunks = blocks.read(start, stop)
        elements = np.frombuffer(b"".join(chunks), np.uint8)
        return _matrix(head, elements.reshape(stop - start, -1))

    return _Leaf(blocks.name, blocks.shape[0], blocks.row_bytes, read)


def _matrix(head: bytes, elements: NDArray[np.uint8]) -> NDArray[np.uint8]:
    matrix = np.empty((len(elements), len(head) + elements.shape[1]), np.uint8)
    matrix[:, : len(head)] = np.frombuffer(head, np.uint8)
    matrix[:, len(head) :] = elements
    return matrix


def _sequence(name: str, items: Any, path: NodePath) -> _Leaf:
    def read(start: int, stop: int) -> Rows:
        places = range(start, stop)
        return [element_bytes(items[at], f"data item {at}", path) for at in places]

    return _Leaf(name, len(items), 0, read)


def _table(table: Any, path: NodePath) -> list[bytes | _Leaf]:
    from provenance.fingerprint.tables import table_columns

    columns: dict[str, Column] = {}
    for column in table_columns(table):
        if columns.setdefault(column.name, column) is not column:
            raise InputError(f"table column {column.name!r}: found two, expected names that differ")
    if any(column.dtype.startswith(_NESTED) for column in columns.values()):
        rows = next(iter(columns.values())).rows
        return [_Leaf("items", rows, 0, partial(_python_rows, table, path))]
    ordered = sorted(columns.values(), key=lambda column: column.name.encode())
    head = node_head(path, "DICT", (len(ordered),))
    return [head, *(_column(column, (*path, column.name)) for column in ordered)]


def _column(column: Column, path: NodePath) -> _Leaf:
    head, missing = node_head(path, column.dtype, ()), node_head(path, "NULL", ())

    def read(start: int, stop: int) -> Rows:
        cells = column.read(start, stop)
        values = cells.values
        if isinstance(values, Texts):
            ends, data = np.cumsum(values.lengths).tolist(), bytes(values.data)
            sizes = values.lengths.tolist()
            rows = [head + struct.pack("<q", size) + data[end - size : end]
                    for size, end in zip(sizes, ends, strict=True)]  # fmt: skip
        else:
            assert isinstance(values, np.ndarray)
            elements = np.frombuffer(little_endian(values), np.uint8).reshape(stop - start, -1)
            matrix = _matrix(head, elements)
            if cells.valid.all():
                return matrix
            rows = _listed(matrix)
        return [row if there else missing
                for row, there in zip(rows, cells.valid.tolist(), strict=True)]  # fmt: skip

    return _Leaf(column.name, column.rows, column.item_bytes, read)


def _python_rows(table: Any, path: NodePath, start: int, stop: int) -> Rows:
    """Rows of a table as the dicts that its library gives."""
    for whole in ("collect", "to_table", "to_frame"):  # of a LazyFrame, an Arrow Dataset, a Series
        if not is_hf(table) and hasattr(table, whole):
            table = getattr(table, whole)()
    if is_hf(table):
        columns = table.with_format(None)[start:stop]
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    elif from_package(table, "pandas"):
        rows = table.iloc[start:stop].to_dict("records")
    elif from_package(table, "polars"):
        rows = table[start:stop].to_dicts()
    else:
        rows = table.slice(start, stop - start).to_pylist()
    numbered = enumerate(rows, start)
    return [element_bytes(row, f"data item {at}", path) for at, row in numbered]
