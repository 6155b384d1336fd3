"""Content digests of datasets: arrays, tables, folders, files, sequences.

WARNING: FROZEN FORMAT. These digests are written into records that an auditor recomputes
in ten years. Add a version; never change what an existing one means. No clock and no
randomness; only `dataset_folder`, `dataset_files` and `dataset_digest` of a path do I/O: they
read what they are given.

::

    dataset root = MTH(leaf of each part, in order)             MTH: RFC 6962, SHA-256
    array        leaf = MTH(H(block header || elements) for each block of rows)
    table        one part for each column, leaf = MTH(its blocks)           see tables.py
    sequence     one part, leaf = MTH(H(element) for each element)          see elements.py
    file         leaf = RFC 8785 JSON {"digest": "blake3:...", "path": "a/b.png", "size": 123}
    ready digest leaf = RFC 8785 JSON {"digest": "blake3:..."}

A block has as many rows as fit into 4 MiB, at least one; 4096 rows where a row has no fixed size
or none. The order of rows, elements and columns counts; the entries of a mapping are sorted by
the UTF-8 bytes of their names, and so are the files of a folder by their paths. One block,
element or file can be proven alone. Parts of a tuple are named by their index, a table's columns
in it ``0.column``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from provenance.errors import InputError
from provenance.fingerprint.arrays import (
    ITEM_BYTES,
    array_view,
    block_header,
    canonical,
    from_package,
    is_array,
    type_name,
)
from provenance.fingerprint.elements import element_digest
from provenance.fingerprint.file_tree import FileLeaf, file_leaf, folder_files
from provenance.fingerprint.hashers import Digest, HashFactory
from provenance.fingerprint.row_major import row_major
from provenance.fingerprint.tensors import ROOT_ALGORITHM
from provenance.formats import merkle

BLOCK_BYTES: Final = 4 << 20
BLOCK_ROWS: Final = 4096
"""Rows of a block whose rows have no fixed size, or none."""

MAX_LISTED_PARTS: Final = 4096
"""Parts that a record lists; the root commits to all of them."""

_EXPECTED: Final = (
    "expected an array, a tuple or mapping of arrays, a table, a sequence or map-style dataset,"
    " a path, a list of paths, or a Digest"
)

Read = Callable[[int, int], tuple[int, Iterable[bytes | memoryview]]]
"""``read(start, stop)``: missing values among those rows, and their canonical bytes."""


@dataclass(frozen=True, slots=True)
class DatasetPart:
    """One array, column, sequence or file of a dataset.

    Args:
        name: Array or column name, or POSIX path.
        dtype: Element type; ``SEQUENCE``, ``FILE`` or ``DIGEST`` where it is no array.
        shape: Rows (or elements) first; a file has none.
        nbytes: Bytes that were hashed, headers left out.
        digest: ``mth-sha256:<hex>`` of the blocks or elements; a file's content digest.
        leaf: Leaf data of this part in the dataset's tree.
        leaves: Leaf data of the part's own tree (blocks or elements); a file has none.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    digest: str
    leaf: bytes = field(repr=False)
    leaves: tuple[bytes, ...] = field(repr=False)

    def as_fields(self) -> dict[str, Any]:
        """The part as plain JSON values."""
        named = {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}
        return named | {"bytes": self.nbytes, "digest": self.digest}


@dataclass(frozen=True, slots=True)
class DatasetDigest:
    """The digest of a dataset.

    Args:
        kind: ``arrays``, ``table``, ``folder``, ``files``, ``torch``, ``sequence``, or
            ``digest`` for one that was handed in ready-made.
        root: Merkle Tree Hash over the parts' leaves; 32 bytes.
        algorithm: Content hash of blocks, elements and files.
        count: Rows (of the first part), elements or files; 1 for a ready-made digest.
        parts: The parts in the order of the tree.
    """

    kind: str
    root: bytes
    algorithm: str
    count: int
    parts: tuple[DatasetPart, ...]

    def __str__(self) -> str:
        return f"{ROOT_ALGORITHM}:{self.root.hex()}"

    @property
    def nbytes(self) -> int:
        """Bytes that were hashed, headers left out; 0 for a ready-made digest."""
        return sum(part.nbytes for part in self.parts)

    def as_fields(self) -> dict[str, Any]:
        """The dataset as plain JSON values (str, int, list), for a record.

        Lists the first ``MAX_LISTED_PARTS`` parts; ``parts_total`` counts all.
        """
        return {
            "kind": self.kind,
            "algorithm": self.algorithm,
            "root": str(self),
            "count": self.count,
            "bytes": self.nbytes,
            "parts_total": len(self.parts),
            "parts": [part.as_fields() for part in self.parts[:MAX_LISTED_PARTS]],
        }


def dataset_digest(data: object, factory: HashFactory | None = None) -> DatasetDigest:
    """The digest of a dataset.

    Args:
        data: One of

            - an array of any framework, rows first; a tuple or mapping of arrays, tables and
              lists, such as ``(x, y)``
            - a pandas DataFrame or Series, an Arrow Table or RecordBatch
            - a torch ``Dataset`` with a length (it is read once, element by element; give it
              without random transforms) or the ``DataLoader`` of one
            - a list, tuple or other sequence of elements, see elements.py
            - the path of a file or folder as ``str`` or ``Path``; a list of ``Path``
            - a `Digest` that was made elsewhere
        factory: Content hash; blake3 when left out.

    Raises:
        InputError: empty, a missing path, or something without canonical bytes; the message
            names the part or the element.
    """
    used = factory or HashFactory()
    if isinstance(data, Digest):
        leaf = canonical({"digest": str(data)})
        part = DatasetPart("", "DIGEST", (), 0, str(data), leaf, ())
        return _dataset("digest", data.algorithm, 1, [part])
    if isinstance(data, str | os.PathLike):
        path = Path(data)
        return dataset_folder(path, used) if path.is_dir() else dataset_files([path], used)
    if from_package(data, "torch.utils.data") and "DataLoader" in _class_names(data):
        data = data.dataset  # type: ignore[attr-defined]  # a DataLoader, by its class
    tensors = getattr(data, "tensors", None)
    if tensors is not None and type(data).__name__ == "TensorDataset":
        return _parts_dataset("torch", enumerate(tensors), used)
    if is_table(data):
        return _rows_dataset("table", list(_table_parts("", data, used)), used)
    if is_array(data):
        return _parts_dataset("arrays", [(0, data)], used)
    if isinstance(data, Mapping):
        entries = sorted(data.items(), key=lambda item: str(item[0]).encode(errors="replace"))
        return _parts_dataset("arrays", entries, used)
    if isinstance(data, tuple) and any(is_array(item) or is_table(item) for item in data):
        return _parts_dataset("arrays", enumerate(data), used)
    if isinstance(data, list | tuple) and data and all(isinstance(i, os.PathLike) for i in data):
        return dataset_files([Path(item) for item in data], used)
    if isinstance(data, bytes | bytearray) or not _is_sequence(data):
        raise InputError(f"data: found {type_name(data)}, {_EXPECTED}")
    kind = "torch" if from_package(data, "torch.utils.data") else "sequence"
    return _rows_dataset(kind, [_sequence_part("items", data, used)], used)


def dataset_folder(path: Path, factory: HashFactory) -> DatasetDigest:
    """The digest of all files below a folder; ``InputError`` as in file_tree.py, or when empty."""
    leaves = [file_leaf(place, name, factory) for name, place in folder_files(path)]
    return _files_dataset("folder", str(path), leaves, factory)


def dataset_files(paths: Sequence[Path], factory: HashFactory) -> DatasetDigest:
    """The digest of single files in the order given, named from their common folder on.

    Raises:
        InputError: a missing or unreadable file, or no bytes at all.
    """
    absolute = [Path(os.path.abspath(path)) for path in paths]
    base = os.path.commonpath([path.parent for path in absolute])
    leaves = [file_leaf(path, path.relative_to(base).as_posix(), factory) for path in absolute]
    return _files_dataset("files", ", ".join(map(str, paths[:3])), leaves, factory)


def is_table(value: object) -> bool:
    """True for a pandas DataFrame or Series and an Arrow Table or RecordBatch."""
    names = _class_names(value)
    if from_package(value, "pandas"):
        return not names.isdisjoint({"DataFrame", "Series"})
    return from_package(value, "pyarrow") and not names.isdisjoint({"Table", "RecordBatch"})


def _is_sequence(value: object) -> bool:
    streamed = "IterableDataset" in _class_names(value)
    return not streamed and hasattr(value, "__len__") and hasattr(value, "__getitem__")


def _class_names(value: object) -> set[str]:
    return {base.__name__ for base in type(value).__mro__}


def _dataset(kind: str, algorithm: str, count: int, parts: Sequence[DatasetPart]) -> DatasetDigest:
    root = merkle.root([part.leaf for part in parts])
    return DatasetDigest(kind, root, algorithm, count, tuple(parts))


def _files_dataset(
    kind: str, where: str, files: list[FileLeaf], factory: HashFactory
) -> DatasetDigest:
    if not any(file.size for file in files):
        raise InputError(f"data {where!r}: empty, expected at least one file with content")
    parts = [
        DatasetPart(file.path, "FILE", (), file.size, str(file.digest), file.data(), ())
        for file in files
    ]
    return _dataset(kind, factory.algorithm, len(parts), parts)


def _parts_dataset(
    kind: str, entries: Iterable[tuple[object, object]], factory: HashFactory
) -> DatasetDigest:
    parts: list[DatasetPart] = []
    for key, value in entries:
        name = str(key)
        if is_table(value):
            parts += _table_parts(f"{name}.", value, factory)
        elif is_array(value):
            parts.append(_array_part(name, value, factory))
        elif isinstance(value, list | tuple):
            parts.append(_sequence_part(name, value, factory))
        else:
            raise InputError(
                f"data part {name!r}: found {type_name(value)}, expected an array, table or list"
            )
    return _rows_dataset(kind, parts, factory)


def _rows_dataset(kind: str, parts: list[DatasetPart], factory: HashFactory) -> DatasetDigest:
    if not parts:
        raise InputError("data: empty, expected at least one row")
    for part in parts:
        if part.shape[0] == 0:
            raise InputError(f"data part {part.name!r}: empty, expected at least one row")
    return _dataset(kind, factory.algorithm, parts[0].shape[0], parts)


def _array_part(name: str, value: object, factory: HashFactory) -> DatasetPart:
    if getattr(getattr(value, "dtype", None), "kind", "") in ("U", "S", "O") and value.ndim:  # type: ignore[attr-defined]  # an array, by its dtype
        return _sequence_part(name, value.tolist(), factory)  # type: ignore[attr-defined]  # the same
    array, dtype = array_view(name, value)
    if array.ndim == 0:
        raise InputError(f"data part {name!r}: found a scalar, expected an array with rows")
    shape = tuple(int(size) for size in array.shape)
    row_bytes = ITEM_BYTES[dtype] * math.prod(shape[1:])
    return _blocks(name, dtype, shape, row_bytes, lambda a, b: (0, row_major(array[a:b])), factory)


def _table_parts(prefix: str, table: object, factory: HashFactory) -> Iterator[DatasetPart]:
    from provenance.fingerprint.tables import table_columns  # needs NumPy, which a table brings

    for column in table_columns(table):
        name, shape = prefix + column.name, (column.rows,)
        yield _blocks(name, column.dtype, shape, column.item_bytes, column.block, factory)


def _blocks(
    name: str, dtype: str, shape: tuple[int, ...], row_bytes: int, read: Read, factory: HashFactory
) -> DatasetPart:
    """Hash rows block by block."""
    step = max(1, BLOCK_BYTES // row_bytes) if row_bytes else BLOCK_ROWS
    leaves, total = [], 0
    for start in range(0, shape[0], step):
        stop = min(start + step, shape[0])
        nulls, chunks = read(start, stop)
        hasher = factory.new((stop - start) * row_bytes)
        hasher.update(block_header(name, dtype, shape, (start, stop), nulls))
        for chunk in chunks:
            total += len(chunk)
            hasher.update(chunk)
        leaves.append(hasher.digest())
    return _tree_part(name, dtype, shape, total, leaves)


def _sequence_part(name: str, items: Any, factory: HashFactory) -> DatasetPart:
    count = len(items)
    hashed = [element_digest(items[index], index, factory) for index in range(count)]
    total = sum(nbytes for _, nbytes in hashed)
    return _tree_part(name, "SEQUENCE", (count,), total, [leaf for leaf, _ in hashed])


def _tree_part(
    name: str, dtype: str, shape: tuple[int, ...], nbytes: int, leaves: list[bytes]
) -> DatasetPart:
    root = merkle.root(leaves)
    digest = f"{ROOT_ALGORITHM}:{root.hex()}"
    return DatasetPart(name, dtype, shape, nbytes, digest, root, tuple(leaves))
