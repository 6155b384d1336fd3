"""Items as people name them become the bytes that the set has, or are refused."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from provenance.errors import InputError
from provenance.fingerprint.data.items import ItemReader
from provenance.fingerprint.data.progress import Progress
from provenance.formats.item_set import Form, ItemSet
from provenance.items.proving import StatedSet
from provenance.items.values import item_bytes, named_items

FRAME = pd.DataFrame(
    {
        "age": np.array([31, 40, 52], "int32"),
        "name": ["Ada", None, "Kurt"],
        "score": np.array([0.1, float("nan"), 2], "float32"),
        "member": [True, False, True],
        "since": np.array(["2024-01-02", "2025-03-04T05:06:07", "2026-01-01"], "datetime64[ns]"),
    }
)
KEY = bytes(32)


def form_of(data: Any) -> tuple[Form | None, list[bytes]]:
    """Of the items, and their digests."""
    reader = ItemReader(KEY, Progress())
    joined = b"".join(reader.digests(data))
    return reader.form, [joined[at : at + 32] for at in range(0, len(joined), 32)]


def digests(words: list[str], form: Form | None, is_table: bool = False) -> list[bytes]:
    items = [item_bytes(*named, form, is_table) for named in named_items(words, form)]
    reader = ItemReader(KEY, Progress())
    joined = reader.of_items(items)
    return [joined[at : at + 32] for at in range(0, len(joined), 32)]


def test_rows_of_a_table_come_from_parquet_csv_jsonl_and_json(tmp_path: Path) -> None:
    form, expected = form_of(FRAME)
    FRAME.to_parquet(tmp_path / "t.parquet", index=False)
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    FRAME.to_json(tmp_path / "t.jsonl", orient="records", lines=True, date_format="iso")
    for name in ("t.parquet", "t.csv", "t.jsonl"):
        path = tmp_path / name
        if name == "t.jsonl":  # pandas writes ISO times with a zone that the column has not
            path.write_text(path.read_text().replace('.000"', '"').replace('.000Z"', '"'))
        assert digests([str(path)], form, is_table=True) == expected, name
        assert digests([f"{path}:2"], form, is_table=True) == expected[2:], name
    literal = (
        '{"age": 31, "name": "Ada", "score": 0.1, "member": true, "since": "2024-01-02T00:00:00"}'
    )
    assert digests([literal], form, is_table=True) == expected[:1]


def test_rows_of_arrays_come_from_npy_npz_and_json(tmp_path: Path) -> None:
    rows, labels = np.arange(6, dtype="<f4").reshape(3, 2), np.array([1, 0, 1], "u1")
    np.save(tmp_path / "x.npy", rows.astype("<f8"))
    assert digests([str(tmp_path / "x.npy")], *_form(rows)) == form_of(rows)[1]
    np.savez(tmp_path / "xy.npz", rows, labels.astype("<i8"))
    form, expected = form_of((rows, labels))
    assert digests([str(tmp_path / "xy.npz")], form) == expected
    assert digests(["[[2, 3], 0]", f"{tmp_path}/xy.npz:0"], form) == [expected[1], expected[0]]


def _form(data: Any) -> tuple[Form | None]:
    return (form_of(data)[0],)


def test_texts_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("héllo")
    form, expected = form_of(["héllo", "x"])
    assert digests([str(tmp_path / "a.txt"), '"x"'], form) == expected
    (tmp_path / "p.npy").write_bytes(b"any bytes")
    form, expected = form_of([b"any bytes", b"from stdin"])
    assert digests([str(tmp_path / "p.npy")], form) == expected[:1]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from stdin")))
    assert digests(["-"], form) == expected[1:]


@pytest.mark.parametrize(
    ("data", "word", "told"),
    [
        (np.eye(2, dtype="<f4"), "x64.npy", "x64.npy:0: found float64(2,), the set's items have"),
        (np.eye(2, dtype="u1"), "[1, 2.5]", "[1, 2.5]: found [1, 2.5], the set's items have U8[2]"),
        (np.eye(2, dtype="u1"), "x64.npy:9", "x64.npy:9: found 2 items, counted from 0"),
        (np.eye(2, dtype="u1"), "bad.csv", "bad.csv: cannot be read as .csv"),
        (np.eye(2, dtype="u1"), "bad.npy", "bad.npy: cannot be read as .npy"),
        (np.eye(2, dtype="u1"), "bad.npz", "bad.npz: cannot be read as .npz"),
        (np.eye(2, dtype="<f4"), "[16777217, 1]", "[16777217, 1], the set's items have F32[2]"),
        (np.eye(2, dtype="<f4"), "[1e39, 2]", "found [1e+39, 2], the set's items have F32[2]"),
        (np.eye(2, dtype="<f4"), '["1.5", 2]', "found ['1.5', 2], the set's items have F32[2]"),
        (np.eye(2), f"[{2**53 + 1}, 0.5]", "0.5], the set's items have F64[2]"),
        (np.eye(2), "[1e999, 2]", "'[1e999, 2]': found neither"),
        (np.eye(2), "i64.npy", "i64.npy:0: found int64(2,), the set's items have F64[2]"),
        ([{"a": 0.5}], "huge.csv", "huge.csv:0: found '1e999', the set's items have F64[] at"),
        (np.ones(1, "u8"), "-1", "-1: found -1, the set's items have U64[] at []"),
        (["text"], "bad.npz", "bad.npz: cannot be read as .npz"),
        (["text"], "cut.npz", "cut.npz: cannot be read as .npz"),
        (["text"], "none.npy", "none.npy: cannot be read as .npy"),
        (["text"], "long.csv", "long.csv: cannot be read as .csv: a row has more or fewer cells"),
        (["text"], "short.csv", "short.csv: cannot be read as .csv: a row has more or fewer cells"),
        (["text"], "bad.bin", "bad.bin: found bytes that are not UTF-8, expected a text"),
        (["text"], "12", "12: found I64[] at [], the set's items have UTF8[] at []"),
        ([1], "9" * 20, "found 99999999999999999999, the set's items have I64[] at []"),
        ([b"x"], '"x"', 'found UTF8[] at [], the set\'s items have BYTES[] at []'),
        ([{"a": 1}], '{"b": 1}', 'found I64[] at ["b"], the set\'s items have DICT[1] at []'),
        ([{"a": 1}], "NaN", "found F64[] at [], the set's items have DICT[1] at []"),
        (np.array(["2026-01-01"], "M8[s]"), '"soon"', "found 'soon', the set's items have TS[s][]"),
    ],
)  # fmt: skip
def test_what_is_no_such_item_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Any, word: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x64.npy", np.array([[0.1, 0.2], [1, 2]]))
    np.save("i64.npy", np.array([[2**53 + 1, 1]]))
    Path("huge.csv").write_text("a\n1e999\n")
    for name in ("bad.npy", "bad.npz", "bad.bin"):
        Path(name).write_bytes(b"\xff\x00")
    np.savez("cut.npz", np.eye(2))
    Path("cut.npz").write_bytes(Path("cut.npz").read_bytes()[:-40])
    Path("none.npy").touch()
    Path("long.csv").write_text("a,b\n1,2,3\n")
    Path("short.csv").write_text("a,b\n1\n")
    Path("bad.csv").write_bytes(b'a,b\n"1,2\n')
    with pytest.raises(InputError) as caught:
        digests([word], form_of(data)[0])
    assert told in str(caught.value)


@pytest.mark.parametrize("shape", [(10**12, 4), (2**62, 4), (10**12, 0)])
def test_a_header_of_more_than_the_file_has_is_refused(tmp_path: Path, shape: Any) -> None:
    path, archive = tmp_path / "h.npy", tmp_path / "h.npz"
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(file, header)
        file.write(bytes(12))
    with zipfile.ZipFile(archive, "w") as packed:
        packed.write(path, "x.npy")
    form, _ = form_of(np.eye(4, dtype="<f4"))
    for named in (path, archive):
        with pytest.raises(InputError, match=rf"{named.name}: .*its header states .*has 12"):
            digests([str(named)], form)


def test_a_zip_of_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "z.npz", np.zeros((100, 4), "<f4"))
    monkeypatch.setattr("provenance.items.values.MAX_UNPACKED", 1000)
    with pytest.raises(InputError, match=r"z.npz: .*unpacks to \d+ bytes, at most 1000 are read"):
        digests([str(tmp_path / "z.npz")], form_of(np.eye(4, dtype="<f4"))[0])


def test_the_nearest_number_is_taken_and_told() -> None:
    form, expected = form_of(np.array([[0.1, np.inf], [1, np.nan]], "<f4"))
    nearest = list[str]()
    named = named_items(["[0.1, Infinity]", "[1, NaN]"], form)
    items = [item_bytes(*item, form, False, nearest) for item in named]
    assert ItemReader(KEY, Progress()).of_items(items) == b"".join(expected)
    assert nearest == ["[0.1, Infinity]: 0.1 is no F32, asked is 0.10000000149011612"]


def test_whole_numbers_of_64_bits_stay_whole(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": [2**53 + 1, -(2**63)], "count": np.array([2**64 - 1, 0], "u8")})
    form, expected = form_of(frame)
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert digests([str(tmp_path / "t.csv")], form, is_table=True) == expected
    assert digests([f'{{"id": {2**53 + 1}, "count": {2**64 - 1}}}'], form) == expected[:1]
    wrong = f'{{"id": {2**53}, "count": {2**64 - 1}}}'
    assert digests([wrong], form) != expected[:1]


def test_items_of_a_set_without_a_form_are_taken_as_they_are() -> None:
    form, expected = form_of([{"a": 1}, {"b": "x"}])
    assert form is None
    assert digests(['{"a": 1}', '{"b": "x"}'], form) == expected


def test_cells_without_types_are_refused_where_the_set_states_none(tmp_path: Path) -> None:
    form, _ = form_of([{"a": 1}, {"a": 1, "b": 2}])
    (tmp_path / "t.csv").write_text("a\n1\n")
    with pytest.raises(InputError, match=r"t.csv:0: found texts of a .csv file, expected JSON"):
        digests([str(tmp_path / "t.csv")], form)


def test_long_literals_are_no_file_names_and_each_counts() -> None:
    texts = ["x" * 5000 + end for end in "ab"]
    form, expected = form_of(texts)
    assert digests([f'"{text}"' for text in texts], form) == expected
    stated: Any = StatedSet.__new__(StatedSet)
    object.__setattr__(stated, "items", ItemSet(bytes(32), 2, 2, bytes(32), form))
    object.__setattr__(stated, "is_table", False)
    named = named_items([f'"{text}"' for text in texts], form)
    assert [digest for _, digest in StatedSet.digests(stated, KEY, named)] == expected


def test_no_item_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("\n")
    stated: Any = StatedSet.__new__(StatedSet)
    with pytest.raises(InputError, match="ITEM: found none, expected one at least"):
        StatedSet.digests(stated, KEY, named_items([str(tmp_path / "none.jsonl")], None))
