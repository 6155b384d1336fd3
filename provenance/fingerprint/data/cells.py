"""The cells of a column, nested to any depth, as canonical bytes.

WARNING: FROZEN FORMAT, as in tables.py. No I/O, no clock, no randomness.

Nested cells follow their parents' ones. Each level below the outermost, whose count of missing
values stands in the block's header, begins with that count::

    LIST<T>      the length of each list (8 bytes little-endian), then all items, as a level of T
    STRUCT<...>  each field after the other, as a level of its type
    level        missing values (8 bytes little-endian) || validity, unless none || elements

What lies under a missing list or struct is left out of the list, and missing in the struct.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from provenance.fingerprint.row_major import whole

Array = NDArray[Any]
Valid = NDArray[np.bool_]


class Texts(NamedTuple):
    """Items of UTF8 and BYTES: their lengths (I64, 0 where missing), and all one after another."""

    lengths: Array
    data: bytes | memoryview

    @classmethod
    def of(cls, items: list[bytes]) -> Texts:
        """From single items, ``b""`` where missing."""
        lengths = np.fromiter(map(len, items), np.int64, len(items))
        return cls(lengths, b"".join(items))


class Lists(NamedTuple):
    """Lists: their lengths (I64, 0 where missing), and the items of all of them."""

    lengths: Array
    items: Cells


class Fields(NamedTuple):
    """Structs: the cells of each field, as many as there are structs."""

    parts: tuple[Cells, ...]


class Cells(NamedTuple):
    """Some rows of a column: which have a value, and the values of all of them."""

    valid: Valid
    values: Array | Texts | Lists | Fields

    def block(self) -> tuple[int, list[bytes | memoryview]]:
        """Missing values, and the canonical bytes: validity, unless none is missing; elements."""
        nulls = int(len(self.valid) - np.count_nonzero(self.valid))
        chunks: list[bytes | memoryview] = [little_endian(self.valid)] if nulls else []
        values = self.values
        if isinstance(values, Texts):
            chunks += [little_endian(values.lengths), values.data]
        elif isinstance(values, Lists):
            chunks += [little_endian(values.lengths), *values.items.level()]
        elif isinstance(values, Fields):
            for part in values.parts:
                chunks += Cells(part.valid & self.valid, part.values).level()
        else:
            if nulls and len(values):
                values = np.where(self.valid, values, np.zeros((), dtype=values.dtype))
            chunks.append(little_endian(values))
        return nulls, chunks

    def level(self) -> Iterator[bytes | memoryview]:
        """The canonical bytes of an inner level."""
        nulls, chunks = self.block()
        yield nulls.to_bytes(8, "little")
        yield from chunks

    @classmethod
    def joined(cls, parts: Sequence[Cells]) -> Cells:
        """The cells of all parts, of one type, one after another."""
        if len(parts) == 1:
            return parts[0]
        valid = np.concatenate([part.valid for part in parts])
        values = [part.values for part in parts]
        if isinstance(values[0], Texts):
            texts = [value for value in values if isinstance(value, Texts)]
            lengths = np.concatenate([value.lengths for value in texts])
            return cls(valid, Texts(lengths, b"".join(value.data for value in texts)))
        if isinstance(values[0], Lists):
            lists = [value for value in values if isinstance(value, Lists)]
            lengths = np.concatenate([value.lengths for value in lists])
            return cls(valid, Lists(lengths, cls.joined([value.items for value in lists])))
        if isinstance(values[0], Fields):
            columns = zip(*(v.parts for v in values if isinstance(v, Fields)), strict=True)
            return cls(valid, Fields(tuple(cls.joined(column) for column in columns)))
        arrays = [value for value in values if isinstance(value, np.ndarray)]
        return cls(valid, np.concatenate(arrays))

    def take(self, codes: Array) -> Cells:
        """The cells at these places; a missing one at a negative place."""
        there = codes >= 0
        safe = np.where(there, codes, 0)
        values = self.values
        if isinstance(values, Texts):
            ends = np.cumsum(values.lengths)
            bounds = zip(ends - values.lengths, ends, strict=True)
            items = [bytes(values.data[start:end]) for start, end in bounds]
            values = Texts.of([items[code] if code >= 0 else b"" for code in codes])
        elif isinstance(values, Lists):
            starts = (np.cumsum(values.lengths) - values.lengths)[safe]
            lengths = np.where(there, values.lengths[safe], 0)
            before = np.cumsum(lengths) - lengths
            places = np.repeat(starts - before, lengths) + np.arange(lengths.sum())
            values = Lists(lengths, values.items.take(places))
        elif isinstance(values, Fields):
            values = Fields(tuple(part.take(codes) for part in values.parts))
        elif len(values):
            values = values[safe]
        return Cells(there & self.valid[safe], values)


@dataclass(frozen=True, slots=True)
class Column:
    """One column, ready to be hashed in blocks.

    Args:
        dtype: Its type in the table of tables.py.
        item_bytes: Bytes of an element; 0 where it has no fixed size, or none.
        read: ``read(start, stop)`` gives the cells of those rows.
    """

    name: str
    dtype: str
    rows: int
    item_bytes: int
    read: Callable[[int, int], Cells]

    def block(self, start: int, stop: int) -> tuple[int, list[bytes | memoryview]]:
        """Missing values among rows ``start`` to ``stop`` (excluded), and the canonical bytes."""
        return self.read(start, stop).block()


def little_endian(values: Array) -> memoryview:
    """The elements as bytes, little-endian."""
    if sys.byteorder == "little" and values.dtype.isnative and values.flags.c_contiguous:
        return whole(values)
    return whole(np.ascontiguousarray(values, values.dtype.newbyteorder("<")))


def numbers(valid: Valid, values: Array) -> Cells:
    """Cells of numbers; ``NaN`` among floats is a missing one."""
    return Cells(valid & ~np.isnan(values) if values.dtype.kind == "f" else valid, values)


def no_values(rows: int) -> Cells:
    """Missing cells without a type."""
    return Cells(np.zeros(rows, dtype=bool), np.zeros(0, dtype=np.uint8))
