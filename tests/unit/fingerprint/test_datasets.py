"""Dataset digests: worked out by hand, equal across forms, different for every change.

Over 400 lines: case by case, one file: `provenance/fingerprint/datasets.py`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from provenance.errors import InputError
from provenance.fingerprint import datasets, file_tree, hashers
from provenance.fingerprint.data import arrow
from provenance.fingerprint.data import parts as parts_module
from provenance.fingerprint.datasets import DatasetDigest, dataset_digest
from provenance.fingerprint.hashers import DIGEST_SIZES, Hasher, HashFactory
from provenance.fingerprint.tensors import state_digest
from provenance.formats import merkle

SHA = HashFactory("sha256")


def h(header: str, data: bytes = b"") -> bytes:
    """SHA-256 of one framed message, without the code under test."""
    text = header.encode()
    return hashlib.sha256(struct.pack("<I", len(text)) + text + data).digest()


def leaf(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


# --- arrays --------------------------------------------------------------------------------


def test_arrays_worked_out_by_hand() -> None:
    x = np.array([[1, 2], [3, 4]], dtype=np.uint8)
    y = np.array([0.5, -0.5], dtype=np.float32)
    head = '{"dtype":"%s","name":"%s","nulls":0,"rows":[0,2],"shape":%s,"v":1}'
    x_root = leaf(h(head % ("U8", "0", "[2,2]"), b"\x01\x02\x03\x04"))
    y_root = leaf(h(head % ("F32", "1", "[2]"), struct.pack("<2f", 0.5, -0.5)))
    digest = dataset_digest((x, y), SHA)
    assert digest.root == node(leaf(x_root), leaf(y_root))
    assert digest.as_fields() == {
        "kind": "arrays",
        "algorithm": "sha256",
        "root": f"mth-sha256:{digest.root.hex()}",
        "count": 2,
        "bytes": 12,
        "parts_total": 2,
        "parts": [
            {
                "name": "0",
                "dtype": "U8",
                "shape": [2, 2],
                "bytes": 4,
                "digest": f"mth-sha256:{x_root.hex()}",
            },
            {
                "name": "1",
                "dtype": "F32",
                "shape": [2],
                "bytes": 8,
                "digest": f"mth-sha256:{y_root.hex()}",
            },
        ],
    }


def test_arrays_are_cut_into_blocks_that_can_be_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 20)
    x = np.arange(25, dtype="<u2").reshape(5, 5)
    (part,) = dataset_digest(x, SHA).parts
    head = '{"dtype":"U16","name":"0","nulls":0,"rows":[%d,%d],"shape":[5,5],"v":1}'
    expected = [h(head % (a, min(a + 2, 5)), x[a : a + 2].tobytes()) for a in (0, 2, 4)]
    assert list(part.leaves) == expected
    assert part.nbytes == 50
    proof = merkle.MerkleTree(part.leaves).inclusion_proof(1)
    merkle.verify_inclusion(expected[1], 1, 3, proof, part.leaf)
    wide = np.zeros((2, 30), dtype=np.uint8)  # a row larger than a block is a block
    assert len(dataset_digest(wide, SHA).parts[0].leaves) == 2


def test_frameworks_layouts_and_mappings_agree() -> None:
    x, y = np.arange(12, dtype=np.float32).reshape(6, 2), np.arange(6)
    expected = dataset_digest((x, y))
    assert dataset_digest((torch.from_numpy(x), torch.from_numpy(y))) == expected
    assert dataset_digest((np.asfortranarray(x), y.astype(">i8"))) == expected
    as_torch = dataset_digest(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)))
    assert (as_torch.kind, as_torch.root) == ("torch", expected.root)
    assert dataset_digest({"y": y, "x": x}) == dataset_digest({"x": x, "y": y})
    assert dataset_digest(x) == dataset_digest((x,))


def test_order_names_and_bytes_of_arrays_count() -> None:
    x, y = np.arange(12, dtype=np.int16).reshape(6, 2), np.arange(6)
    variants: list[Any] = [
        (x, y),
        (y, x),
        (x[::-1], y),
        (x.reshape(6, 2, 1), y),
        (x.astype(np.uint16), y),
        (x,),
        (x, y, y),
        {"0": x, "one": y},
        (x[:5], y),
    ]
    for position in range(x.nbytes):
        other = x.copy()
        other.view(np.uint8).reshape(-1)[position] ^= 128
        variants.append((other, y))
    roots = [dataset_digest(variant).root for variant in variants]
    assert len(set(roots)) == len(roots)


def test_text_labels_beside_an_array() -> None:
    x = np.zeros((2, 3))
    labels = ["cat", "dog"]
    expected = dataset_digest((x, labels))
    assert expected.parts[1].dtype == "SEQUENCE"
    assert dataset_digest((x, np.array(labels))) == expected
    assert dataset_digest((x, np.array(labels, dtype=object))) == expected
    assert dataset_digest((x, ["cat", "cow"])).root != expected.root
    assert expected.count == 2


def test_a_table_beside_an_array() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5]})
    digest = dataset_digest((frame, frame["a"].rename("target")))
    assert [part.name for part in digest.parts] == ["0.a", "0.b", "1.target"]
    assert digest.kind == "arrays"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ((np.zeros((0, 3)), np.zeros(0)), "data part '0': empty"),
        ((np.zeros(3), np.zeros(0)), "data part '1': empty"),
        (np.zeros((0, 2)), "empty"),
        (np.array(1.0), "found a scalar"),
        ({}, "data: empty"),
        ([], "empty, expected at least one row"),
        ((), "empty"),
        (pd.DataFrame({"a": []}), "'a': empty"),
        (pd.DataFrame(index=[1, 2]).reset_index(drop=True), "data: empty"),
        (pa.table({"a": pa.array([], pa.int8())}), "'a': empty"),
        ((np.zeros(2), 3), "data part '1': found int"),
        ({"x": np.zeros(2), "y": object()}, "data part 'y': found object"),
        (np.array([object()]), "item 0: at .*: found object"),
        (3, "found int, expected an array"),
        (None, "found NoneType"),
        (b"bytes", "found bytes"),
        ({1, 2}, "found set"),
        ((i for i in range(3)), "found generator"),
    ],
)
def test_what_is_no_dataset_is_named(data: object, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        dataset_digest(data)


# --- sequences and torch datasets ------------------------------------------------------------


def test_a_sequence_worked_out_by_hand() -> None:
    first = hashlib.sha256()
    for header, data in [
        ('{"dtype":"LIST","name":"[]","shape":[2],"v":1}', b""),
        ('{"dtype":"U8","name":"[0]","shape":[2],"v":1}', b"\x07\x08"),
        ('{"dtype":"I64","name":"[1]","shape":[],"v":1}', struct.pack("<q", -3)),
    ]:
        first.update(struct.pack("<I", len(header)) + header.encode() + data)
    second = hashlib.sha256()
    for header, data in [
        ('{"dtype":"DICT","name":"[]","shape":[4],"v":1}', b""),
        ('{"dtype":"BOOL","name":"[\\"b\\"]","shape":[],"v":1}', b"\x01"),
        ('{"dtype":"F64","name":"[\\"f\\"]","shape":[],"v":1}', struct.pack("<d", 0.25)),
        ('{"dtype":"NULL","name":"[\\"n\\"]","shape":[],"v":1}', b""),
        (
            '{"dtype":"UTF8","name":"[\\"s\\"]","shape":[],"v":1}',
            struct.pack("<q", 2) + b"\xc3\xbc",
        ),
    ]:
        second.update(struct.pack("<I", len(header)) + header.encode() + data)
    third = h('{"dtype":"BYTES","name":"[]","shape":[],"v":1}', struct.pack("<q", 1) + b"!")
    items = [
        (np.array([7, 8], dtype=np.uint8), -3),
        {"s": "ü", "n": None, "f": 0.25, "b": True},
        b"!",
    ]
    digest = dataset_digest(items, SHA)
    part = node(node(leaf(first.digest()), leaf(second.digest())), leaf(third))
    assert digest.root == leaf(part)
    assert (digest.kind, digest.count, digest.nbytes) == ("sequence", 3, 2 + 8 + 1 + 8 + 10 + 9)


def test_elements_that_look_alike_differ() -> None:
    items: list[Any] = [
        1, 1.0, True, "1", b"1", None, [], {}, [1], [[1]], [1, []], {"0": 1}, [None], ["1"],
        {"a.b": 1}, {"a": {"b": 1}}, {"a": 1, "b": {}}, {"a": {"b": {}}}, np.array(1),
        np.array([1]),
        np.array(1, dtype=np.int8), [1, 2], [2, 1], ["ab", "c"], ["a", "bc"], "", b"",
    ]  # fmt: skip
    roots = {dataset_digest([item]).root for item in items}
    assert len(roots) == len(items) - 1  # np.array(1) is 1
    assert dataset_digest([np.array(1)]) == dataset_digest([1])
    assert dataset_digest([(1, "a")]) == dataset_digest([[1, "a"]])
    assert dataset_digest([np.float64(2.5), np.str_("s")]) == dataset_digest([2.5, "s"])
    assert dataset_digest([{"b": 1, "a": 2}]) == dataset_digest([{"a": 2, "b": 1}])


class Squares(Dataset[tuple[torch.Tensor, int]]):  # type: ignore[misc]  # the base class has no types
    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((2, 2), index, dtype=torch.float32), index**2


class Endless(IterableDataset[int]):  # type: ignore[misc]  # the base class has no types
    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Any:
        yield from range(3)


def test_torch_datasets_loaders_and_subsets() -> None:
    digest = dataset_digest(Squares(5))
    assert (digest.kind, digest.count) == ("torch", 5)
    listed = [(np.full((2, 2), i, dtype=np.float32), i**2) for i in range(5)]
    assert dataset_digest(listed).root == digest.root
    assert dataset_digest(DataLoader(Squares(5), batch_size=2, shuffle=True)) == digest
    assert dataset_digest(Subset(Squares(5), [0, 1, 2, 3, 4])) == digest
    assert dataset_digest(Subset(Squares(5), [1, 0, 2, 3, 4])).root != digest.root
    with pytest.raises(InputError, match=r"found .*Endless"):
        dataset_digest(Endless())
    with pytest.raises(InputError, match="empty"):
        dataset_digest(Squares(0))


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        (object(), r"data item 1: at \[\]: found object"),
        ((0, {"k": object()}), r'data item 1: at \[1,"k"\]: found object'),
        ({1: 2}, "data item 1: at .*found the key 1"),
        (2**63, "found 9223372036854775808, expected an integer of 64 bits"),
        ("\ud800", "data item 1: .*not Unicode"),
        (np.array([object()]), r"data item 1: at \[0\]: found object"),
        (lambda: 0, "data item 1: at .*found function"),
    ],
)
def test_elements_without_canonical_bytes_are_named(item: object, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        dataset_digest([0, item])


def test_elements_are_bounded_in_depth() -> None:
    item: Any = 1
    for _ in range(40):
        item = [item]
    with pytest.raises(InputError, match="nested deeper than 32"):
        dataset_digest([item])


# --- tables ----------------------------------------------------------------------------------


def test_a_table_worked_out_by_hand() -> None:
    frame = pd.DataFrame(
        {
            "n": pd.array([1, None, -1], dtype="Int32"),
            "s": ["a", None, "üb"],
            "f": [0.5, np.nan, 2.0],
        }
    )
    head = '{"dtype":"%s","name":"%s","nulls":1,"rows":[0,3],"shape":[3],"v":1}'
    there = b"\x01\x00\x01"
    n = leaf(h(head % ("I32", "n"), there + struct.pack("<3i", 1, 0, -1)))
    s = leaf(h(head % ("UTF8", "s"), there + struct.pack("<3q", 1, 0, 3) + "aüb".encode()))
    f = leaf(h(head % ("F64", "f"), there + struct.pack("<3d", 0.5, 0, 2)))
    digest = dataset_digest(frame, SHA)
    assert digest.root == node(node(leaf(n), leaf(s)), leaf(f))
    assert (digest.kind, digest.count, digest.nbytes) == ("table", 3, 15 + 31 + 27)


def frame() -> pd.DataFrame:
    """A column of each type that pandas and Arrow share, with and without missing values."""
    day = dt.date(2020, 2, 29)
    times = pd.to_datetime(["1969-12-31 23:59:59.5", None, "2038-01-19 03:14:08.0"])
    data: dict[str | int, Any] = {}
    for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"):
        data[name] = np.array([0, 1, 100], dtype=name)
    data |= {
        "float16": np.array([1, 2, 3], dtype="f2"),
        "float32": np.array([1, np.nan, 3], dtype="f4"),
        "float64": [-0.0, np.nan, np.inf],
        "bool": [True, False, True],
        "Int64": pd.array([1, None, 2**62], dtype="Int64"),
        "UInt8": pd.array([None, 0, 255], dtype="UInt8"),
        "Float32": pd.array([1.5, None, 2], dtype="Float32"),
        "boolean": pd.array([True, None, False], dtype="boolean"),
        "str": ["", None, "日本"],
        "objects": pd.Series(["x", "yy", None], dtype=object),
        "python": pd.array(["x", "yy", None], dtype="string[python]"),
        "bytes": [b"\x00", None, b""],
        "date": [day, None, dt.date(1900, 1, 1)],
        "time_us": times.as_unit("us"),
        "time_ns": times.as_unit("ns"),
        "zurich": times.tz_localize("Europe/Zurich"),
        "fixed": times.tz_localize("+01:00"),
        "utc": times.tz_localize("UTC"),
        "delta": pd.to_timedelta([1, None, -3], unit="s"),
        "category": pd.Categorical(["b", None, "a"]),
        "numbers": pd.Categorical([7, 5, 7]),
        "nothing": pd.Series([None] * 3, dtype=object),
        7: [1, 2, 3],
    }
    return pd.DataFrame(data)


def parts(digest: DatasetDigest) -> dict[str, str]:
    return {part.name: f"{part.dtype} {part.digest}" for part in digest.parts}


@pytest.mark.filterwarnings("ignore:.*column names of mixed type:UserWarning")
def test_pandas_and_arrow_agree() -> None:
    table = pa.Table.from_pandas(frame())
    expected = parts(dataset_digest(frame()))
    assert parts(dataset_digest(table)) == expected
    assert dataset_digest(frame()) == dataset_digest(table)
    pieces = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert pieces.column(0).num_chunks == 2
    assert parts(dataset_digest(pieces)) == expected
    assert parts(dataset_digest(table.to_batches()[0])) == expected
    backed = table.to_pandas(types_mapper=pd.ArrowDtype)
    assert parts(dataset_digest(backed)) == expected
    assert expected["fixed"].startswith("TS[us,+01:00] ")
    assert expected["7"].startswith("I64 ")
    assert expected["date"].startswith("D32 ")


def test_arrow_variants_of_text_and_bytes_agree() -> None:
    texts = ["a", None, "", "ü"]
    expected = dataset_digest(pa.table({"c": pa.array(texts, pa.string())}))
    for kind in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())):
        assert dataset_digest(pa.table({"c": pa.array(texts, kind)})) == expected, kind
    raw = [b"ab", None, b"cd"]
    expected = dataset_digest(pa.table({"c": pa.array(raw, pa.binary())}))
    for kind in (pa.large_binary(), pa.binary_view(), pa.binary(2)):
        assert dataset_digest(pa.table({"c": pa.array(raw, kind)})) == expected, kind
    sliced = pa.table({"c": pa.array([1.5, 2.5, None, 4.5]).slice(1, 3)})
    assert dataset_digest(sliced) == dataset_digest(pa.table({"c": [2.5, None, 4.5]}))
    offset = pa.array([7, 8, None, 10], pa.int16()).slice(1)
    valid, values = arrow._numbers(offset, np.dtype(np.int16))
    assert isinstance(values, np.ndarray)
    assert (valid.tolist(), values[0], values[2]) == ([True, False, True], 8, 10)
    bits = pa.table({"c": pa.array([True, False, None, True] * 5).slice(3, 9)})
    plain = pd.DataFrame({"c": pd.array(([True, False, None, True] * 5)[3:12], dtype="boolean")})
    assert dataset_digest(bits) == dataset_digest(plain)


def test_missing_values_hide_nothing_and_leak_nothing() -> None:
    """What lies in memory under a missing value does not count; where it is missing does."""
    hidden = pa.Array.from_buffers(
        pa.int32(), 2, [pa.py_buffer(b"\x01"), pa.py_buffer(struct.pack("<2i", 5, 99))]
    )
    clean = pa.array([5, None], pa.int32())
    assert dataset_digest(pa.table({"c": hidden})) == dataset_digest(pa.table({"c": clean}))
    roots = [
        dataset_digest(pa.table({"c": pa.array(values, pa.int32())})).root
        for values in ([5, None], [None, 5], [5, 0], [0, 5], [None, None])
    ]
    assert len(set(roots)) == 5
    texts = [
        dataset_digest(pa.table({"c": pa.array(values, pa.string())})).root
        for values in (["a", None], ["a", ""], [None, "a"], ["", "a"])
    ]
    assert len(set(texts)) == 4


def test_every_change_of_a_table_shows() -> None:
    base = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]})
    changed = [
        base,
        base[["b", "a"]],
        base.rename(columns={"a": "A"}),
        base.astype({"a": "int32"}),
        base.iloc[[1, 0, 2]].reset_index(drop=True),
        base.assign(a=[1, 2, 4]),
        base.assign(b=["x", "yz", ""]),
        base.assign(b=["x", "y", None]),
        base.iloc[:2],
        base[["a"]],
        base.set_index(pd.Index([5, 6, 8])),
        base.set_index(pd.Index([5, 6, 7], name="even")),
    ]
    roots = [dataset_digest(table).root for table in changed]
    assert len(set(roots)) == len(roots)


def test_a_pandas_index_counts_as_in_arrow() -> None:
    base = pd.DataFrame({"a": [1, 2, 3]})
    for index in (
        pd.Index([3, 1, 2], name="key"),
        pd.Index(["x", "y", "z"]),
        pd.MultiIndex.from_tuples([(1, "a"), (1, "b"), (2, "a")], names=["n", None]),
        pd.RangeIndex(5, 8),
    ):
        table = base.set_index(index)
        assert parts(dataset_digest(table)) == parts(dataset_digest(pa.Table.from_pandas(table)))
    assert dataset_digest(base["a"]) == dataset_digest(base)
    assert dataset_digest(base.set_index(pd.RangeIndex(5, 8))) == dataset_digest(base)
    named = base.set_index(pd.RangeIndex(5, 8, name="key"))
    table = pa.Table.from_pandas(named, preserve_index=True)
    assert parts(dataset_digest(named)) == parts(dataset_digest(table))
    assert [part.name for part in dataset_digest(named).parts] == ["a", "key"]
    two = base.assign(b=[4, 5, 6])
    assert dataset_digest(two.set_index("a")) == dataset_digest(two[["b", "a"]])


def test_tables_are_cut_into_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 32)
    monkeypatch.setattr(datasets, "BLOCK_ROWS", 3)
    table = pd.DataFrame({"n": range(10), "s": [str(i) if i != 4 else None for i in range(10)]})
    digest = dataset_digest(table, SHA)
    assert [len(part.leaves) for part in digest.parts] == [3, 4]
    head = '{"dtype":"UTF8","name":"s","nulls":%d,"rows":[%d,%d],"shape":[10],"v":1}'
    text = digest.parts[1].leaves
    assert text[0] == h(head % (0, 0, 3), struct.pack("<3q", 1, 1, 1) + b"012")
    assert text[1] == h(head % (1, 3, 6), b"\x01\x00\x01" + struct.pack("<3q", 1, 0, 1) + b"35")
    assert text[3] == h(head % (0, 9, 10), struct.pack("<q", 1) + b"9")
    assert parts(dataset_digest(pa.Table.from_pandas(table), SHA)) == parts(digest)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (pd.DataFrame({"c": [1, object()]}), r"column 'c', row 1: at \[\]: found object"),
        (pd.DataFrame({"c": [2**64, 1]}, dtype=object), "'c': found an integer of more than 64"),
        (pd.DataFrame({"c": [[1, {"k": object()}]]}), r"'c', row 0: at \[1,.k.\]: found object"),
        (pd.DataFrame({"c": [dt.time(1, tzinfo=dt.UTC)]}), "column 'c', row 0: .*with a zone"),
        (pd.DataFrame([[1]], columns=[object()]), "column's name is object, whose text is its"),
        (pd.DataFrame({"c": pd.Series(["\ud800"], dtype=object)}), "column 'c', row 0.*Unicode"),
        (pa.table({"c": [[pa.scalar((1, 2, 3), pa.month_day_nano_interval())]]}),
         "'c': found the Arrow type month_day_nano_interval"),
    ],
)  # fmt: skip
def test_columns_without_canonical_bytes_are_named(table: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        dataset_digest(table)


def test_long_double_is_refused() -> None:
    if np.dtype(np.longdouble).itemsize == 8:
        pytest.skip("long double is double here")
    with pytest.raises(InputError, match=r"'c': found dtype (long|float)"):
        dataset_digest(pd.DataFrame({"c": np.array([1], dtype=np.longdouble)}))


def test_a_categorical_without_categories() -> None:
    empty = pd.DataFrame({"c": pd.Categorical([None, None])})
    assert dataset_digest(empty) == dataset_digest(pa.table({"c": pa.nulls(2)}))


# --- files and folders -------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "b.txt").write_bytes(b"bb")
    (root / "sub" / "a.txt").write_bytes(b"a")
    (root / "sub" / "deep" / "é").write_bytes(b"")
    (root / "sub.txt").write_bytes(b"s")
    return root


def file_json(path: str, content: bytes) -> bytes:
    digest = hashlib.sha256(content).hexdigest()
    return f'{{"digest":"sha256:{digest}","path":"{path}","size":{len(content)}}}'.encode()


def test_a_folder_worked_out_by_hand(folder: Path) -> None:
    digest = dataset_digest(folder, SHA)
    leaves = [
        leaf(file_json("b.txt", b"bb")),
        leaf(file_json("sub.txt", b"s")),
        leaf(file_json("sub/a.txt", b"a")),
        leaf(file_json("sub/deep/é", b"")),
    ]
    assert digest.root == node(node(leaves[0], leaves[1]), node(leaves[2], leaves[3]))
    assert (digest.kind, digest.count, digest.nbytes) == ("folder", 4, 4)
    assert digest.as_fields()["parts"][0] == {
        "name": "b.txt",
        "dtype": "FILE",
        "shape": [],
        "bytes": 2,
        "digest": f"sha256:{hashlib.sha256(b'bb').hexdigest()}",
    }
    assert dataset_digest(str(folder), SHA) == digest
    data = [part.leaf for part in digest.parts]
    merkle.verify_inclusion(data[2], 2, 4, merkle.MerkleTree(data).inclusion_proof(2), digest.root)


def test_every_change_of_a_folder_shows(folder: Path) -> None:
    roots = [dataset_digest(folder).root]
    (folder / "b.txt").write_bytes(b"bc")
    roots.append(dataset_digest(folder).root)
    (folder / "b.txt").rename(folder / "c.txt")
    roots.append(dataset_digest(folder).root)
    (folder / "new").write_bytes(b"")
    roots.append(dataset_digest(folder).root)
    (folder / "sub" / "a.txt").rename(folder / "a.txt")
    roots.append(dataset_digest(folder).root)
    assert len(set(roots)) == 5
    (folder / "hollow").mkdir()  # an empty folder is nothing
    os.utime(folder / "new", (0, 0))
    assert dataset_digest(folder).root == roots[-1]


@pytest.mark.parametrize("algorithm", DIGEST_SIZES)
def test_files_use_the_algorithm(folder: Path, algorithm: str) -> None:
    digest = dataset_digest(folder, HashFactory(algorithm))
    assert digest.algorithm == algorithm
    assert digest.parts[0].digest == str(HashFactory(algorithm).digest(b"bb"))


def test_links(folder: Path, tmp_path: Path) -> None:
    plain = dataset_digest(folder).root
    (folder / "inside").symlink_to(Path("sub") / "a.txt")
    linked = dataset_digest(folder)
    assert linked.root != plain
    (folder / "inside").unlink()
    (folder / "inside").write_bytes(b"a")
    assert dataset_digest(folder) == linked
    (folder / "inside").unlink()
    (tmp_path / "secret").write_bytes(b"x")
    (folder / "out").symlink_to("../secret")
    with pytest.raises(InputError, match=r"out' leads out of the folder"):
        dataset_digest(folder)
    (folder / "out").unlink()
    (folder / "loop").symlink_to(".")
    with pytest.raises(InputError, match=r"loop' leads to a folder"):
        dataset_digest(folder)
    (folder / "loop").unlink()
    (folder / "broken").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"broken.*No such file"):
        dataset_digest(folder)
    (tmp_path / "alias").symlink_to(folder)  # the folder itself may be reached by a link
    (folder / "broken").unlink()
    assert dataset_digest(tmp_path / "alias").root == plain
    assert dataset_digest(BytesPath(folder)).root == plain


class Rows:
    """A dataset of five rows, of which one cannot be read."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> int:
        if index == 3:
            raise self.error
        return index


@pytest.mark.parametrize(
    "error", [RuntimeError("no\nfile"), IndexError("no"), OSError("no"), StopIteration("no")]
)
def test_what_a_datasets_own_code_raises_is_one_line(error: Exception) -> None:
    with pytest.raises(InputError, match=rf"^data: cannot be read: {type(error).__name__}: no$"):
        dataset_digest(Rows(error))
    with pytest.raises(InputError, match=r"^data: cannot be read: ValueError: .*digits"):
        dataset_digest([10**5000])


def test_texts_that_name_files_are_texts_and_a_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("1")
    texts = [str(tmp_path / "a.csv")]
    assert dataset_digest(texts).kind == "sequence"
    assert "texts that name files: the texts are hashed" in capsys.readouterr().err
    assert dataset_digest([Path(texts[0])]).kind == "files"
    dataset_digest(["a.csv", "x" * 5000, "\0"])
    assert capsys.readouterr().err == ""


class BytesPath:
    """As os.PathLike[bytes]."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> bytes:
        return os.fsencode(self.path)


def test_files_that_cannot_be_recorded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"missing.csv.*No such file"):
        dataset_digest(tmp_path / "missing.csv")
    with pytest.raises(InputError, match=r"missing.*null byte"):
        dataset_digest(Path("missing\0"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty, expected at least one file with content"):
        dataset_digest(tmp_path / "empty")
    (tmp_path / "zero.csv").write_bytes(b"")
    with pytest.raises(InputError, match=r"zero\.csv'.*empty"):
        dataset_digest(tmp_path / "zero.csv")
    os.mkfifo(folder / "pipe")
    with pytest.raises(InputError, match="pipe': not a regular file"):
        dataset_digest(folder)
    (folder / "pipe").unlink()
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff"))).write_bytes(b"x")
    with pytest.raises(InputError, match="its name is not UTF-8"):
        dataset_digest(folder)
    with pytest.raises(InputError, match="not a regular file"):
        dataset_digest([folder])
    real = hashers.hash_file

    def racing(path: Path, begun: Callable[[int], Hasher]) -> bytes:
        digest = real(path, begun)
        path.write_bytes(b"longer than before")
        return digest

    monkeypatch.setattr(file_tree, "hash_file", racing)
    with pytest.raises(InputError, match=r"b\.txt': changed while it was read"):
        dataset_digest(folder / "b.txt")


def test_a_folder_that_cannot_be_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"cannot list .*Permission denied"):
        dataset_digest(folder)


def test_single_files_and_lists_of_files(folder: Path) -> None:
    one = dataset_digest(folder / "b.txt", SHA)
    assert (one.kind, one.root) == ("files", leaf(file_json("b.txt", b"bb")))
    two = dataset_digest([folder / "sub" / "a.txt", folder / "b.txt"], SHA)
    assert [part.name for part in two.parts] == ["sub/a.txt", "b.txt"]
    assert two.root == node(leaf(file_json("sub/a.txt", b"a")), leaf(file_json("b.txt", b"bb")))
    assert dataset_digest((folder / "b.txt", folder / "sub" / "a.txt"), SHA).root != two.root


def test_a_record_lists_at_most_so_many_parts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "MAX_LISTED_PARTS", 2)
    fields = dataset_digest(folder).as_fields()
    assert [part["name"] for part in fields["parts"]] == ["b.txt", "sub.txt"]
    assert (fields["parts_total"], fields["count"], fields["bytes"]) == (4, 4, 4)


# --- ready-made, records, imports -----------------------------------------------------------------


def test_a_ready_made_digest() -> None:
    ready = HashFactory("sha512").digest(b"elsewhere")
    digest = dataset_digest(ready)
    assert (digest.kind, digest.algorithm, digest.count) == ("digest", "sha512", 1)
    assert digest.root == leaf(f'{{"digest":"{ready}"}}'.encode())
    assert digest.parts[0].digest == str(ready)


@pytest.mark.parametrize(
    "data",
    [(np.zeros(2), [1, 2]), frame(), [1, "a"], HashFactory().digest(b"")],
    ids=["arrays", "table", "sequence", "digest"],
)
def test_fields_are_plain_json(data: Any) -> None:
    fields = dataset_digest(data).as_fields()
    assert json.loads(json.dumps(fields)) == fields


def test_folders_and_lists_need_no_framework(folder: Path) -> None:
    expected = [str(dataset_digest(folder)), str(dataset_digest([(1, "a"), (2.5, None)]))]
    code = (
        "import sys; from provenance.fingerprint.datasets import dataset_digest as d;"
        "print(d(sys.argv[1])); print(d([(1, 'a'), (2.5, None)]));"
        "print(sorted({'numpy','torch','pandas','pyarrow'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(folder)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    assert out[:3] == [*expected, "[]"]


@pytest.mark.slow
def test_an_array_brings_neither_torch_nor_pandas() -> None:
    code = (
        "import sys, numpy; from provenance.fingerprint.datasets import dataset_digest as d;"
        "from provenance.fingerprint.tensors import state_digest as s;"
        "d((numpy.ones(3), numpy.ones(3))); s({'a': numpy.ones(3)});"
        "print(sorted({'torch','pandas','pyarrow','safetensors','sklearn'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("part", [slice(None), slice(10, 20)])
def test_a_mapped_file_that_was_cut_off_is_named_and_ends_no_process(
    tmp_path: Path, part: slice
) -> None:
    file = tmp_path / "m.npy"
    np.save(file, np.zeros(100_000))
    mapped = np.load(file, mmap_mode="r")[part]
    dataset_digest(mapped)
    os.truncate(file, 4096)
    with pytest.raises(InputError, match=r"m\.npy was cut off to 4096 bytes while 800128 of it"):
        dataset_digest(mapped)
    with pytest.raises(InputError, match=r"m\.npy was cut off"):
        state_digest({"w": mapped})
