"""Content digests of datasets: arrays, tables, folders, files, sequences.

WARNING: FROZEN FORMAT. These digests are written into records that an auditor recomputes
in ten years. Add a version; never change what an existing one means. No randomness; the clock
only shows progress. Only paths, URLs and datasets that lie in files do I/O: what they are given
is read.

::

    dataset root = MTH(leaf of each part, in order)             MTH: RFC 6962, SHA-256
    array        leaf = MTH(H(block header || elements) for each block of rows)  see data/blocks.py
    table        one part for each column, leaf = MTH(its blocks)                see tables.py
    sequence     one part, leaf = MTH(H(element) for each element)               see elements.py
    file         leaf = RFC 8785 JSON {"digest": "blake3:...", "path": "a/b.png", "size": 123}
    ready digest leaf = RFC 8785 JSON {"digest": "blake3:..."}

A block has as many rows as fit into 4 MiB, at least one; 4096 rows where a row has no fixed size
or none. The order of rows, elements and columns counts; the entries of a mapping are sorted by
the UTF-8 bytes of their names, and so are the files of a folder by their paths. One block,
element or file can be proven alone. Parts of a tuple are named by their index, a table's columns
in it ``0.column``, and so are the entries of a mapping in a mapping and a structured array's
fields.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from provenance.errors import InputError, ProvenanceError
from provenance.fingerprint.arrays import (
    block_header,
    canonical,
    from_package,
    is_array,
    is_torch_tensor,
    load_numpy,
    type_name,
)
from provenance.fingerprint.data.parts import DatasetDigest as DatasetDigest
from provenance.fingerprint.data.parts import (
    DatasetPart,
    dataset_of,
    files_dataset,
    rows_dataset,
    tree_part,
)
from provenance.fingerprint.data.progress import Progress
from provenance.fingerprint.data.remote import is_url, url_files
from provenance.fingerprint.data.sources import (
    class_names,
    hint,
    is_hf,
    is_hf_stream,
    names_a_file,
    resolved,
    unreadable,
)
from provenance.fingerprint.elements import MAX_DEPTH, element_hasher
from provenance.fingerprint.file_tree import FileLeaf, file_leaf, folder_files
from provenance.fingerprint.hashers import Digest, HashFactory
from provenance.log import get_logger

if TYPE_CHECKING:
    from provenance.fingerprint.data.blocks import Blocks
    from provenance.fingerprint.data.cells import Column

log = get_logger("provenance")

BLOCK_BYTES: Final = 4 << 20
BLOCK_ROWS: Final = 4096
"""Rows of a block whose rows have no fixed size, or none."""

_EXPECTED: Final = (
    "expected an array, a tuple or mapping of arrays, a table, a sequence or map-style dataset,"
    " a path or URL, a list of paths, or a Digest"
)


def dataset_digest(data: object, factory: HashFactory | None = None) -> DatasetDigest:
    """The digest of a dataset (docs/coverage/data.md lists what it covers).

    Args:
        data: One of

            - an array of any framework, rows first, masked, structured or of times too; a scipy
              or torch sparse matrix; a tuple or mapping of arrays, tables and lists, such as
              ``(x, y)``
            - a table of pandas, Arrow, polars or Hugging Face, an Arrow Dataset, a DatasetDict
            - a torch ``Dataset`` with a length (it is read once, element by element; give it
              without random transforms) or the ``DataLoader`` of one
            - a list, tuple or other sequence of elements, see elements.py; an IterableDataset of
              Hugging Face, whose items are read once
            - an xgboost DMatrix, a lightgbm Dataset that still has its raw data
            - the path of a file or folder as ``str`` or ``Path``, or its URL (by fsspec); a list
              of ``Path``
            - a `Digest` that was made elsewhere
        factory: Content hash; blake3 when left out.

    Raises:
        InputError: empty, a missing path, or something without canonical bytes; the message
            names the part, the column or the element, and what to pass instead.
        MissingExtraError: a package that reading it takes is not installed.
    """
    used = factory or HashFactory()
    if isinstance(data, Digest):
        leaf = canonical({"digest": str(data)})
        part = DatasetPart("", "DIGEST", (), 0, str(data), leaf, ())
        return dataset_of("digest", data.algorithm, 1, [part])
    with Progress() as progress:
        try:
            return _Reading(used, progress).dataset(data)
        except ProvenanceError:
            raise
        except Exception as error:  # a dataset's own code may raise anything
            raise unreadable(error) from error


def dataset_folder(path: Path, factory: HashFactory, progress: Progress) -> DatasetDigest:
    """The digest of all files below a folder; ``InputError`` as in file_tree.py, or when empty."""
    named = folder_files(path)
    return files_dataset("folder", str(path), _leaves(named, factory, progress), factory)


def dataset_files(paths: Sequence[Path], factory: HashFactory, progress: Progress) -> DatasetDigest:
    """The digest of single files in the order given, named from their common folder on. Raises
    InputError: a missing or unreadable file, or no bytes at all."""
    absolute = [Path(os.path.abspath(path)) for path in paths]
    base = os.path.commonpath([path.parent for path in absolute])
    named = [(path.relative_to(base).as_posix(), path) for path in absolute]
    where = ", ".join(map(str, paths[:3]))
    return files_dataset("files", where, _leaves(named, factory, progress), factory)


def is_table(value: object) -> bool:
    """True for a table of pandas, Arrow, polars or Hugging Face, a column of pandas or polars,
    and an Arrow Dataset."""
    names = class_names(value)
    if from_package(value, "pandas"):
        return not names.isdisjoint({"DataFrame", "Series"})
    if from_package(value, "polars"):
        return not names.isdisjoint({"DataFrame", "LazyFrame", "Series"})
    arrow = from_package(value, "pyarrow")
    return (arrow and not names.isdisjoint({"Table", "RecordBatch", "Dataset"})) or is_hf(value)


class _Reading:
    """One dataset while it is read."""

    def __init__(self, factory: HashFactory, progress: Progress) -> None:
        self.factory = factory
        self.progress = progress
        self.varies = False
        self.depth = 0
        self.left_out: list[str] = []

    def dataset(self, data: Any) -> DatasetDigest:
        if isinstance(data, str | os.PathLike):
            return self._path(data)
        data = self._resolved("", data)
        if isinstance(data, list | tuple) and data and isinstance(data[0], os.PathLike):
            paths = [Path(os.fsdecode(item)) for item in data if isinstance(item, os.PathLike)]
            if len(paths) == len(data):
                return dataset_files(paths, self.factory, self.progress)
        if isinstance(data, list | tuple) and data and names_a_file(data[0]):
            log.warning("texts that name files: the texts are hashed; of files pass a list of Path")
        kind, parts = self._contents(data)
        digest = rows_dataset(kind, list(parts), self.factory)
        return replace(digest, left_out=tuple(self.left_out), varies=self.varies)

    def _resolved(self, prefix: str, data: Any) -> Any:
        data, left_out = resolved(data)
        self.left_out += [prefix + name for name in left_out]
        return data

    def _path(self, data: str | os.PathLike[str]) -> DatasetDigest:
        if isinstance(data, str) and is_url(data):
            kind, leaves = url_files(data, self.factory, self.progress)
            return files_dataset(kind, "at the URL", leaves, self.factory)
        path = Path(os.fsdecode(data))
        if isinstance(data, str) and not os.path.lexists(data):
            raise InputError(f"cannot read {data!r}: No such file or directory{hint(data)}")
        if path.is_dir():
            return dataset_folder(path, self.factory, self.progress)
        return dataset_files([path], self.factory, self.progress)

    def _contents(self, data: Any) -> tuple[str, Iterable[DatasetPart]]:
        """Kind and parts of a dataset in memory."""
        from_torch = from_package(data, "torch.utils.data")
        if (rows := self._tensor_rows("", data)) is not None:
            return "torch", rows
        if is_hf_stream(data):
            return "stream", [self._stream_part("items", data)]
        if is_table(data):
            return "table", self._columns("", data)
        if has_blocks(data) or is_column(data):
            return "arrays", self._part("0", data)
        if isinstance(data, Mapping):
            return "arrays", self._entries("", sorted_entries(data))
        kinds = {type(item): item for item in data} if isinstance(data, list | tuple) else {}
        if any(map(is_dataset, kinds.values())) or (
            isinstance(data, tuple) and any(map(has_blocks, kinds.values()))
        ):
            return "arrays", self._entries("", enumerate(data))
        if isinstance(data, bytes | bytearray) or not is_sequence(data):
            raise InputError(f"data: found {type_name(data)}, {_EXPECTED}")
        return "torch" if from_torch else "sequence", [self._sequence_part("items", data)]

    def _entries(
        self, prefix: str, entries: Iterable[tuple[object, object]]
    ) -> Iterator[DatasetPart]:
        for key, value in entries:
            yield from self._part(f"{prefix}{key}", value)

    def _part(self, name: str, value: Any) -> Iterator[DatasetPart]:
        """The parts of an entry of a tuple or mapping."""
        value = self._resolved(f"{name}.", value)
        if is_hf_stream(value):
            yield self._stream_part(name, value)
        elif (rows := self._tensor_rows(f"{name}.", value)) is not None:
            yield from rows
        elif is_table(value):
            yield from self._columns(f"{name}.", value)
        elif is_column(value):
            from provenance.fingerprint.tables import array_column

            yield self._column(name, array_column(name, value))
        elif has_blocks(value):
            yield from self._array(name, value)
        elif isinstance(value, Mapping):
            self.depth += 1  # what libraries set for recursion may be more than the C stack holds
            if self.depth > MAX_DEPTH:
                raise InputError(f"data: nested deeper than {MAX_DEPTH} levels")
            yield from self._entries(f"{name}.", sorted_entries(value))
            self.depth -= 1
        elif isinstance(value, list | tuple) or (
            is_sequence(value) and not isinstance(value, str | bytes | bytearray)
        ):
            yield self._sequence_part(name, value)
        elif isinstance(value, os.PathLike):
            raise InputError(f"data part {name!r}: found a path, expected what is read from it")
        else:
            raise InputError(
                f"data part {name!r}: found {type_name(value)}, expected an array, table, sparse"
                " matrix, list or map-style dataset"
            )

    def _array(self, name: str, value: Any) -> Iterator[DatasetPart]:
        load_numpy()
        from provenance.fingerprint.data.blocks import array_blocks, is_sparse, sparse_blocks

        if is_torch_tensor(value) and value.is_nested:
            raise InputError(f"data part {name!r}: found a nested tensor, expected a list of them")
        if is_sparse(value):
            yield self._blocks(sparse_blocks(name, value))
            return
        dtype = getattr(value, "dtype", None)
        kind = getattr(dtype, "kind", "")
        if fields := getattr(dtype, "names", None):
            for each in fields:
                yield from self._array(f"{name}.{each}", value[each])
        elif kind in ("U", "S", "O", "T") and value.ndim:
            listed = value if hasattr(value, "tolist") else load_numpy().asarray(value)  # h5py's
            yield self._sequence_part(name, listed.tolist())
        else:
            yield self._blocks(array_blocks(name, value))

    def _tensor_rows(self, prefix: str, data: Any) -> Iterator[DatasetPart] | None:
        if not from_package(data, "torch.utils.data"):
            return None
        from provenance.fingerprint.data.blocks import tensor_blocks, tensor_rows

        tensors = tensor_rows(data)
        if tensors is None:
            return None
        return (self._blocks(tensor_blocks(f"{prefix}{at}", pieces))
                for at, pieces in enumerate(tensors))  # fmt: skip

    def _columns(self, prefix: str, table: Any) -> Iterator[DatasetPart]:
        from provenance.fingerprint.tables import table_columns  # needs NumPy, as a table does

        for column in table_columns(table):
            yield self._column(prefix + column.name, column)

    def _column(self, name: str, column: Column) -> DatasetPart:
        from provenance.fingerprint.data.blocks import Blocks

        size = column.item_bytes
        return self._blocks(Blocks(name, column.dtype, (column.rows,), size, column.block))

    def _blocks(self, source: Blocks) -> DatasetPart:
        """Hash rows block by block."""
        name, dtype, shape, row_bytes, read = source
        step = max(1, BLOCK_BYTES // row_bytes) if row_bytes else BLOCK_ROWS
        leaves, total = [], 0
        self.progress.part(name, shape[0])
        for start in range(0, shape[0], step):
            stop = min(start + step, shape[0])
            nulls, chunks = read(start, stop)
            hasher = self.factory.new((stop - start) * row_bytes)
            hasher.update(block_header(name, dtype, shape, (start, stop), nulls))
            for chunk in chunks:
                total += len(chunk)
                hasher.update(chunk)
            leaves.append(hasher.digest())
            self.progress.add(stop - start)
        return tree_part(name, dtype, shape, total, leaves)

    def _sequence_part(self, name: str, items: Any) -> DatasetPart:
        count, plain = len(items), isinstance(items, list | tuple)
        digest, add = element_hasher(self.factory), self.progress.add
        leaves, total = [], 0
        self.progress.part(name, count)
        for index in range(count):
            leaf, nbytes = digest(items[index], index)
            leaves.append(leaf)
            total += nbytes
            add(1)
        if not plain:
            for index in sorted({0, count // 2, count - 1} if count else ()):
                if digest(items[index], index)[0] != leaves[index]:
                    self._varying(type_name(items), index)
                    break
        return tree_part(name, "SEQUENCE", (count,), total, leaves)

    def _stream_part(self, name: str, items: Iterable[Any]) -> DatasetPart:
        digest, leaves, total = element_hasher(self.factory), [], 0
        self.progress.part(name)
        for index, item in enumerate(items):
            leaf, nbytes = digest(item, index)
            leaves.append(leaf)
            total += nbytes
            self.progress.add(1)
        for index, item in zip(range(min(1, len(leaves))), items, strict=False):
            if digest(item, index)[0] != leaves[index]:
                self._varying(type_name(items), index)
        return tree_part(name, "SEQUENCE", (len(leaves),), total, leaves)

    def _varying(self, kind: str, index: int) -> None:
        self.varies = True
        log.warning(
            "the data differs when it is read again, as with random augmentation: its digest is"
            " of one reading, and nobody can recompute it; give it without random transforms",
            data=kind,
            item=index,
        )


def sorted_entries(data: Mapping[Any, Any]) -> list[tuple[object, object]]:
    """The entries of a mapping by the UTF-8 bytes of their names."""
    return sorted(data.items(), key=lambda item: str(item[0]).encode(errors="replace"))


def has_blocks(value: object) -> bool:
    """True for an array, sparse or not."""
    if is_array(value) or type(value).__name__ == "Stored":
        return True
    return from_package(value, "scipy.sparse") and hasattr(value, "tocsr")


def is_column(value: object) -> bool:
    """True for an Array or ChunkedArray of Arrow, an array or Index of pandas, a Column of
    Hugging Face."""
    names = class_names(value)
    if from_package(value, "pandas"):
        return not names.isdisjoint({"ExtensionArray", "Index"})
    if from_package(value, "pyarrow"):
        return not names.isdisjoint({"Array", "ChunkedArray"})
    return type(value).__name__ == "Column" and is_hf(getattr(value, "source", None))


def is_dataset(value: object) -> bool:
    """True for what is a dataset of its own, and no item of one."""
    known = is_table(value) or is_column(value) or is_hf_stream(value)
    return known or from_package(value, "torch.utils.data")


def is_sequence(value: object) -> bool:
    """True for what has a length and items by index."""
    return hasattr(value, "__len__") and hasattr(value, "__getitem__")


def _leaves(
    named: Sequence[tuple[str, Path]], factory: HashFactory, progress: Progress
) -> list[FileLeaf]:
    progress.part("files", len(named))
    leaves = []
    for name, place in named:
        leaves.append(file_leaf(place, name, factory))
        progress.add(1)
    return leaves
