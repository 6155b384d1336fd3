"""Tensor, state, table and element digests against naive references written here."""

from __future__ import annotations

import hashlib
import json
import struct
import threading
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import rfc8785
import torch
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from provenance.errors import InputError
from provenance.fingerprint import row_major
from provenance.fingerprint.arrays import tensor_header
from provenance.fingerprint.datasets import dataset_digest
from provenance.fingerprint.hashers import Digest, HashFactory
from provenance.fingerprint.tensors import state_digest, tensor_digest
from tests.support.frameworks import framework

SHA = HashFactory("sha256")

CODES = {
    "F64": "d", "F32": "f", "F16": "e", "I64": "q", "I32": "i", "I16": "h", "I8": "b",
    "U64": "Q", "U32": "I", "U16": "H", "U8": "B", "BOOL": "?",
}  # fmt: skip
NUMPY = {
    "F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
    "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip

names = st.text(st.characters(codec="utf-8"), max_size=12)


def naive_tensor(name: str, dtype: str, array: np.ndarray[Any, Any]) -> bytes:
    """One element at a time, through struct. JSON keys are in order already."""
    fields = {"dtype": dtype, "name": name, "shape": list(array.shape), "v": 1}
    header = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    message = struct.pack("<I", len(header)) + header
    for index in np.ndindex(*array.shape):
        message += struct.pack("<" + CODES[dtype], array[index].item())
    return hashlib.sha256(message).digest()


def naive_mth(data: list[bytes]) -> bytes:
    if len(data) == 1:
        return hashlib.sha256(b"\x00" + data[0]).digest()
    split = 1
    while split * 2 < len(data):
        split *= 2
    return hashlib.sha256(b"\x01" + naive_mth(data[:split]) + naive_mth(data[split:])).digest()


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, np.ndarray[Any, Any]]:
    """An array of any element type, shape, byte order and strides."""
    dtype = draw(st.sampled_from(sorted(CODES)))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    order = draw(st.sampled_from("<>"))
    # NaNs have many bit patterns, of which struct keeps one: test_nan_payloads_count below
    elements = {"allow_nan": False} if dtype.startswith("F") else None
    array = draw(hnp.arrays(np.dtype(order + NUMPY[dtype]), shape, elements=elements))
    if array.ndim and draw(st.booleans()):
        array = array.transpose(draw(st.permutations(range(array.ndim))))
    if array.ndim and draw(st.booleans()):
        array = array[:: draw(st.sampled_from([-2, -1, 2, 3]))]
    return dtype, array


@given(names, tensors())
@settings(deadline=None)
def test_a_tensor_is_the_naive_digest(name: str, tensor: tuple[str, np.ndarray[Any, Any]]) -> None:
    dtype, array = tensor
    digest = tensor_digest(name, array, SHA)
    assert digest.digest == Digest("sha256", naive_tensor(name, dtype, array))
    assert (digest.dtype, digest.shape, digest.nbytes) == (dtype, array.shape, array.nbytes)


@given(st.dictionaries(names, tensors(), min_size=1, max_size=9), st.randoms())
@settings(deadline=None)
def test_a_state_is_the_naive_tree(state: dict[str, Any], random: Any) -> None:
    ordered = sorted(state, key=lambda name: name.encode())
    expected = naive_mth([naive_tensor(name, *state[name]) for name in ordered])
    shuffled = list(state)
    random.shuffle(shuffled)
    arrays = {name: state[name][1] for name in shuffled}
    assert state_digest(arrays, SHA).root == expected


@pytest.mark.slow
@given(tensors())
@settings(deadline=None)
def test_torch_is_numpy(tensor: tuple[str, np.ndarray[Any, Any]]) -> None:
    _, array = tensor
    native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")).reshape(array.shape)
    view = torch.from_numpy(native.copy())
    dims = tuple(reversed(range(view.dim())))
    assert tensor_digest("x", view) == tensor_digest("x", array)
    assert tensor_digest("x", view.permute(dims)) == tensor_digest("x", array.transpose(dims))


@given(st.integers(0, 2**16 - 1), st.integers(0, 15))
@settings(deadline=None)
def test_nan_payloads_count(bits: int, flip: int) -> None:
    """Any single bit of a bf16 or f16, NaN or not, changes the digest."""
    one = torch.tensor([bits, bits ^ (1 << flip)], dtype=torch.int32).to(torch.int16)
    for dtype in (torch.bfloat16, torch.float16):
        a, b = one.view(dtype)
        assert tensor_digest("x", a) != tensor_digest("x", b)


@given(tensors(), st.data())
@settings(deadline=None)
def test_any_flipped_bit_changes_the_digest(
    tensor: tuple[str, np.ndarray[Any, Any]], data: st.DataObject
) -> None:
    _, array = tensor
    if array.size == 0 or array.dtype.kind == "b":
        return
    flat = np.ascontiguousarray(array).reshape(array.shape).copy()
    position = data.draw(st.integers(0, flat.nbytes - 1))
    before = state_digest({"x": array, "y": np.ones(1)}).root
    flat.reshape(-1).view(np.uint8)[position] ^= 1 << data.draw(st.integers(0, 7))
    assert state_digest({"x": flat, "y": np.ones(1)}).root != before


@given(st.text(), st.sampled_from(sorted(CODES)), st.lists(st.integers(0, 2**53 + 1), max_size=4))
@settings(deadline=None)
def test_a_header_is_rfc_8785(name: str, dtype: str, shape: list[int]) -> None:
    fields: Any = {"dtype": dtype, "name": name, "shape": shape, "v": 1}
    try:
        expected = rfc8785.dumps(fields)
    except rfc8785.CanonicalizationError:
        with pytest.raises(InputError, match="tensor "):
            tensor_header(name, dtype, tuple(shape))
        return
    assert tensor_header(name, dtype, tuple(shape)) == struct.pack("<I", len(expected)) + expected


def naive_blake3(name: str, dtype: str, shape: tuple[int, ...], elements: bytes) -> bytes:
    header = json.dumps({"dtype": dtype, "name": name, "shape": list(shape), "v": 1})
    text = header.replace(" ", "").encode()
    return blake3(struct.pack("<I", len(text)) + text + elements).digest()


INTEGERS = {torch.bfloat16: torch.int16, torch.float8_e5m2: torch.uint8, torch.int32: torch.int32}
WIDE = {torch.bfloat16: "BF16", torch.float8_e5m2: "F8_E5M2", torch.int32: "I32"}
# Around the sizes where the way changes: joined to the header (16 KiB), several threads (1 MiB),
# more than one piece (4 MiB).
sizes = st.one_of(
    st.integers(0, 300), st.integers(8180, 8200), st.integers((1 << 19) - 99, (1 << 19) + 99),
    st.just((1 << 21) + 77),
)  # fmt: skip


@pytest.mark.slow
@given(st.lists(st.tuples(sizes, st.sampled_from(sorted(WIDE, key=str)), st.integers(0, 4)),
                min_size=1, max_size=6), st.integers(0, 99))  # fmt: skip
@settings(deadline=None, max_examples=40)
def test_torch_states_of_all_sizes_are_the_naive_tree(
    tensors: list[tuple[int, torch.dtype, int]], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    state, expected = {}, {}
    for index, (size, dtype, layout) in enumerate(tensors):
        width = dtype.itemsize
        shape = (size, 2) if layout else (2 * size,)
        flat = torch.randint(0, 256, (2 * size * width,), dtype=torch.uint8, generator=generator)
        tensor = flat.view(dtype).view(shape)
        if layout == 1:
            tensor = torch.nn.Parameter(tensor, requires_grad=dtype.is_floating_point)
        elif layout == 2:
            tensor = tensor.t()
        elif layout == 3:
            tensor = tensor[:, 1]
        elif layout == 4:
            tensor = tensor[::3]
        elements = tensor.detach().view(INTEGERS[dtype]).contiguous().numpy().tobytes()
        name = f"t{index}"
        state[name] = tensor
        expected[name] = naive_blake3(name, WIDE[dtype], tuple(tensor.shape), elements)
    digest = state_digest(state)
    assert {tensor.name: tensor.digest.value for tensor in digest.tensors} == expected
    assert digest.root == naive_mth([expected[name] for name in sorted(expected)])


@given(st.lists(tensors(), min_size=1, max_size=3), st.integers(2, 5))
@settings(deadline=None)
def test_pieces_and_tiles_of_any_size_are_the_elements(samples: list[Any], tile: int) -> None:
    """With arenas of 64 bytes and tiles of a few elements, several at a time."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("COPY_BYTES", 64), ("_TILE", tile), ("_TILE_BYTES", 16)):
            patch.setattr(row_major, name, value)
        patch.setattr(row_major, "_ARENA", threading.local())
        read: dict[int, bytes] = {}
        for pieces in zip_longest(*(row_major.row_major(array) for _, array in samples)):
            for index, piece in enumerate(pieces):
                read[index] = read.get(index, b"") + bytes(piece or b"")
    for index, (_, array) in enumerate(samples):
        expected = array.astype(array.dtype.newbyteorder("<")).tobytes()
        assert read.get(index, b"") == expected


columns = st.one_of(
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)).map(lambda v: pa.array(v, pa.int64())),
    st.lists(st.none() | st.booleans()).map(lambda v: pa.array(v, pa.bool_())),
    st.lists(st.none() | st.text(st.characters(codec="utf-8"), max_size=5)).map(
        lambda v: pa.array(v, pa.string())
    ),
    st.lists(st.none() | st.binary(max_size=5)).map(lambda v: pa.array(v, pa.binary())),
    st.lists(st.none() | st.floats(allow_nan=False)).map(lambda v: pa.array(v, pa.float64())),
    st.lists(st.none() | st.dates()).map(lambda v: pa.array(v, pa.date32())),
)
PANDAS = {pa.int64(): "Int64", pa.bool_(): "boolean", pa.string(): "string[python]"}


@pytest.mark.slow
@given(columns, st.integers(0, 9))
@settings(deadline=None)
def test_pandas_is_arrow(column: pa.Array, cut: int) -> None:
    if len(column) == 0:
        return
    cut = min(cut, len(column))
    expected = dataset_digest(pa.table({"c": column}))
    pieces = pa.chunked_array([column.slice(0, cut), column.slice(cut)])
    assert dataset_digest(pa.table({"c": pieces})) == expected
    if column.null_count == len(column) and column.type not in PANDAS:
        return  # Python objects that are all missing have no type
    kind: Any = PANDAS.get(column.type, "float64" if pa.types.is_floating(column.type) else object)
    frame = pd.DataFrame({"c": pd.array(column.to_pylist(), dtype=kind)})
    assert dataset_digest(frame) == expected


nested_types = st.recursive(
    st.sampled_from([pa.int16(), pa.string(), pa.bool_(), pa.decimal128(9, 2), pa.date32()]),
    lambda inner: st.one_of(
        inner.map(pa.list_),
        st.lists(inner, min_size=1, max_size=2).map(
            lambda kinds: pa.struct([(f"f{at}", kind) for at, kind in enumerate(kinds)])
        ),
    ),
    max_leaves=3,
)


def cells_of(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Values of an Arrow type, missing ones too."""
    if pa.types.is_list(kind):
        return st.none() | st.lists(cells_of(kind.value_type), max_size=3)
    if pa.types.is_struct(kind):
        return st.none() | st.fixed_dictionaries(
            {kind.field(at).name: cells_of(kind.field(at).type) for at in range(kind.num_fields)}
        )
    if pa.types.is_decimal(kind):
        return st.none() | st.decimals(-999, 999, places=2)
    return (
        st.none()
        | {
            pa.int16(): st.integers(-(2**15), 2**15 - 1),
            pa.string(): st.text(st.characters(codec="utf-8"), max_size=3),
            pa.bool_(): st.booleans(),
            pa.date32(): st.dates(),
        }[kind]
    )


@given(st.data())
@settings(deadline=None)
def test_nested_columns_have_one_digest_in_every_layout(data: st.DataObject) -> None:
    kind = data.draw(nested_types)
    rows = data.draw(st.lists(cells_of(kind), min_size=1, max_size=5))
    column = pa.array(rows, kind)
    expected = dataset_digest(pa.table({"c": column}))
    cut = data.draw(st.integers(0, len(rows)))
    padded = pa.array([rows[-1], *rows, rows[0]], kind).slice(1, len(rows))
    for same in (padded, pa.chunked_array([padded.slice(0, cut), column.slice(cut)])):
        assert dataset_digest(pa.table({"c": same})) == expected
    frame = framework("polars", "integrations").from_arrow(pa.table({"c": column}))
    assert dataset_digest(frame).root == expected.root
    at = data.draw(st.integers(0, len(rows) - 1))
    other = data.draw(cells_of(kind))
    changed = dataset_digest(pa.table({"c": pa.array([*rows[:at], other, *rows[at + 1 :]], kind)}))
    assert (changed.root == expected.root) == (
        pa.array([other], kind) == pa.array([rows[at]], kind)
    )


@given(st.data())
@settings(deadline=None)
def test_a_sparse_matrix_has_one_digest_in_every_format(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    place = st.tuples(st.integers(0, rows - 1), st.integers(0, columns - 1), st.integers(-3, 3))
    drawn = data.draw(st.lists(place, max_size=8))
    across, down, values = [[entry[at] for entry in drawn] for at in range(3)]
    matrix = sparse.coo_matrix((np.array(values, "i8"), (across, down)), (rows, columns))
    dense = matrix.toarray()
    expected = dataset_digest(matrix)
    for form in ("csr", "csc", "lil", "dok"):
        assert dataset_digest(matrix.asformat(form)) == expected
    assert dataset_digest(sparse.csc_array(dense)) == expected
    dense[across[0] if drawn else 0, 0] += 1
    assert dataset_digest(sparse.csr_matrix(dense)).root != expected.root


texts = st.text(st.characters(codec="utf-8"), max_size=3)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | texts
    | st.floats(allow_nan=False) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def typed(value: Any) -> Any:
    """A form in which values that differ in type or sign of zero differ, and key order does not."""
    if isinstance(value, dict):
        return ("dict", tuple(sorted((key, typed(item)) for key, item in value.items())))
    if isinstance(value, list):
        return ("list", tuple(typed(item) for item in value))
    return (type(value).__name__, repr(value))


@given(json_values, json_values)
@settings(deadline=None)
def test_elements_have_the_same_digest_only_when_equal(a: Any, b: Any) -> None:
    same = dataset_digest([a]).root == dataset_digest([b]).root
    assert same == (typed(a) == typed(b))
    assert dataset_digest([a, b]).root == dataset_digest((a, b)).root
