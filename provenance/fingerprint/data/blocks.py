"""Arrays of numbers, masked, of times, sparse, or rows of torch datasets, ready to be hashed.

WARNING: FROZEN FORMAT, as in datasets.py. No I/O, no clock, no randomness. Import it only for an
array: it brings NumPy.

::

    masked array   as the array, with masked elements as zeros; validity is one byte an element,
                   left out where none of the block is masked. Its fill value does not count
    datetime64     TS[unit], timedelta64 DUR[unit]: 8 bytes an element, NaT as -2**63
    SPARSE<T>      of a block of rows: how many elements each row has, their columns (8 bytes
                   little-endian each), their values; row by row, columns ascending

A sparse matrix is the same in each of its formats: duplicates are added up, zeros left out.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from provenance.errors import InputError
from provenance.fingerprint.arrays import (
    DTYPE_NAMES,
    ITEM_BYTES,
    array_view,
    from_package,
    is_torch_tensor,
)
from provenance.fingerprint.data.cells import little_endian
from provenance.fingerprint.elements import moments
from provenance.fingerprint.row_major import row_major

Read = Callable[[int, int], tuple[int, Iterable[bytes | memoryview]]]
"""``read(start, stop)``: missing values among those rows, and their canonical bytes."""


class Blocks(NamedTuple):
    """An array or column that is hashed block by block.

    Args:
        shape: Rows first.
        row_bytes: Bytes of a row; 0 where it has no fixed size, or none.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    row_bytes: int
    read: Read


class Stored(NamedTuple):
    """A sparse matrix of scipy in which a zero that is stored is not a missing element."""

    matrix: Any


def array_blocks(name: str, value: Any) -> Blocks:
    """Any array with rows; `InputError` as `array_view` raises it, or for a scalar."""
    mask = None
    if from_package(value, "numpy.ma"):
        mask = np.ma.getmaskarray(value)
        value = value.data
    if getattr(getattr(value, "dtype", None), "kind", "") in ("M", "m"):
        dtype, array = moments(value)
        item = 8
    else:
        array, dtype = array_view(name, value)
        item = ITEM_BYTES[dtype]
    if array.ndim == 0:
        raise InputError(f"data part {name!r}: found a scalar, expected an array with rows")
    shape = tuple(int(size) for size in array.shape)

    def read(start: int, stop: int) -> tuple[int, Iterable[bytes | memoryview]]:
        part = array[start:stop]
        if mask is None or not (nulls := int(np.count_nonzero(mask[start:stop]))):
            return 0, row_major(part)
        masked = np.ascontiguousarray(mask[start:stop])
        values = np.where(masked, np.zeros((), array.dtype), part)
        return nulls, [little_endian(~masked), little_endian(values)]

    return Blocks(name, dtype, shape, item * math.prod(shape[1:]), read)


def is_sparse(value: object) -> bool:
    """True for scipy's sparse matrices and arrays, and for torch's sparse tensors."""
    if isinstance(value, Stored):
        return True
    if is_torch_tensor(value):
        return value.layout is not sys.modules["torch"].strided  # type: ignore[attr-defined]  # a tensor
    return from_package(value, "scipy.sparse") and hasattr(value, "tocsr")


def sparse_blocks(name: str, value: Any) -> Blocks:
    """A sparse matrix; `InputError` where it has not two axes."""
    if len(value.shape if not isinstance(value, Stored) else value.matrix.shape) != 2:
        raise InputError(
            f"data part {name!r}: found a sparse array of shape {tuple(value.shape)},"
            " expected two axes"
        )
    if isinstance(value, Stored):
        indptr, columns, values, shape = _stored(value.matrix)
    elif is_torch_tensor(value):
        indptr, columns, values, shape = _torch_rows(name, value)
    else:
        matrix = value.tocsr(copy=True)
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        indptr, columns, values, shape = _stored(matrix)
    dtype = DTYPE_NAMES.get(values.dtype.name)
    if dtype is None:
        raise InputError(
            f"data part {name!r}: found a sparse matrix of {values.dtype},"
            f" expected one of {', '.join(DTYPE_NAMES)}"
        )

    def read(start: int, stop: int) -> tuple[int, Iterable[bytes | memoryview]]:
        ends = indptr[start : stop + 1].astype(np.int64)
        cut = slice(int(ends[0]), int(ends[-1]))
        places = columns[cut].astype(np.int64)
        return 0, [little_endian(part) for part in (np.diff(ends), places, values[cut])]

    return Blocks(name, f"SPARSE<{dtype}>", shape, 0, read)


def _stored(matrix: Any) -> tuple[Any, Any, Any, tuple[int, ...]]:
    if not matrix.has_sorted_indices:
        matrix = matrix.sorted_indices()
    return matrix.indptr, matrix.indices, matrix.data, tuple(int(size) for size in matrix.shape)


def _torch_rows(name: str, tensor: Any) -> tuple[Any, Any, Any, tuple[int, ...]]:
    plain = tensor.detach().cpu()
    plain = (plain if plain.is_sparse else plain.to_sparse_coo()).coalesce()
    if plain.sparse_dim() != 2:
        raise InputError(f"data part {name!r}: found a hybrid sparse tensor, expected a plain one")
    values, _ = array_view(name, plain.values())
    rows, columns = plain.indices().numpy()
    kept = values != 0
    counts = np.bincount(rows[kept], minlength=tensor.shape[0])
    return np.append(0, np.cumsum(counts)), columns[kept], values[kept], tuple(tensor.shape)


class _Piece(NamedTuple):
    """A tensor's rows, all or those of ``rows``."""

    tensor: Any
    rows: Any = None

    def __len__(self) -> int:
        return len(self.tensor if self.rows is None else self.rows)

    def part(self, start: int, stop: int) -> Any:
        """Rows ``start`` to ``stop`` (excluded)."""
        if self.rows is None:
            return self.tensor[start:stop]
        return self.tensor[self.rows[start:stop]]

    def chosen(self, rows: Any) -> _Piece:
        """Some of its rows."""
        return _Piece(self.tensor, rows if self.rows is None else self.rows[rows])


def tensor_rows(dataset: Any) -> list[list[_Piece]] | None:
    """The tensors of a TensorDataset, each in pieces, as a Subset and a ConcatDataset of such
    choose and join them; None for any other dataset, and for a subclass: it may change items."""
    kind = type(dataset)
    if not kind.__module__.startswith("torch.utils.data"):
        return None
    if kind.__name__ == "TensorDataset":
        if any(is_sparse(tensor) for tensor in dataset.tensors):
            return None
        return [[_Piece(tensor)] for tensor in dataset.tensors]
    if kind.__name__ == "Subset" and (inner := tensor_rows(dataset.dataset)) is not None:
        return [_chosen(pieces, dataset.indices) for pieces in inner]
    if kind.__name__ == "ConcatDataset":
        parts = [tensor_rows(part) for part in dataset.datasets]
        known = [part for part in parts if part is not None]
        if len(known) == len(parts) and len({_form(part) for part in known}) == 1:
            return [[piece for part in column for piece in part]
                    for column in zip(*known, strict=True)]  # fmt: skip
    return None


def _form(columns: list[list[_Piece]]) -> tuple[Any, ...]:
    firsts = [pieces[0].tensor for pieces in columns]
    return tuple((tensor.dtype, tuple(tensor.shape[1:])) for tensor in firsts)


def _chosen(pieces: list[_Piece], indices: Any) -> list[_Piece]:
    torch = sys.modules["torch"]
    rows = torch.as_tensor(np.asarray(indices, dtype=np.int64))
    if len(pieces) > 1:
        pieces = [_Piece(torch.cat([piece.part(0, len(piece)) for piece in pieces]))]
    (piece,) = pieces
    beyond = rows[(rows >= len(piece)) | (rows < -len(piece))]
    if len(beyond):
        raise InputError(f"data: Subset has the index {int(beyond[0])} of {len(piece)} rows")
    return [piece.chosen(torch.where(rows < 0, rows + len(piece), rows))]


def tensor_blocks(name: str, pieces: list[_Piece]) -> Blocks:
    """One tensor of a TensorDataset: as the tensor of those rows."""
    first = array_blocks(name, pieces[0].part(0, 1))
    rows = sum(map(len, pieces))

    def read(start: int, stop: int) -> tuple[int, Iterable[bytes | memoryview]]:
        return 0, _joined(name, pieces, start, stop)

    return first._replace(shape=(rows, *first.shape[1:]), read=read)


def _joined(name: str, pieces: list[_Piece], start: int, stop: int) -> Iterable[memoryview]:
    at = 0
    for piece in pieces:
        low, high = max(start - at, 0), min(stop - at, len(piece))
        if low < high:
            yield from row_major(array_view(name, piece.part(low, high))[0])
        at += len(piece)
