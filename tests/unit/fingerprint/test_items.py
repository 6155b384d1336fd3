"""One item has the same bytes, whatever holds it; digests are worked out apart from the code."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from pyarrow.dataset import dataset as arrow_dataset
from torch.utils.data import DataLoader, Subset, TensorDataset

from provenance.errors import InputError
from provenance.fingerprint.data.items import ItemReader, nodes_of
from provenance.fingerprint.data.progress import Progress
from provenance.fingerprint.hashers import Digest
from provenance.formats.item_set import FormNode

KEY = bytes(range(32))
ROWS = np.arange(12, dtype="<f4").reshape(3, 4)
LABELS = np.array([2, 0, 1])


def read(data: Any) -> tuple[list[bytes], ItemReader]:
    reader = ItemReader(KEY, Progress())
    joined = b"".join(reader.digests(data))
    return [joined[at : at + 32] for at in range(0, len(joined), 32)], reader


def node(name: str, dtype: str, shape: list[int], data: bytes = b"") -> bytes:
    text = json.dumps(
        {"dtype": dtype, "name": name, "shape": shape, "v": 1}, separators=(",", ":")
    ).encode()
    return struct.pack("<I", len(text)) + text + data


def keyed(*items: bytes) -> list[bytes]:
    """By the keyed mode of the blake3 package, one call an item."""
    return [blake3.blake3(item, key=KEY).digest() for item in items]


def text(name: str, value: str) -> bytes:
    data = value.encode()
    return node(name, "UTF8", [], struct.pack("<q", len(data)) + data)


def test_the_keyed_mode_is_that_of_the_specification() -> None:
    """BLAKE3's published vector for an input of one byte (test_vectors.json), first 32 bytes."""
    key = b"whats the Elvish word for friend"
    found = blake3.blake3(b"\x00", key=key).hexdigest()
    assert found == "6d7878dfff2f485635d39013278ae14f1454b8c0a3a2d34bc1ab38228a80c95b"


ROW_ITEMS = keyed(*(node("[]", "F32", [4], row.tobytes()) for row in ROWS))


@pytest.mark.parametrize(
    "data",
    [
        ROWS,
        ROWS.astype(">f4"),
        np.asfortranarray(ROWS),
        torch.tensor(ROWS),
        list(ROWS),
        [torch.tensor(row) for row in ROWS],
        np.ma.masked_array(ROWS, mask=False),
    ],
    ids=lambda data: type(data).__name__,
)
def test_a_row_is_the_same_in_every_array(data: Any) -> None:
    found, reader = read(data)
    assert found == ROW_ITEMS
    assert (reader.count, reader.form) == (3, (FormNode("[]", "F32", (4,)),))


PAIRS = keyed(
    *(
        node("[]", "LIST", [2])
        + node("[0]", "F32", [4], row.tobytes())
        + node("[1]", "I64", [], struct.pack("<q", label))
        for row, label in zip(ROWS, LABELS.tolist(), strict=True)
    )
)
DATASET = TensorDataset(torch.tensor(ROWS), torch.tensor(LABELS))


@pytest.mark.parametrize(
    "data",
    [
        (ROWS, LABELS),
        (ROWS, LABELS.tolist()),
        (torch.tensor(ROWS), LABELS),
        list(zip(ROWS, LABELS, strict=True)),
        list(zip(ROWS, LABELS.tolist(), strict=True)),
        DATASET,
        DataLoader(DATASET, batch_size=2),
        Subset(TensorDataset(torch.tensor(ROWS[::-1].copy()), torch.tensor(LABELS[::-1].copy())),
               [2, 1, 0]),
    ],
    ids=lambda data: type(data).__name__,
)  # fmt: skip
def test_a_pair_is_the_list_of_its_parts(data: Any) -> None:
    assert read(data)[0] == PAIRS


FRAME = pd.DataFrame({"b": [1, 2, 3], "a": ["x", "yé", None], "c": [1.5, float("nan"), 2.0]})
CELLS = [(1, "x", 1.5), (2, "yé", None), (3, None, 2.0)]


def row(b: int, a: str | None, c: float | None) -> bytes:
    return b"".join(
        [
            node("[]", "DICT", [3]),
            node('["a"]', "NULL", []) if a is None else text('["a"]', a),
            node('["b"]', "I64", [], struct.pack("<q", b)),
            node('["c"]', "NULL", [])
            if c is None
            else node('["c"]', "F64", [], struct.pack("<d", c)),
        ]
    )


@pytest.mark.parametrize(
    "data",
    [
        FRAME,
        FRAME.astype({"a": "category"}),
        pa.Table.from_pandas(FRAME),
        pl.from_pandas(FRAME),
        [{"c": c, "b": b, "a": a} for b, a, c in CELLS],
    ],
    ids=lambda data: type(data).__name__,
)
def test_a_row_of_a_table_is_the_dict_of_its_cells(data: Any) -> None:
    found, reader = read(data)
    assert found == keyed(*(row(*cells) for cells in CELLS))
    assert reader.form == (
        FormNode("[]", "DICT", (3,)),
        FormNode('["a"]', "UTF8", ()),
        FormNode('["b"]', "I64", ()),
        FormNode('["c"]', "F64", ()),
    )


def test_rows_with_lists_are_as_the_library_gives_them() -> None:
    rows = [{"ids": [1, 2], "text": "a"}, {"ids": [3], "text": "b"}]
    assert read(pa.Table.from_pylist(rows))[0] == read(rows)[0]
    assert read(pl.DataFrame(rows))[0] == read(rows)[0]
    assert read(pl.LazyFrame(rows))[0] == read(rows)[0]
    assert read(arrow_dataset(pa.Table.from_pylist(rows)))[0] == read(rows)[0]
    lists = pd.Series([[1, 2], [3]], name="ids")
    assert read(lists)[0] == read([{"ids": [1, 2]}, {"ids": [3]}])[0]
    assert read(rows)[1].form is None


def test_texts_mappings_structured_arrays_and_times() -> None:
    assert read(["hi", "yo"])[0] == keyed(text("[]", "hi"), text("[]", "yo"))
    assert read(np.array(["hi", "yo"]))[0] == read(["hi", "yo"])[0]
    structured = np.array([(1, 2.5), (3, 4.5)], dtype=[("n", "<i8"), ("f", "<f8")])
    assert read(structured)[0] == read([{"n": 1, "f": 2.5}, {"n": 3, "f": 4.5}])[0]
    assert read({"x": ROWS, "y": LABELS})[0] == read(
        [{"x": x, "y": y} for x, y in zip(ROWS, LABELS, strict=True)]
    )[0]  # fmt: skip
    times = np.array(["2026-01-01", "2026-02-01"], "datetime64[s]")
    assert read(times)[0] == read(list(times))[0]


def test_a_file_is_its_bytes_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    contents = [b"one", b"", b"two" * 1_000_000]
    for name, content in zip(("a", "b", "deep/c"), contents, strict=True):
        (tmp_path / name).write_bytes(content)
    files = [tmp_path / "a", tmp_path / "b", tmp_path / "deep" / "c"]
    expected = keyed(*(node("[]", "BYTES", [], struct.pack("<q", len(c)) + c) for c in contents))
    assert read(tmp_path)[0] == read(files)[0] == read(contents)[0] == expected
    assert read(str(files[0]))[0] == expected[:1]
    assert read(tmp_path)[1].form == read(contents)[1].form == (FormNode("[]", "BYTES", ()),)


def test_many_rows_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read((ROWS, LABELS))[0]
    monkeypatch.setattr("provenance.fingerprint.data.items.ROWS_BYTES", 1)
    monkeypatch.setattr("provenance.fingerprint.data.items.ROWS", 2)
    assert read((ROWS, LABELS))[0] == whole
    assert read((ROWS, ["a", "b", "c"]))[0] == read(list(zip(ROWS, "abc", strict=True)))[0]


def test_a_form_has_null_where_some_items_have_a_value() -> None:
    assert read([{"a": None}, {"a": 1}])[1].form == read([{"a": 2}])[1].form
    assert read([{"a": 1}, {"a": 1.5}])[1].form is None
    assert read([{"a": 1}, {"b": 1}])[1].form is None
    assert nodes_of(b"".join(node(f"[{at}]", "NULL", []) for at in range(65))) is None


class Raising(list[int]):
    """Whose items are read once."""

    def __getitem__(self, at: Any) -> Any:
        raise KeyError("gone")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (Raising([1]), "data: cannot be read: KeyError: 'gone'"),
        ((ROWS, LABELS[:2]), "data part '1': found 2 rows, and 3 in '0', expected as many"),
        (Digest("sha256", bytes(32)), "data: found a ready digest, expected what has items"),
        ("memory://x", "data: found a URL, expected what has items"),
        (b"bytes", "data part 'items': found bytes, expected what has items"),
        (torch.eye(2).to_sparse(), "data part 'items': found a sparse matrix, expected a dense"),
        (
            pd.DataFrame([[1, 2]], columns=["a", "a"]),
            "table column 'a': found two, expected names that differ",
        ),
        ([object()], "data item 0: at []: found object, expected arrays"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_has_no_items_is_refused(data: Any, told: str) -> None:
    with pytest.raises(InputError) as caught:
        read(data)
    assert told in str(caught.value)


@pytest.mark.slow
def test_hugging_face_datasets_and_streams_have_the_items_of_the_list() -> None:
    datasets = pytest.importorskip("datasets")
    for rows in (
        [{"text": "a", "label": 1}, {"text": "b", "label": 0}],
        [{"ids": [1]}, {"ids": []}],
    ):
        whole = datasets.Dataset.from_list(rows)
        assert read(whole)[0] == read(whole.to_iterable_dataset())[0] == read(rows)[0]
        assert read(whole.select([1, 0]))[0] == read(rows[::-1])[0]
