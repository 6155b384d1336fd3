"""Data of many libraries: the same content has one digest, what has none is refused by name.

Over 400 lines: case by case, one kind of data after the other.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import struct
import subprocess
import sys
import threading
from decimal import Decimal
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
import scipy.sparse as sp
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from provenance.errors import InputError
from provenance.fingerprint import datasets
from provenance.fingerprint.data import arrow, progress
from provenance.fingerprint.data.zones import zone_name
from provenance.fingerprint.datasets import DatasetDigest, dataset_digest
from provenance.fingerprint.hashers import HashFactory
from tests.support.frameworks import framework, installed

SHA = HashFactory("sha256")


def need(name: str, extra: str = "integrations") -> Any:
    installed(name.partition(".")[0], extra)
    return import_module(name)


def h(header: str, data: bytes = b"") -> bytes:
    text = header.encode()
    return hashlib.sha256(struct.pack("<I", len(text)) + text + data).digest()


def leaf(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def column(values: Any, kind: Any = None) -> DatasetDigest:
    return dataset_digest(pa.table({"c": pa.array(values, kind)}), SHA)


def objects(*values: Any) -> DatasetDigest:
    cells = pd.Series([None] * len(values), dtype=object)
    for at, value in enumerate(values):
        cells.iat[at] = value
    return dataset_digest(pd.DataFrame({"c": cells}), SHA)


def one(*digests: DatasetDigest) -> DatasetDigest:
    """The digest that all of these are, by root, names and types."""
    forms = {(d.root, tuple((p.name, p.dtype, p.nbytes) for p in d.parts)) for d in digests}
    assert len(forms) == 1, forms
    return digests[0]


def different(*digests: DatasetDigest) -> None:
    assert len({digest.root for digest in digests}) == len(digests)


# --- nested columns ----------------------------------------------------------------------------


def test_lists_and_structs_worked_out_by_hand() -> None:
    head = '{"dtype":"%s","name":"c","nulls":1,"rows":[0,3],"shape":[3],"v":1}'
    there = b"\x01\x00\x01"
    items = struct.pack("<q", 1) + b"\x01\x00\x01" + struct.pack("<3q", 7, 0, 9)
    expected = h(head % "LIST<I64>", there + struct.pack("<3q", 2, 0, 1) + items)
    assert column([[7, None], None, [9]]).root == leaf(leaf(expected))
    a = struct.pack("<q", 1) + b"\x01\x00\x01" + struct.pack("<3b", 5, 0, 6)
    b = struct.pack("<q", 2) + b"\x01\x00\x00" + struct.pack("<3q", 2, 0, 0) + b"xy"
    kind = pa.struct([("a", pa.int8()), ("b", pa.string())])
    struct_head = head % r"STRUCT<\"a\":I8,\"b\":UTF8>"
    rows = [{"a": 5, "b": "xy"}, None, {"a": 6, "b": None}]
    assert column(rows, kind).root == leaf(leaf(h(struct_head, there + a + b)))


def test_forms_of_a_list_agree() -> None:
    rows = [[1, 2], None, [3, 4], [5, None]]
    expected = column(rows)
    forms = [pa.large_list(pa.int64()), pa.list_(pa.int64(), 2), pa.list_view(pa.int64())]
    one(expected, *(column(rows, kind) for kind in forms))
    one(column([[1], [2, 3]]), objects([1], [2, 3]), objects((1,), np.array([2, 3])))
    one(column([["a"], ["b", None]]), objects(["a"], ["b", None]))
    whole = pa.array([[9], *rows, [8]])
    one(expected, dataset_digest(pa.table({"c": whole.slice(1, 4)}), SHA))
    chunked = pa.chunked_array([whole.slice(1, 1), whole.slice(2, 3)])
    one(expected, dataset_digest(pa.table({"c": chunked}), SHA))
    words = pa.array([["a", "b"], ["a"]])
    coded = pa.ListArray.from_arrays(words.offsets, words.flatten().dictionary_encode())
    one(dataset_digest(pa.table({"c": words}), SHA), dataset_digest(pa.table({"c": coded}), SHA))
    different(
        column([[1, 2], [3]]), column([[1], [2, 3]]), column([[1, 2, 3], []]),
        column([[1, 2], None, [3]]), column([[1, 2], [], [3]]), column([[1, 2], [None], [3]]),
        column([[[1], [2]]]), column([[[1, 2]]]),
    )  # fmt: skip


def test_maps_decimals_times_and_runs() -> None:
    kind = pa.map_(pa.string(), pa.int64())
    pairs = pa.list_(pa.struct([("key", pa.string()), ("value", pa.int64())]))
    maps = pa.array([[("x", 9)], [("a", 1), ("b", None)], None], kind)
    listed = [[{"key": "a", "value": 1}, {"key": "b", "value": None}], None]
    one(dataset_digest(pa.table({"c": maps.slice(1)}), SHA), column(listed, pairs))
    prices = [Decimal("1.50"), None, Decimal("-0.001"), Decimal("100")]
    one(column(prices), column(prices, pa.decimal256(60, 20)), objects(*prices))
    different(column([Decimal("1.5")]), column([Decimal("1.51")]), column([Decimal("15")]))
    long = [Decimal("1234567890123456789012345678901234.5")]
    one(column(long), objects(*long))
    one(column([dt.time(1, 2, 3, 4)]), objects(dt.time(1, 2, 3, 4)))
    assert column([dt.time(1)], pa.time32("s")).parts[0].dtype == "TIME[s]"
    runs = pa.compute.run_end_encode(pa.array([1, 1, 2]))
    one(column([1, 1, 2]), dataset_digest(pa.table({"c": runs}), SHA))


def test_polars_is_arrow() -> None:
    pl = need("polars")
    data = {
        "n": [1, None, 3],
        "s": ["x", None, "ü"],
        "l": [[1, 2], None, []],
        "t": [{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}],
        "d": [Decimal("1.5"), None, Decimal("2")],
        "when": [dt.datetime(2020, 1, 1), None, dt.datetime(1969, 1, 1)],
        "day": [dt.date(2020, 1, 1), None, dt.date(1900, 1, 1)],
    }
    frame = pl.DataFrame(data)
    expected = dataset_digest(pa.table(data))
    one(dataset_digest(frame), dataset_digest(frame.lazy()), expected)
    one(dataset_digest(frame.select("n", "s").to_pandas().astype({"n": "Int64"})),
        dataset_digest(frame.select("n", "s")))  # fmt: skip
    coded = pl.Series("s", data["s"], dtype=pl.Categorical)
    one(dataset_digest(coded.to_frame()), dataset_digest(frame.select("s")), dataset_digest(coded))
    zoned = frame.select(pl.col("when").dt.replace_time_zone("Europe/Zurich"))
    assert dataset_digest(zoned).parts[0].dtype == "TS[us,Europe/Zurich]"
    with pytest.raises(InputError, match="table column 'o': found polars' Object"):
        dataset_digest(pl.DataFrame({"o": pl.Series([object()], dtype=pl.Object)}))


# --- pandas --------------------------------------------------------------------------------------


def test_periods_intervals_and_sparse_columns() -> None:
    months = pd.DataFrame({"c": pd.PeriodIndex(["2020-01", None, "2021-05"], freq="M")})
    days = months.astype({"c": "period[D]"})
    cut = pd.DataFrame({"c": pd.cut([1, 5, 3, 99], [0, 2, 4, 6])})
    plain = pd.DataFrame({"c": pd.arrays.IntervalArray.from_tuples([(0, 1), (1.5, 2)])})
    left = pd.DataFrame({"c": pd.arrays.IntervalArray.from_tuples([(0, 1), (1.5, 2)], "left")})
    for frame in (months, days, plain, left):
        one(dataset_digest(frame), dataset_digest(pa.Table.from_pandas(frame)))
    different(*map(dataset_digest, (months, days, plain, left)))
    assert dataset_digest(cut).parts[0].dtype == "INTERVAL[right]<I64>"
    other = pd.DataFrame({"c": pd.cut([1, 3, 3, 99], [0, 2, 4, 6])})
    different(dataset_digest(cut), dataset_digest(other))
    for dense in (pd.Series([0, 0, 7]), pd.Series([np.nan, 1.5]), pd.Series([True, False])):
        thin = dense.astype(pd.SparseDtype(dense.dtype))
        one(dataset_digest(pd.DataFrame({"c": thin})), dataset_digest(pd.DataFrame({"c": dense})))


def test_python_objects_in_a_column() -> None:
    one(objects(True, None), column([True, None]))
    one(objects(1, None, -5), column([1, None, -5]))
    one(objects(1.5, None), column([1.5, None]))
    mixed = [
        (1, "a", None, 2.5), (1, "a", 2.5, None), (1, "a", None, 2), (True, "a", None, 2.5),
        (b"1", "a", None, 2.5), ([1], "a", None, 2.5), ({"k": 1}, "a", None, 2.5),
        ({"k": 1, "m": None}, "a", None, 2.5), (dt.datetime(2020, 1, 1), "a", None, 2.5),
        (dt.date(2020, 1, 1), "a", None, 2.5), (Decimal("1.5"), "a", None, 2.5),
        (1 + 2j, "a", None, 2.5),
    ]  # fmt: skip
    different(*(objects(*cells) for cells in mixed))
    assert objects(*mixed[0]).parts[0].dtype == "OBJECT"
    different(objects({"a": 1}, {}), objects({"a": 1}, {"a": None}), objects({"a": 1}, None))
    different(objects([{"a": 1}]), objects([{"a": 1, "b": None}]))
    node = '{"dtype":"%s","name":"[]","shape":[],"v":1}'
    nodes = ("I64", struct.pack("<q", 7)), ("UTF8", struct.pack("<q", 1) + b"a")
    cells = [struct.pack("<I", len(node % kind)) + (node % kind).encode() + data
             for kind, data in nodes]  # fmt: skip
    head = '{"dtype":"OBJECT","name":"c","nulls":0,"rows":[0,2],"shape":[2],"v":1}'
    body = struct.pack("<2q", *map(len, cells)) + b"".join(cells)
    assert objects(7, "a").root == leaf(leaf(h(head, body)))


def test_categories_of_every_kind() -> None:
    zurich = pd.to_datetime(["2020", "2021"]).tz_localize("Europe/Zurich")
    days = [dt.date(2020, 1, 1), dt.date(2021, 1, 1)]
    months = pd.period_range("2020", periods=2, freq="M")
    tuples = pd.Series([(1, 2), (3,)], dtype=object)
    for values in (["a", "b"], [1, 2], [1.5, 2], days, zurich, months, [1, "a"], tuples):
        plain = pd.Series(values).iloc[[1, 0, 1]].reset_index(drop=True)
        coded = pd.Categorical.from_codes([1, 0, 1], pd.Index(pd.Series(values)))
        one(dataset_digest(pd.DataFrame({"c": plain})), dataset_digest(pd.DataFrame({"c": coded})))


def test_columns_of_one_name_and_complex_columns() -> None:
    twice = pd.DataFrame([[1, 2]], columns=["a", "a"])
    assert [part.name for part in dataset_digest(twice).parts] == ["a", "a"]
    different(dataset_digest(twice), dataset_digest(twice.iloc[:, ::-1]))
    both = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    one(dataset_digest(twice), dataset_digest(both))
    waves = [np.array([1j, np.nan]), np.array([1j, 2]), np.array([1j, complex(np.nan, 1)])]
    different(*(dataset_digest(pd.DataFrame({"c": wave})) for wave in waves))


def test_zones_are_named_without_a_path() -> None:
    tz = need("dateutil.tz")
    zurich = ZoneInfo("Europe/Zurich")
    times = pd.to_datetime(["2020-01-01", None]).tz_localize(zurich)
    expected = dataset_digest(pd.DataFrame({"c": times}))
    from_file = tz.gettz("Europe/Zurich")
    one(expected, dataset_digest(pd.DataFrame({"c": times.tz_convert(from_file)})))
    assert expected.parts[0].dtype.endswith(",Europe/Zurich]")
    assert zone_name(tz.tzutc()) == zone_name(dt.UTC) == "UTC"
    hour = dt.timedelta(hours=1)
    assert zone_name(tz.tzoffset("X", 3600)) == zone_name(dt.timezone(hour)) == "+01:00"
    assert zone_name(dt.timezone(-hour * 3.5)) == "-03:30"
    assert zone_name(tz.tzstr("CET-1CEST,M3.5.0,M10.5.0/3")) == "+01:00/+02:00"
    assert "/usr" not in str(zone_name(tz.tzlocal()))
    moment = dt.datetime(2020, 6, 1, 12, tzinfo=zurich)
    one(dataset_digest([moment]), dataset_digest([moment.replace(tzinfo=from_file)]))
    different(*(dataset_digest([item]) for item in (moment, moment.astimezone(dt.UTC),
                                                    moment.replace(tzinfo=None))))  # fmt: skip
    stamp = pd.Timestamp("2020-01-01 00:00:00.000000001")
    different(dataset_digest([stamp]), dataset_digest([stamp.floor("us")]))


# --- arrays ---------------------------------------------------------------------------------------


def test_a_sparse_matrix_worked_out_by_hand() -> None:
    matrix = sp.csr_matrix(np.array([[0, 5, 0], [0, 0, 0], [7, 0, 9]], dtype=np.uint8))
    head = '{"dtype":"SPARSE<U8>","name":"0","nulls":0,"rows":[0,3],"shape":[3,3],"v":1}'
    body = struct.pack("<3q", 1, 0, 2) + struct.pack("<3q", 1, 0, 2) + bytes([5, 7, 9])
    assert dataset_digest(matrix, SHA).root == leaf(leaf(h(head, body)))


def test_sparse_matrices_of_every_format_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "BLOCK_ROWS", 7)
    matrix = sp.random(30, 20, 0.2, format="coo", random_state=0, dtype=np.float32)
    expected = dataset_digest(matrix)
    assert len(expected.parts[0].leaves) == 5
    forms = [matrix.asformat(form) for form in ("csr", "csc", "lil", "dok", "bsr", "dia")]
    one(expected, *map(dataset_digest, forms), dataset_digest(sp.csr_array(matrix)))
    dense = torch.from_numpy(matrix.toarray())
    one(expected, dataset_digest(dense.to_sparse()), dataset_digest(dense.to_sparse_csr()))
    rows = np.append(matrix.row, [0, 0, 1])
    columns = np.append(matrix.col, [3, 3, 1])
    values = np.append(matrix.data, np.array([2, -2, 0], np.float32))
    doubled = sp.coo_matrix((values, (rows, columns)), (30, 20))
    one(expected, dataset_digest(doubled))
    assert doubled.nnz == matrix.nnz + 3  # the caller's matrix is as it was
    shuffled = sp.csr_matrix(matrix)
    shuffled.indices[: shuffled.indptr[1]] = shuffled.indices[: shuffled.indptr[1]][::-1].copy()
    before = shuffled.indices.copy()
    dataset_digest(shuffled)
    assert (shuffled.indices == before).all()
    changed = matrix.copy()
    changed.data[5] += 1
    wider = sp.coo_matrix((matrix.data, (matrix.row, matrix.col)), (30, 21))
    different(expected, dataset_digest(changed), dataset_digest(wider), dataset_digest(matrix.T),
              dataset_digest(dense))  # fmt: skip
    one(dataset_digest((matrix, [1] * 30)), dataset_digest((forms[1], [1] * 30)))
    assert dataset_digest(sp.csr_matrix((2, 3))).count == 2
    with pytest.raises(InputError, match=r"sparse array of shape \(4,\), expected two axes"):
        dataset_digest(sp.coo_array(np.ones(4)))


def test_masked_arrays() -> None:
    plain = np.arange(6.0).reshape(3, 2)
    masked = np.ma.array(plain, mask=np.array([[0, 0], [0, 1], [0, 0]], bool))
    head = '{"dtype":"F64","name":"0","nulls":1,"rows":[0,3],"shape":[3,2],"v":1}'
    body = bytes([1, 1, 1, 0, 1, 1]) + struct.pack("<6d", 0, 1, 2, 0, 4, 5)
    digest = dataset_digest(masked, SHA)
    assert digest.root == leaf(leaf(h(head, body)))
    hidden = masked.copy()
    hidden.data[1, 1] = 99
    hidden.set_fill_value(5)
    one(digest, dataset_digest(hidden, SHA))
    one(dataset_digest(np.ma.array(plain), SHA), dataset_digest(plain, SHA))
    zero = plain.copy()
    zero[1, 1] = 0
    different(digest, dataset_digest(plain, SHA), dataset_digest(zero, SHA))
    different(dataset_digest([masked]), dataset_digest([zero]), dataset_digest([plain]))


def test_times_structures_and_texts() -> None:
    days = np.array(["2020-01-01", "NaT"], "M8[D]")
    seconds = days.astype("M8[s]")
    assert dataset_digest(days).parts[0].dtype == "TS[D]"
    different(*map(dataset_digest, (days, seconds, days.view("m8[D]"), days.view("i8"))))
    one(dataset_digest(seconds), dataset_digest(seconds.astype(">M8[s]")))
    table = np.array([(1, 2.0, "ä"), (3, 4.0, "")], dtype=[("a", "i4"), ("b", "f8"), ("s", "U2")])
    digest = dataset_digest(table)
    assert [part.name for part in digest.parts] == ["0.a", "0.b", "0.s"]
    one(digest, dataset_digest({"0": {"a": table["a"], "b": table["b"], "s": ["ä", ""]}}))
    different(digest, dataset_digest(table[::-1]), dataset_digest(table[["a", "b"]]))
    items = [np.array(["a", "bc"]), np.array(["ab", "c"]), np.array([b"a", b"bc"]), days, table,
             np.array([["a", "bc"]]), np.array(["a", 1], object), np.array([1j])]  # fmt: skip
    different(*(dataset_digest([item]) for item in items))
    one(dataset_digest([np.array(["a", 1], object)]), dataset_digest([["a", 1]]))
    one(dataset_digest([1 + 2j]), dataset_digest([np.array(1 + 2j)]))


@pytest.mark.slow
def test_jax_arrays() -> None:
    """In a process of its own: JAX has threads, and other tests fork."""
    installed("jax", "flax")
    code = (
        "import numpy, jax.numpy; from provenance.fingerprint.datasets import dataset_digest as d;"
        "x = numpy.arange(6, dtype='f4').reshape(2, 3); assert d(jax.numpy.asarray(x)) == d(x);"
        "assert d([{'x': jax.numpy.asarray(x)}]) == d([{'x': x}]); print('same')"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "same\n"


def test_columns_beside_arrays() -> None:
    plain = np.arange(6, dtype=np.float32).reshape(2, 3)
    labels = pa.array([1, 2])
    one(dataset_digest((plain, labels)), dataset_digest((plain, pa.chunked_array([labels]))),
        dataset_digest((plain, pd.Index([1, 2]))))  # fmt: skip
    assert dataset_digest((plain, pd.Categorical(["a", "b"]))).parts[1].dtype == "UTF8"


def test_a_bunch_is_its_arrays() -> None:
    sklearn = need("sklearn.datasets")
    bunch = sklearn.load_iris()
    digest = dataset_digest(bunch)
    names = ["data", "feature_names", "target", "target_names"]
    assert [part.name for part in digest.parts] == names
    assert digest.as_fields()["left_out"] == ["DESCR", "data_module", "filename"]
    one(digest, dataset_digest({name: bunch[name] for name in names}))
    assert "left_out" not in dataset_digest(bunch.data).as_fields()
    nested = dataset_digest({"train": bunch}).as_fields()
    assert nested["left_out"] == ["train.DESCR", "train.data_module", "train.filename"]


# --- torch ----------------------------------------------------------------------------------------


class Rows(Dataset[tuple[torch.Tensor, int]]):  # type: ignore[misc]  # the base class has no types
    def __init__(self, noise: float = 0) -> None:
        self.noise = noise

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((2,), float(index)) + self.noise * torch.rand(2), index


def test_subsets_of_tensors_are_those_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 24)
    x, y = torch.arange(20.0).reshape(10, 2), torch.arange(10)
    whole = TensorDataset(x, y)
    rows = [7, 1, 1, -2]
    expected = dataset_digest(TensorDataset(x[rows], y[rows]))
    nested = Subset(Subset(whole, range(9, -1, -1)), [2, 8, 8, 1])
    one(expected, dataset_digest(Subset(whole, rows)), dataset_digest(DataLoader(nested, 2)))
    halves = ConcatDataset([TensorDataset(x[:3], y[:3]), Subset(whole, range(3, 10))])
    one(dataset_digest(whole), dataset_digest(halves), dataset_digest((x, y)))
    one(expected, dataset_digest(Subset(halves, rows)))
    mixed = ConcatDataset([whole, Rows()])
    assert dataset_digest(mixed).parts[0].dtype == "SEQUENCE"

    class Changing(TensorDataset):  # type: ignore[misc]  # the base class has no types
        def __getitem__(self, index: int) -> Any:
            return tuple(2 * tensor[index] for tensor in self.tensors)

    different(dataset_digest(Changing(x, y)), dataset_digest(whole))
    split = dataset_digest({"train": Subset(whole, [0]), "test": Rows()})
    assert [part.name for part in split.parts] == ["test", "train.0", "train.1"]


def test_hdf5_is_read_as_the_arrays_in_it(tmp_path: Path) -> None:
    h5py = framework("h5py", "keras")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"] = np.ones((3, 2))
        file["names"] = ["a", "b", "c"]
        arrays = {"x": np.ones((3, 2)), "names": [b"a", b"b", b"c"]}
        assert dataset_digest(file).root == dataset_digest(arrays).root


def test_loaders_and_frames_together_are_parts() -> None:
    x, frame = torch.arange(3.0), pd.DataFrame({"a": [1, 2, 3]})
    loaders = DataLoader(TensorDataset(x)), DataLoader(TensorDataset(x + 1))
    for pair in (loaders, list(loaders)):
        assert [part.name for part in dataset_digest(pair).parts] == ["0.0", "1.0"]
    assert [part.name for part in dataset_digest([frame, frame]).parts] == ["0.a", "1.a"]
    cyclic: dict[str, Any] = {}
    cyclic["x"] = cyclic
    for data, problem in (
        (Subset(TensorDataset(x), [1, 9]), "Subset has the index 9 of 3 rows"),
        (torch.nested.nested_tensor([x, x[:2]]), "'0': found a nested tensor, expected a list"),
        (TensorDataset(torch.eye(3).to_sparse()), "item 0: .*found layout torch.sparse_coo"),
        ([torch.nested.nested_tensor([x])], r"item 0: at \[\]: .*does not give its elements"),
        (frame.groupby("a"), "found pandas.*GroupBy, expected a frame, or a column of one"),
        (cyclic, "data: nested deeper than 32 levels"),
        ({"x": x, "y": Path("y.csv")}, "data part 'y': found a path, expected what is read"),
    ):
        with pytest.raises(InputError, match=problem):
            dataset_digest(data)


def test_data_that_varies_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert "varies" not in dataset_digest(Rows()).as_fields()
    assert capsys.readouterr().err == ""
    fields = dataset_digest(DataLoader(Rows(noise=1))).as_fields()
    assert fields["varies"] is True
    assert "differs when it is read again" in capsys.readouterr().err


def test_pictures_are_their_pixels_and_palette() -> None:
    image = need("PIL.Image")
    grey = image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    one(dataset_digest([grey]), dataset_digest([np.asarray(grey)]))
    first, second = grey.convert("P"), grey.convert("P")
    second.putpalette([255 - at for at in range(256) for _ in "rgb"])
    assert (np.asarray(first) == np.asarray(second)).all()
    four = [image.new(mode, (2, 2)) for mode in ("RGBA", "CMYK")]
    different(*(dataset_digest([item]) for item in (first, second, *four)))


# --- Hugging Face, Arrow datasets, boosters -------------------------------------------------------


@pytest.mark.slow
def test_hugging_face_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hf = need("datasets")
    rows: dict[str, list[Any]] = {"ids": [[1, 2], [3], [], [4]], "text": ["a", "b", "c", None]}
    data = hf.Dataset.from_dict(rows)
    expected = dataset_digest(data)
    one(expected, dataset_digest(pa.table(rows)), dataset_digest(data.with_format("torch")),
        dataset_digest(data.with_transform(lambda batch: {"x": [0]})))  # fmt: skip
    order = [3, 0, 2]
    chosen = {name: [cells[at] for at in order] for name, cells in rows.items()}
    one(dataset_digest(data.select(order)), dataset_digest(pa.table(chosen)),
        dataset_digest(Subset(data, order)))  # fmt: skip
    different(expected, dataset_digest(data.select(order)), dataset_digest(data.select([0, 2, 3])))
    assert dataset_digest(data.shuffle(seed=3)).count == 4
    monkeypatch.setattr(arrow, "_JOINED_BYTES", 1)  # as if a block's texts passed 2 GiB
    long = hf.concatenate_datasets([data, data.select(order)])
    cells = {name: [*cells, *chosen[name]] for name, cells in rows.items()}
    pieces = pa.concat_tables([pa.table(rows), pa.table(chosen)])
    one(dataset_digest(long), dataset_digest(pieces), dataset_digest(pa.table(cells)))
    one(dataset_digest(long.select(range(6, -1, -1))),
        dataset_digest(pa.table({name: found[::-1] for name, found in cells.items()})))  # fmt: skip
    splits = hf.DatasetDict({"train": data, "test": data.select([0])})
    digest = dataset_digest(splits)
    names = ["test.ids", "test.text", "train.ids", "train.text"]
    assert [part.name for part in digest.parts] == names
    assert dataset_digest((data["text"], np.arange(4))).parts[0].dtype == "UTF8"
    stream = dataset_digest(data.to_iterable_dataset())
    assert (stream.kind, stream.root) == ("stream", dataset_digest(list(data)).root)
    image = need("PIL.Image")
    roots = []
    for folder in ("one", "two", "three"):
        (tmp_path / folder).mkdir()
        value = 9 if folder == "three" else 7
        image.new("L", (2, 2), value).save(tmp_path / folder / "a.png")
        paths = {"image": [str(tmp_path / folder / "a.png")]}
        pictures = hf.Dataset.from_dict(paths, features=hf.Features({"image": hf.Image()}))
        roots.append(dataset_digest(pictures).root)
    (tmp_path / "three" / "a.png").unlink()
    with pytest.raises(InputError, match="column 'image': cannot read a file: .*No such file"):
        dataset_digest(pictures)
    one(stream, dataset_digest(DataLoader(data.to_iterable_dataset(), 2)))
    assert roots[0] == roots[1] != roots[2]  # the file's content counts, not where it lies


def test_arrow_datasets_and_readers(tmp_path: Path) -> None:
    table = pa.table({"a": range(10), "s": [str(at) for at in range(10)]})
    for part in (0, 1):
        pa.parquet.write_table(table.slice(5 * part, 5), tmp_path / f"{part}.parquet")
    files = pyarrow.dataset.dataset(tmp_path)
    one(
        dataset_digest(files), dataset_digest(table), dataset_digest(pyarrow.dataset.dataset(table))
    )
    some = files.filter(pyarrow.dataset.field("a") > 3)
    one(dataset_digest(some), dataset_digest(table.slice(4)))
    with pytest.raises(InputError, match=r"RecordBatchReader: reading it would consume it; pass"):
        dataset_digest(table.to_reader())


@pytest.mark.slow
def test_matrices_of_boosters() -> None:
    xgboost, lightgbm, catboost = need("xgboost"), need("lightgbm"), need("catboost")
    x, y = np.array([[1.0, 0.0], [np.nan, 2.0]], np.float32), np.array([0, 1], np.float32)
    digest = dataset_digest(xgboost.DMatrix(x, label=y))
    assert [part.name for part in digest.parts] == ["data", "label"]
    zero, weight = np.nan_to_num(x), np.ones(2)
    different(digest, dataset_digest(xgboost.DMatrix(zero, label=y)),
              dataset_digest(xgboost.DMatrix(x, label=y, weight=weight)),
              dataset_digest(xgboost.DMatrix(x, label=1 - y)))  # fmt: skip
    with pytest.raises(InputError, match="QuantileDMatrix: it has bins, not the data; pass what"):
        dataset_digest(xgboost.QuantileDMatrix(x, label=y))
    raw = lightgbm.Dataset(x, label=y, free_raw_data=False)
    one(dataset_digest(raw), dataset_digest({"data": x, "label": y}))
    raw.data = None
    with pytest.raises(InputError, match="without its raw data"):
        dataset_digest(raw)
    booster = xgboost.train({}, xgboost.DMatrix(x, label=y), 1)
    with pytest.raises(InputError, match=r"Booster, expected xgboost\.DMatrix"):
        dataset_digest(booster)
    with pytest.raises(InputError, match=r"catboost\.\S*Pool: .*pass what it was made of"):
        dataset_digest(catboost.Pool(x, y))


# --- paths ----------------------------------------------------------------------------------------


def test_urls_are_read_as_files(tmp_path: Path) -> None:
    fsspec = need("fsspec")
    memory = fsspec.filesystem("memory")
    (tmp_path / "data" / "sub").mkdir(parents=True)
    for name, content in (("b.txt", b"bb"), ("sub/a.txt", b"a"), ("sub/empty", b"")):
        (tmp_path / "data" / name).write_bytes(content)
        memory.pipe(f"/data-kinds/{name}", content)
    one(dataset_digest(tmp_path / "data"), dataset_digest("memory://data-kinds"),
        dataset_digest(f"file://{tmp_path}/data"))  # fmt: skip
    one(dataset_digest(tmp_path / "data" / "b.txt"), dataset_digest("memory://data-kinds/b.txt"))
    with pytest.raises(InputError, match=r"cannot read 'memory://nowhere' through fsspec: FileNot"):
        dataset_digest("memory://nowhere")
    with pytest.raises(InputError) as refused:
        dataset_digest("nosuch://user:hunter2@host/x?signature=hunter2")
    assert "hunter2" not in str(refused.value)


def test_a_key_that_stands_for_a_folder_of_a_bucket_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As s3fs lists those that consoles make: ``data/`` and ``data/sub/``, files of no bytes."""
    memory = need("fsspec").filesystem("memory")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_bytes(b"a")
    memory.pipe("/with-markers/sub/a.txt", b"a")
    find = type(memory).find

    def listed(self: Any, path: str, **options: Any) -> Any:
        marker = {"type": "file", "size": 0}
        entries = find(self, path, **{**options, "detail": True})
        entries |= {f"{path}/": marker, f"{path}/sub/": marker}
        return entries if options.get("detail") else sorted(entries)

    monkeypatch.setattr(type(memory), "find", listed)
    one(dataset_digest(tmp_path), dataset_digest("memory://with-markers"))


@pytest.mark.slow
def test_the_signature_of_a_url_is_no_name(tmp_path: Path) -> None:
    need("fsspec")
    need("aiohttp")
    (tmp_path / "x.txt").write_bytes(b"x")
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/x.txt?X-Amz-Signature=hunter2"
        digest = dataset_digest(url)
        server.shutdown()
    assert [part.name for part in digest.parts] == ["x.txt"]
    one(digest, dataset_digest(tmp_path / "x.txt"))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("imdb", r"load it and pass that: load_dataset\('imdb'\)"),
        ("org/data-set", r"load_dataset\('org/data-set'\)"),
        ("shards-{000..010}.tar", "a pattern is no path: pass a list of Path"),
        ("data/*.csv", "a pattern is no path"),
        ("missing.csv", "No such file or directory$"),
        ("", "cannot read ''"),
    ],
)
def test_a_text_that_is_no_path_says_what_to_pass(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=f"cannot read .*No such file.*{hint}|{hint}"):
        dataset_digest(name)


def test_a_file_that_shrinks_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a map of the file would answer with SIGBUS."""
    path = tmp_path / "data.bin"
    for algorithm in ("blake3", "sha256"):
        path.write_bytes(bytes(1 << 20))
        factory = HashFactory(algorithm)
        new = factory.new

        def shrinking(self: HashFactory, size: int = 0, new: Any = new) -> Any:
            path.write_bytes(b"short")
            return new(size)

        with monkeypatch.context() as patch:
            patch.setattr(HashFactory, "new", shrinking)
            with pytest.raises(InputError, match=r"data\.bin': changed while it was read"):
                dataset_digest(path, factory)


def test_progress_is_for_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_AFTER", 0)
    for terminal in (True, False):
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda terminal=terminal: terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        dataset_digest({"a column": [1] * 10})
        assert ("Digest of data a column" in stream.getvalue()) is terminal


@pytest.mark.parametrize("count", [7, 8, 9, 4097])
def test_a_list_of_numbers_is_its_items(count: int) -> None:
    """They are written in one piece, with the bytes that each by itself has."""
    for numbers, kind, code in ((range(count), "I64", "q"), ([0.5] * count, "F64", "d")):
        head = f'{{"dtype":"LIST","name":"[]","shape":[{count}],"v":1}}'
        whole = struct.pack("<I", len(head)) + head.encode()
        for at, number in enumerate(numbers):
            head = f'{{"dtype":"{kind}","name":"[{at}]","shape":[],"v":1}}'
            whole += struct.pack("<I", len(head)) + head.encode() + struct.pack(f"<{code}", number)
        assert dataset_digest([list(numbers)], SHA).parts[0].leaves == (
            hashlib.sha256(whole).digest(),
        )
    with pytest.raises(InputError, match=rf"data item 0: at \[{count}\]: found 1844"):
        dataset_digest([[*range(count), 2**64]])
