"""Arrow columns as cells: of tables, batches, datasets, polars frames and Hugging Face datasets.

WARNING: FROZEN FORMAT, as in tables.py. pyarrow is imported for polars alone: other objects bring
it along. Chunks, slices, dictionaries and the widths of offsets do not count.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np

from provenance.errors import InputError
from provenance.fingerprint.arrays import DTYPE_NAMES, load
from provenance.fingerprint.data.cells import (
    Cells,
    Column,
    Fields,
    Lists,
    Texts,
    Valid,
    no_values,
    numbers,
)
from provenance.fingerprint.data.zones import time_type, zone_text

_NUMBERS: Final = {"halffloat": "float16", "float": "float32", "double": "float64"}
_TEXTS: Final = frozenset({"string", "large_string", "string_view"})
_JOINED_BYTES: Final = 1 << 30
_EMBEDDED_ROWS: Final = 64
"""Rows whose files are read at once."""
_BYTES: Final = frozenset({"binary", "large_binary", "binary_view"})


class _Kind(NamedTuple):
    """A type: its name here, bytes of an element (0: not fixed), and the cells of an Array."""

    dtype: str
    item_bytes: int
    cells: Callable[[Any], Cells]


def arrow_column(name: str, data: Any) -> Column:
    """A column from an Arrow Array or ChunkedArray; ``InputError`` naming it as in tables.py."""
    if not hasattr(data, "combine_chunks"):
        data = sys.modules["pyarrow"].chunked_array([data])
    kind = _kind(name, data.type)

    def read(start: int, stop: int) -> Cells:
        return _cells(kind, data.slice(start, stop - start))

    return Column(name, kind.dtype, len(data), kind.item_bytes, read)


def _cells(kind: _Kind, data: Any) -> Cells:
    """Of a ChunkedArray: in one Array, unless its texts may pass the 2 GiB of their offsets."""
    if data.num_chunks > 1 and data.nbytes < _JOINED_BYTES:
        arrow = sys.modules["pyarrow"]
        return kind.cells(arrow.concat_arrays(data.chunks))
    chunks = data.chunks or [sys.modules["pyarrow"].array([], data.type)]
    return Cells.joined([kind.cells(chunk) for chunk in chunks])


def arrow_columns(table: Any) -> Iterator[Column]:
    """The columns of a Table, RecordBatch or Dataset of Arrow; of a Dataset each is read alone."""
    names = table.schema.names
    if not hasattr(table, "to_table"):
        for index, name in enumerate(names):
            yield arrow_column(name, table.column(index))
        return
    rows = None
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"table column {name!r}: twice in the schema, expected once")
        column = arrow_column(name, table.to_table(columns=[name]).column(0))
        if rows is not None and rows != column.rows:
            raise InputError(
                f"table column {name!r}: {column.rows} rows after {rows} of another:"
                " the files changed while they were read"
            )
        rows = column.rows
        yield column


def polars_columns(frame: Any) -> Iterator[Column]:
    """The columns of a polars DataFrame, LazyFrame (collected) or Series."""
    load("pyarrow")  # polars gives its columns by it
    if hasattr(frame, "collect"):
        frame = frame.collect()
    columns = frame.get_columns() if hasattr(frame, "get_columns") else [frame]
    for series in columns:
        if "Object" in str(series.dtype):
            raise bad_type(series.name, f"polars' {series.dtype}")
        try:
            data = series.to_arrow()
        except (ValueError, TypeError, NotImplementedError) as error:
            raise bad_type(series.name, f"polars' {series.dtype}") from error
        yield arrow_column(series.name, data)


def hf_columns(dataset: Any) -> Iterator[Column]:
    """The columns of a Hugging Face Dataset, by blocks of its Arrow table: as ``select``,
    ``shuffle`` and ``train_test_split`` order it; its format does not count. Files that an image
    or audio column only points to are read, and named by the last part of their path."""
    from datasets.features.features import require_storage_embed

    indices = getattr(dataset, "_indices", None)
    places = None if indices is None else indices.table.column(0)
    for name, feature in dataset.features.items():
        data = dataset.data.table.column(name)
        kind, schema = _kind(name, data.type), None
        step = max(1, _JOINED_BYTES * len(data) // (data.nbytes + 1))
        if require_storage_embed(feature):
            schema, step = dataset.select_columns([name]).features.arrow_schema, _EMBEDDED_ROWS
        read = partial(_hf_cells, kind, data, places, schema, step)
        yield Column(name, kind.dtype, len(dataset), kind.item_bytes, read)


def _hf_cells(
    kind: _Kind, data: Any, places: Any, schema: Any, step: int, start: int, stop: int
) -> Cells:
    """Rows of a column, at most ``step`` at once; with a schema, its files are read."""
    parts = []
    for low in range(start, stop, step):
        count = min(step, stop - low)
        part = data.slice(low, count) if places is None else data.take(places.slice(low, count))
        if schema is not None:
            from datasets.table import embed_table_storage

            table = sys.modules["pyarrow"].table([part], schema=schema)
            try:
                part = embed_table_storage(table).column(0)
            except OSError as error:
                name = table.column_names[0]
                raise InputError(f"table column {name!r}: cannot read a file: {error}") from error
        parts.append(_cells(kind, part))
    return Cells.joined(parts)


def _kind(name: str, kind: Any) -> _Kind:
    text = str(kind)
    if hasattr(kind, "storage_type"):
        return _extension(name, kind)
    if text.startswith("dictionary<"):
        inner = _kind(name, kind.value_type)
        return inner._replace(cells=lambda array: inner.cells(array.dictionary_decode()))
    if text.startswith("run_end_encoded<"):
        inner, decode = _kind(name, kind.value_type), _compute("run_end_decode")
        return inner._replace(cells=lambda array: inner.cells(decode(array)))
    if text in _TEXTS or text in _BYTES or text.startswith("fixed_size_binary["):
        return _Kind("UTF8" if text in _TEXTS else "BYTES", 0, _items)
    if text == "null":
        return _Kind("NULL", 0, lambda array: no_values(len(array)))
    if text.startswith("decimal"):
        return _Kind("DECIMAL", 0, _decimals)
    if text.startswith("map<"):
        inner = _kind(name, _list_of_map(kind))
        return inner._replace(cells=lambda array: inner.cells(array.cast(_list_of_map(kind))))
    if text.startswith(("list<", "large_list<", "fixed_size_list<", "list_view<",
                        "large_list_view<")):  # fmt: skip
        inner = _kind(name, kind.value_type)
        return _Kind(f"LIST<{inner.dtype}>", 0, partial(_lists, inner))
    if text.startswith("struct<"):
        fields = [(kind.field(at).name, _kind(name, kind.field(at).type))
                  for at in range(kind.num_fields)]  # fmt: skip
        return _struct("STRUCT", fields)
    return _fixed(name, kind, text)


def _fixed(name: str, kind: Any, text: str) -> _Kind:
    """A type whose elements have one size."""
    if text.startswith("timestamp["):
        dtype, numpy_name = time_type(kind.unit, zone_text(kind.tz)), "int64"
    elif text.startswith("duration["):
        dtype, numpy_name = f"DUR[{kind.unit}]", "int64"
    elif text.startswith("time"):
        dtype, numpy_name = f"TIME[{kind.unit}]", "int64"
    elif text == "date32[day]":
        dtype, numpy_name = "D32", "int32"
    elif text == "date64[ms]":
        dtype, numpy_name = "D64", "int64"
    elif (numpy_name := _NUMBERS.get(text, text)) in DTYPE_NAMES:
        dtype = DTYPE_NAMES[numpy_name]
    else:
        raise bad_type(name, f"the Arrow type {text}")
    numpy_type = np.dtype(numpy_name)

    def cells(array: Any) -> Cells:
        if text.startswith("time32["):
            array = array.cast("int32").cast("int64")
        return _numbers(array, numpy_type)

    return _Kind(dtype, numpy_type.itemsize, cells)


def _extension(name: str, kind: Any) -> _Kind:
    """An extension type is its storage; pandas' periods and intervals name what they are."""
    inner = _kind(name, kind.storage_type)
    if kind.extension_name == "pandas.period":
        inner = inner._replace(dtype=f"PERIOD[{kind.freq}]")
    elif kind.extension_name == "pandas.interval":
        bound = _kind(name, kind.subtype)
        inner = inner._replace(dtype=f"INTERVAL[{kind.closed}]<{bound.dtype}>")
    return inner._replace(cells=lambda array: inner.cells(array.storage))


def _struct(prefix: str, fields: list[tuple[str, _Kind]]) -> _Kind:
    named = (f"{json.dumps(name, ensure_ascii=False)}:{kind.dtype}" for name, kind in fields)
    kinds = [kind for _, kind in fields]

    def cells(array: Any) -> Cells:
        parts = zip(kinds, array.flatten(), strict=True)  # with the struct's own missing ones
        return Cells(_valid(array), Fields(tuple(kind.cells(part) for kind, part in parts)))

    return _Kind(f"{prefix}<{','.join(named)}>", 0, cells)


def _list_of_map(kind: Any) -> Any:
    arrow = sys.modules["pyarrow"]
    return arrow.list_(arrow.struct([("key", kind.key_type), ("value", kind.item_type)]))


def _compute(name: str) -> Callable[..., Any]:
    import pyarrow.compute

    function: Callable[..., Any] = getattr(pyarrow.compute, name)
    return function


def _lists(inner: _Kind, array: Any) -> Cells:
    lengths = _compute("list_value_length")(array).fill_null(0).cast("int64")
    values = lengths.to_numpy(zero_copy_only=False)
    valid = _valid(array)
    # A missing list of a fixed size has a length; none of its items comes with flatten().
    return Cells(valid, Lists(np.where(valid, values, 0), inner.cells(array.flatten())))


def _items(array: Any) -> Cells:
    valid = _valid(array)
    array = array.cast("large_binary")
    if array.null_count:
        array = array.fill_null(b"")
    _, offsets, data = array.buffers()
    if not len(array):
        return Cells(valid, Texts(np.zeros(0, np.int64), b""))
    ends = np.frombuffer(offsets, np.int64, array.offset + len(array) + 1)[array.offset :]
    found = memoryview(b"" if data is None else data)[int(ends[0]) : int(ends[-1])]
    return Cells(valid, Texts(np.diff(ends), found))


def _decimals(array: Any) -> Cells:
    return Cells(_valid(array), Texts.of([decimal_bytes(item) for item in array.to_pylist()]))


def decimal_bytes(value: Any) -> bytes:
    """A decimal number in its shortest form without an exponent, such as ``-1.5``; None is empty.

    The declared precision and zeros at the end do not count.
    """
    if value is None:
        return b""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return b"0" if text in ("-0", "") else text.encode("ascii")


def _numbers(array: Any, numpy_type: np.dtype[Any]) -> Cells:
    valid = _valid(array)
    if numpy_type.kind == "b":  # Arrow packs eight to a byte
        array, numpy_type = array.cast("uint8"), np.dtype(np.uint8)
    end = array.offset + len(array)
    buffer = array.buffers()[1]
    if buffer is None:
        return Cells(valid, np.zeros(len(array), numpy_type))
    return numbers(valid, np.frombuffer(buffer, dtype=numpy_type, count=end)[array.offset :])


def _valid(array: Any) -> Valid:
    valid: Valid = array.is_valid().to_numpy(zero_copy_only=False)
    return valid


def bad_type(name: str, found: str) -> InputError:
    """The refusal of a column."""
    return InputError(
        f"table column {name!r}: found {found}, expected numbers, booleans, texts, bytes, dates,"
        " times, durations, decimals, or lists and structs of them"
    )
