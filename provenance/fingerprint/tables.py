"""Tables as columns of canonical bytes: pandas, Arrow, polars, Hugging Face.

WARNING: FROZEN FORMAT. What is yielded here is what dataset digests are made of; a change of
any byte makes old digests unverifiable. No clock, no randomness; I/O only where a table lies in
files of its own (an Arrow Dataset, Hugging Face's). The libraries of tables are never imported: an
object of theirs brings them along. NumPy is: import this file only for a table.

A column is hashed in blocks of rows, each ``H(block header || validity || elements)`` (see
arrays.py and datasets.py). Validity is one byte a row, 1 for a value and 0 for a missing one; it
is left out where the header says ``"nulls":0``. A missing number is written as zeros, a missing
text with length 0. ``NaN`` in a column of floats counts as missing, because pandas writes the one
as the other.

====================  ==============================  =======================================
type                  elements                        pandas / Arrow
====================  ==============================  =======================================
F64 ... U8, BOOL      as in arrays.py                 NumPy, nullable, sparse dtypes / the same
C64, C128             as in arrays.py; NaN is there   complex / none
TS[unit], TS[u,tz]    8 bytes, signed, since 1970     datetime64 / timestamp
DUR[unit]             8 bytes, signed                 timedelta64 / duration
D32, D64              days, or ms, since 1970         datetime.date / date32, date64
TIME[unit]            8 bytes since midnight          datetime.time / time32, time64
PERIOD[freq]          8 bytes, pandas' ordinal        period / extension pandas.period
UTF8, BYTES           lengths, then the items         str, bytes / string, binary (also large)
DECIMAL               as UTF8, shortest: ``-1.5``     decimal.Decimal / decimal
LIST<T>, STRUCT<...>  see data/cells.py               lists and arrays / list, map, struct
INTERVAL[side]<T>     as a STRUCT of left, right      interval / extension pandas.interval
OBJECT                lengths, then elements.py       any other mixture of Python objects
NULL                  none                            objects, all missing / null
====================  ==============================  =======================================

A categorical or dictionary column is hashed as its values. As in Arrow's conversion, a pandas
index is appended as columns, by its name or as ``__index_level_0__``, and a column name that is no
text is written as ``str()`` gives it. An index without a name that is a range (row numbers) is
left out. One with a name is not: pandas makes a range of any column of even steps that becomes
the index; Arrow's conversion does the same with ``preserve_index=True``.
"""

from __future__ import annotations

import datetime as dt
import decimal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np

from provenance.errors import InputError
from provenance.fingerprint.arrays import DTYPE_NAMES, encode_text, load, type_name
from provenance.fingerprint.data.arrow import (
    arrow_column,
    arrow_columns,
    bad_type,
    decimal_bytes,
    hf_columns,
    polars_columns,
)
from provenance.fingerprint.data.cells import Cells, Column, Fields, Texts, no_values, numbers
from provenance.fingerprint.data.zones import time_type, zone_name
from provenance.fingerprint.elements import element_bytes

_EPOCH: Final = dt.date(1970, 1, 1).toordinal()
_NUMPY_KINDS: Final = "biufc"


def table_columns(table: Any) -> Iterator[Column]:
    """The columns of a table in order, each made when it is asked for. Raises InputError: a type
    that has no canonical bytes here; the message names the column."""
    packages = (base.__module__.partition(".")[0] for base in type(table).__mro__)
    return next(_READERS[package] for package in packages if package in _READERS)(table)


def array_column(name: str, value: Any) -> Column:
    """An Array of Arrow, an array or Index of pandas, a Column of Hugging Face, as a column."""
    if hasattr(value, "null_count"):
        return arrow_column(name, value)
    pandas = sys.modules.get("pandas")
    if pandas is None or type(value).__module__.startswith("datasets"):
        columns = hf_columns(value.source.select_columns([value.column_name]))
        return replace(next(columns), name=name)
    return _pandas_column(name, pandas.Series(value))


def _pandas_columns(table: Any) -> Iterator[Column]:
    if not hasattr(table, "columns"):
        table = table.to_frame()
    for at, label in enumerate(table.columns):
        yield _pandas_column(_label(label), table.iloc[:, at])
    index = table.index
    if type(index).__name__ == "RangeIndex" and index.name is None:
        return
    for level in range(index.nlevels):
        values = index.get_level_values(level)
        label = f"__index_level_{level}__" if values.name is None else _label(values.name)
        yield _pandas_column(label, values.to_series())


def _label(label: object) -> str:
    kind = type(label)
    if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__:
        raise InputError(
            f"table: a column's name is {type_name(label)}, whose text is its place in memory;"
            " expected a text or a number"
        )
    return str(label)


def _pandas_column(name: str, series: Any) -> Column:
    dtype, rows = series.dtype, len(series)
    kind = type(dtype).__name__
    if hasattr(series, "cat"):
        return _categorical_column(name, series)
    if hasattr(series.array, "__arrow_array__") and "Arrow" in type(series.array).__name__:
        return arrow_column(name, series.array.__arrow_array__())
    if kind == "SparseDtype":
        dense = _pandas_column(name, series.iloc[:0].sparse.to_dense())
        return replace(dense, rows=rows, read=partial(_sparse_cells, name, series))
    if kind == "PeriodDtype":
        return _period_column(name, series)
    if kind == "IntervalDtype":
        return _interval_column(name, series)
    if dtype.kind in "Mm":
        return _pandas_times(name, series)
    numpy_type = getattr(dtype, "numpy_dtype", dtype)  # Int64 and other nullable dtypes
    if isinstance(numpy_type, np.dtype) and numpy_type.kind in _NUMPY_KINDS:
        canonical = DTYPE_NAMES.get(numpy_type.name)
        if canonical is None:
            raise bad_type(name, f"dtype {dtype}")
        read = partial(_pandas_numbers, series, numpy_type)
        return Column(name, canonical, rows, numpy_type.itemsize, read)
    return _object_column(name, series)


def _pandas_numbers(series: Any, numpy_type: np.dtype[Any], start: int, stop: int) -> Cells:
    part = series.iloc[start:stop]
    if isinstance(part.dtype, np.dtype):
        return numbers(np.ones(len(part), dtype=bool), part.to_numpy())
    valid = ~part.isna().to_numpy(dtype=bool)
    filler = np.zeros((), dtype=numpy_type).item()
    return numbers(valid, part.to_numpy(dtype=numpy_type, na_value=filler))


def _sparse_cells(name: str, series: Any, start: int, stop: int) -> Cells:
    dense = series.iloc[start:stop].sparse.to_dense()
    return _pandas_column(name, dense).read(0, stop - start)


def _period_column(name: str, series: Any) -> Column:
    def read(start: int, stop: int) -> Cells:
        part = series.iloc[start:stop]
        return Cells(~part.isna().to_numpy(dtype=bool), part.array.asi8)

    freq = str(series.dtype).removeprefix("period")  # the name that Arrow's conversion writes
    return Column(name, f"PERIOD{freq}", len(series), 8, read)


def _interval_column(name: str, series: Any) -> Column:
    bounds = [_pandas_column(name, side.to_series())
              for side in (series.array.left, series.array.right)]  # fmt: skip

    def read(start: int, stop: int) -> Cells:
        parts = Fields(tuple(side.read(start, stop) for side in bounds))
        return Cells(~series.iloc[start:stop].isna().to_numpy(dtype=bool), parts)

    dtype = f"INTERVAL[{series.dtype.closed}]<{bounds[0].dtype}>"
    return Column(name, dtype, len(series), 0, read)


def _pandas_times(name: str, series: Any) -> Column:
    dtype = series.dtype
    zone = getattr(dtype, "tz", None)
    unit = dtype.unit if zone is not None else np.datetime_data(dtype)[0]
    kind = f"DUR[{unit}]" if dtype.kind == "m" else time_type(unit, zone_name(zone))

    def read(start: int, stop: int) -> Cells:
        part = series.iloc[start:stop]
        utc = part.dt.tz_convert(None) if zone is not None else part
        return Cells(~part.isna().to_numpy(dtype=bool), utc.to_numpy().view(np.int64))

    return Column(name, kind, len(series), 8, read)


def _categorical_column(name: str, series: Any) -> Column:
    codes = series.cat.codes.to_numpy()
    categories = series.cat.categories
    if len(categories) == 0:
        return _empty_column(name, len(series))
    values = _pandas_column(name, categories.to_series())
    lookup = values.read(0, len(categories))
    return replace(values, rows=len(series), read=lambda a, b: lookup.take(codes[a:b]))


def _object_column(name: str, series: Any) -> Column:
    """Python objects: all of one type that Arrow has a column of, or OBJECT."""
    valid = series.notna().to_numpy(dtype=bool)
    if type(series.dtype).__name__ == "StringDtype":  # texts by type, even when all are missing
        return _encoded_column(name, series, "UTF8")
    types = set(map(type, series.array[valid]))
    if not types:
        return _empty_column(name, len(series))
    if len(bases := {_base(kind) for kind in types}) == 1:
        (base,) = bases
        if base == "LIST":
            return _list_column(name, series) or _encoded_column(name, series, "OBJECT")
        if base == "I64" and not all(-(1 << 63) <= item < 1 << 63 for item in series[valid]):
            raise bad_type(name, "an integer of more than 64 bits")
        return _encoded_column(name, series, base)
    return _encoded_column(name, series, "OBJECT")


def _base(kind: type) -> str:
    for dtype, bases in _BASES:
        if issubclass(kind, bases):
            return dtype
    return "OBJECT"


def _encoded_column(name: str, series: Any, dtype: str) -> Column:
    """Python objects, each encoded by itself."""
    encode, stored = _ENCODERS[dtype]

    def read(start: int, stop: int) -> Cells:
        part = series.iloc[start:stop]
        valid = part.notna().to_numpy(dtype=bool)
        empty = b"" if stored is None else 0
        items: list[Any] = [
            encode(item, f"column {name!r}, row {row}") if there else empty
            for row, (item, there) in enumerate(zip(part, valid, strict=True), start)
        ]
        if stored is None:
            return Cells(valid, Texts.of(items))
        return Cells(valid, np.array(items, dtype=stored))

    return Column(name, dtype, len(series), 0 if stored is None else stored.itemsize, read)


def _list_column(name: str, series: Any) -> Column | None:
    """Lists as Arrow has them; None where their items are of several types, or dicts: Arrow does
    not tell a missing key from a missing value."""
    pyarrow = load("pyarrow")
    try:
        data = pyarrow.array(series.array, from_pandas=True)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, pyarrow.ArrowNotImplementedError):
        return None
    column = arrow_column(name, data)
    return None if "STRUCT" in column.dtype else column


def _empty_column(name: str, rows: int) -> Column:
    return Column(name, "NULL", rows, 0, lambda a, b: no_values(b - a))


def _clock(item: dt.time, where: str) -> int:
    if item.tzinfo is not None:
        raise InputError(f"table {where}: found a time with a zone, expected one without")
    return ((item.hour * 60 + item.minute) * 60 + item.second) * 10**6 + item.microsecond


def _scalar(item: Any, where: str) -> Any:
    return item


_BASES: Final[tuple[tuple[str, tuple[type, ...]], ...]] = (
    ("UTF8", (str,)),
    ("BYTES", (bytes,)),
    ("BOOL", (bool, np.bool_)),
    ("I64", (int,)),
    ("F64", (float,)),
    ("OBJECT", (dt.datetime,)),
    ("D32", (dt.date,)),
    ("TIME[us]", (dt.time,)),
    ("DECIMAL", (decimal.Decimal,)),
    ("LIST", (list, tuple, np.ndarray)),
)
"""The type of a column whose objects are all of it, most special first."""

_ENCODERS: Final[dict[str, tuple[Callable[[Any, str], Any], np.dtype[Any] | None]]] = {
    "UTF8": (encode_text, None),
    "BYTES": (_scalar, None),
    "DECIMAL": (lambda item, where: decimal_bytes(item), None),
    "OBJECT": (element_bytes, None),
    "BOOL": (_scalar, np.dtype("?")),
    "I64": (_scalar, np.dtype("i8")),
    "F64": (_scalar, np.dtype("f8")),
    "D32": (lambda item, where: item.toordinal() - _EPOCH, np.dtype("i4")),
    "TIME[us]": (_clock, np.dtype("i8")),
}

_READERS: Final[dict[str, Callable[[Any], Iterator[Column]]]] = {
    "pandas": _pandas_columns,
    "pyarrow": arrow_columns,
    "polars": polars_columns,
    "datasets": hf_columns,
}
