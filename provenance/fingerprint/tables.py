"""pandas and Arrow tables as columns of canonical bytes.

WARNING: FROZEN FORMAT. What is yielded here is what dataset digests are made of; a change of
any byte makes old digests unverifiable. No I/O, no clock, no randomness. pandas and pyarrow are
never imported: an object of theirs brings them along. NumPy is: import this file only for a table.

A column is hashed in blocks of rows, each ``H(block header || validity || elements)`` (see
arrays.py and datasets.py). Validity is one byte a row, 1 for a value and 0 for a missing one; it
is left out where the header says ``"nulls":0``. A missing number is written as zeros, a missing
text with length 0. ``NaN`` in a column of floats counts as missing, because pandas writes the one
as the other.

==================  ================================  =======================================
type                elements                          pandas / Arrow
==================  ================================  =======================================
F64 ... U8, BOOL    as in arrays.py                   NumPy and nullable dtypes / the same
TS[unit], TS[u,tz]  8 bytes, signed, since 1970 UTC   datetime64 / timestamp
DUR[unit]           8 bytes, signed                   timedelta64 / duration
D32                 4 bytes, signed, days since 1970  datetime.date / date32
UTF8, BYTES         lengths, then the items           str, bytes / string, binary (also large)
NULL                none                              objects, all missing / null
==================  ================================  =======================================

A categorical or dictionary column is hashed as its values. As in Arrow's conversion, a pandas
index is appended as columns, by its name or as ``__index_level_0__``, and a column name that is no
text is written as ``str()`` gives it. An index without a name that is a range (row numbers) is
left out. One with a name is not: pandas makes a range of any column of even steps that becomes
the index; Arrow's conversion does the same with ``preserve_index=True``.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from provenance.errors import InputError
from provenance.fingerprint.arrays import DTYPE_NAMES, encode_text, type_name, var_chunks
from provenance.fingerprint.row_major import whole

Array = NDArray[Any]
Values = Array | list[bytes]
"""A block's elements: numbers, or items of UTF8 and BYTES (``b""`` where missing)."""

Valid = NDArray[np.bool_]

_EPOCH: Final = dt.date(1970, 1, 1).toordinal()
_ARROW_NUMBERS: Final = {"halffloat": "float16", "float": "float32", "double": "float64"}
_ARROW_TEXTS: Final = frozenset({"string", "large_string", "string_view"})
_ARROW_BYTES: Final = frozenset({"binary", "large_binary", "binary_view"})
_NUMPY_KINDS: Final = "biuf"


@dataclass(frozen=True, slots=True)
class Column:
    """One column, ready to be hashed in blocks.

    Args:
        dtype: Its type in the table above.
        item_bytes: Bytes of an element; 0 for UTF8, BYTES and NULL.
        read: ``read(start, stop)`` gives the validity and the elements of those rows.
    """

    name: str
    dtype: str
    rows: int
    item_bytes: int
    read: Callable[[int, int], tuple[Valid, Values]]

    def block(self, start: int, stop: int) -> tuple[int, list[bytes | memoryview]]:
        """Missing values among rows ``start`` to ``stop`` (excluded), and the canonical bytes."""
        valid, values = self.read(start, stop)
        nulls = int(len(valid) - np.count_nonzero(valid))
        flags = [_little_endian(valid)] if nulls else []
        if isinstance(values, list):
            return nulls, [*flags, *var_chunks(values)]
        if nulls and len(values):
            values = np.where(valid, values, np.zeros((), dtype=values.dtype))
        return nulls, [*flags, _little_endian(values)]


def _little_endian(values: NDArray[Any]) -> memoryview:
    return whole(np.ascontiguousarray(values, values.dtype.newbyteorder("<")))


def table_columns(table: Any) -> list[Column]:
    """The columns of a table in order.

    Raises:
        InputError: two columns of one name, or a type that has no canonical bytes here; the
            message names the column.
    """
    module = type(table).__module__.partition(".")[0]
    columns = list(_arrow_columns(table) if module == "pyarrow" else _pandas_columns(table))
    seen: set[str] = set()
    for column in columns:
        if column.name in seen:
            raise InputError(f"table: two columns have the name {column.name!r}")
        seen.add(column.name)
    return columns


def _arrow_columns(table: Any) -> Iterator[Column]:
    for index, name in enumerate(table.schema.names):
        column = table.column(index)
        if not hasattr(column, "combine_chunks"):  # a RecordBatch has plain arrays
            column = sys.modules["pyarrow"].chunked_array([column])
        yield _arrow_column(name, column)


def _arrow_column(name: str, data: Any) -> Column:
    """A column from an Arrow ChunkedArray."""
    kind = data.type
    if hasattr(kind, "value_type") and str(kind).startswith("dictionary<"):
        data = data.cast(kind.value_type)
        kind = data.type
    text = str(kind)
    rows = len(data)
    if text in _ARROW_TEXTS or text in _ARROW_BYTES or text.startswith("fixed_size_binary["):
        dtype = "UTF8" if text in _ARROW_TEXTS else "BYTES"
        return Column(name, dtype, rows, 0, lambda a, b: _arrow_items(_flat(data, a, b)))
    if text == "null":
        return _empty_column(name, rows)
    if text.startswith("timestamp["):
        dtype, numpy_name = _timestamp(kind.unit, kind.tz), "int64"
    elif text.startswith("duration["):
        dtype, numpy_name = f"DUR[{kind.unit}]", "int64"
    elif text == "date32[day]":
        dtype, numpy_name = "D32", "int32"
    elif (numpy_name := _ARROW_NUMBERS.get(text, text)) in DTYPE_NAMES:
        dtype = DTYPE_NAMES[numpy_name]
    else:
        raise _bad_type(name, f"the Arrow type {text}")
    numpy_type = np.dtype(numpy_name)

    def read(start: int, stop: int) -> tuple[Valid, Values]:
        return _arrow_numbers(_flat(data, start, stop), numpy_type)

    return Column(name, dtype, rows, numpy_type.itemsize, read)


def _flat(data: Any, start: int, stop: int) -> Any:
    """Rows of a ChunkedArray as one Array."""
    return data.slice(start, stop - start).combine_chunks()


def _arrow_items(array: Any) -> tuple[Valid, Values]:
    valid = _arrow_valid(array)
    if array.null_count:
        array = array.cast("large_binary").fill_null(b"")
    return valid, array.cast("large_binary").to_pylist()


def _arrow_numbers(array: Any, numpy_type: np.dtype[Any]) -> tuple[Valid, Values]:
    valid = _arrow_valid(array)
    if numpy_type.kind == "b":  # Arrow packs eight to a byte
        array, numpy_type = array.cast("uint8"), np.dtype(np.uint8)
    end = array.offset + len(array)
    buffer = array.buffers()[1]
    values = np.frombuffer(buffer, dtype=numpy_type, count=end)[array.offset :]
    return _without_nan(valid, values)


def _arrow_valid(array: Any) -> Valid:
    valid: Valid = array.is_valid().to_numpy(zero_copy_only=False)
    return valid


def _pandas_columns(table: Any) -> Iterator[Column]:
    if not hasattr(table, "columns"):
        table = table.to_frame()
    for index, label in enumerate(table.columns):
        yield _pandas_column(str(label), table.iloc[:, index])
    index = table.index
    if type(index).__name__ == "RangeIndex" and index.name is None:
        return
    for level in range(index.nlevels):
        values = index.get_level_values(level)
        label = f"__index_level_{level}__" if values.name is None else str(values.name)
        yield _pandas_column(label, values.to_series())


def _pandas_column(name: str, series: Any) -> Column:
    dtype, rows = series.dtype, len(series)
    if hasattr(series, "cat"):
        return _categorical_column(name, series)
    if hasattr(series.array, "__arrow_array__") and "Arrow" in type(series.array).__name__:
        arrow = sys.modules["pyarrow"]
        data = series.array.__arrow_array__()
        return _arrow_column(
            name, data if isinstance(data, arrow.ChunkedArray) else arrow.chunked_array([data])
        )
    if dtype.kind in "Mm":
        return _pandas_times(name, series)
    numpy_type = getattr(dtype, "numpy_dtype", dtype)  # Int64 and other nullable dtypes
    if isinstance(numpy_type, np.dtype) and numpy_type.kind in _NUMPY_KINDS:
        canonical = DTYPE_NAMES.get(numpy_type.name)
        if canonical is None:
            raise _bad_type(name, f"dtype {dtype}")
        read = partial(_pandas_numbers, series, numpy_type)
        return Column(name, canonical, rows, numpy_type.itemsize, read)
    return _object_column(name, series)


def _pandas_numbers(
    series: Any, numpy_type: np.dtype[Any], start: int, stop: int
) -> tuple[Valid, Values]:
    part = series.iloc[start:stop]
    if isinstance(part.dtype, np.dtype):
        return _without_nan(np.ones(len(part), dtype=bool), part.to_numpy())
    valid = ~part.isna().to_numpy(dtype=bool)
    filler = np.zeros((), dtype=numpy_type).item()
    return _without_nan(valid, part.to_numpy(dtype=numpy_type, na_value=filler))


def _pandas_times(name: str, series: Any) -> Column:
    dtype = series.dtype
    zone = getattr(dtype, "tz", None)
    unit = dtype.unit if zone is not None else np.datetime_data(dtype)[0]
    kind = f"DUR[{unit}]" if dtype.kind == "m" else _timestamp(unit, zone and str(zone))

    def read(start: int, stop: int) -> tuple[Valid, Values]:
        part = series.iloc[start:stop]
        utc = part.dt.tz_convert(None) if zone is not None else part
        return ~part.isna().to_numpy(dtype=bool), utc.to_numpy().view(np.int64)

    return Column(name, kind, len(series), 8, read)


def _categorical_column(name: str, series: Any) -> Column:
    codes = series.cat.codes.to_numpy()
    categories = series.cat.categories
    if len(categories) == 0:
        return _empty_column(name, len(series))
    values = _pandas_column(name, categories.to_series())
    _, lookup = values.read(0, len(categories))

    def read(start: int, stop: int) -> tuple[Valid, Values]:
        part = codes[start:stop]
        valid = part >= 0
        if isinstance(lookup, list):
            return valid, [lookup[code] if code >= 0 else b"" for code in part]
        return valid, lookup[np.where(valid, part, 0)]

    return Column(name, values.dtype, len(series), values.item_bytes, read)


def _object_column(name: str, series: Any) -> Column:
    """Python objects: all of them texts, all bytes, or all dates; missing ones among them."""
    first = next(iter(series[series.notna()]), None)
    readers: dict[type, tuple[str, int, Callable[[Any, int], Any]]] = {
        str: ("UTF8", 0, lambda item, row: encode_text(item, f"column {name!r}, row {row}")),
        bytes: ("BYTES", 0, lambda item, row: item),
        dt.date: ("D32", 4, lambda item, row: item.toordinal() - _EPOCH),
    }
    if type(series.dtype).__name__ == "StringDtype":
        first = ""  # texts by type, even when all are missing
    elif first is None:
        return _empty_column(name, len(series))
    base = next((kind for kind in readers if isinstance(first, kind)), type(first))
    if base not in readers or isinstance(first, dt.datetime):
        row = int(series.notna().to_numpy().argmax())
        raise _bad_type(name, f"{type_name(first)} in row {row}")
    dtype, item_bytes, encode = readers[base]

    def read(start: int, stop: int) -> tuple[Valid, Values]:
        part = series.iloc[start:stop]
        valid = ~part.isna().to_numpy(dtype=bool)
        items: list[Any] = []
        for row, (item, there) in enumerate(zip(part, valid, strict=True), start):
            if there and (not isinstance(item, base) or isinstance(item, dt.datetime)):
                raise _bad_type(name, f"{type_name(item)} in row {row} after {base.__name__}")
            items.append(encode(item, row) if there else (0 if item_bytes else b""))
        return valid, np.array(items, dtype=np.int32) if item_bytes else items

    return Column(name, dtype, len(series), item_bytes, read)


def _empty_column(name: str, rows: int) -> Column:
    none = np.zeros(0, dtype=np.uint8)
    return Column(name, "NULL", rows, 0, lambda a, b: (np.zeros(b - a, dtype=bool), none))


def _without_nan(valid: Valid, values: Array) -> tuple[Valid, Values]:
    return (valid & ~np.isnan(values) if values.dtype.kind == "f" else valid), values


def _timestamp(unit: str, zone: str | None) -> str:
    if zone is None:
        return f"TS[{unit}]"
    fixed = zone.startswith("UTC") and len(zone) > len("UTC")  # pandas has UTC+01:00, Arrow +01:00
    return f"TS[{unit},{zone[3:] if fixed else zone}]"


def _bad_type(name: str, found: str) -> InputError:
    return InputError(
        f"table column {name!r}: found {found}, expected numbers, booleans, texts, bytes, dates,"
        " timestamps or durations"
    )
