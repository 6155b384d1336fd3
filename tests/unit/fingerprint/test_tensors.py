"""Tensor and state digests against vectors worked out by hand, and across frameworks.

Over 400 lines: case by case, one file: `provenance/fingerprint/tensors.py`.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import save_file

from provenance.capture.weights.live_weights import live_weights
from provenance.capture.weights.snapshot import copy_of
from provenance.errors import (
    FormatError,
    InputError,
    MissingExtraError,
    TooLargeError,
    TrailingBytesError,
    TruncatedError,
)
from provenance.fingerprint.hashers import DIGEST_SIZES, HashFactory
from provenance.fingerprint.row_major import COPY_BYTES, row_major
from provenance.fingerprint.tensors import state_digest, state_digest_file, tensor_digest
from provenance.formats import merkle
from tests.support import paths
from tests.support.frameworks import framework

VECTORS = json.loads((paths.VECTORS / "tensors.json").read_text())
SHA = HashFactory("sha256")

TORCH_DTYPES = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "F16": torch.float16,
    "F8_E4M3": torch.float8_e4m3fn,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}


def vector_state() -> dict[str, torch.Tensor]:
    """The tensors of the vector file, in an order that is not the sorted one."""
    state = {}
    for vector in reversed(VECTORS["tensors"]):
        dtype = TORCH_DTYPES[vector["dtype"]]
        data = bytearray.fromhex(vector["data"])
        flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        state[vector["name"]] = flat.reshape(vector["shape"])
    return state


def by_hand(header: str, data: bytes) -> str:
    """SHA-256 of the message as the format describes it, without the code under test."""
    text = header.encode()
    return hashlib.sha256(struct.pack("<I", len(text)) + text + data).hexdigest()


# --- vectors -----------------------------------------------------------------------------


def test_a_tensor_worked_out_by_hand() -> None:
    values = np.array([[0, 1, 2], [3, 4, -0.5]], dtype=np.float32)
    expected = by_hand(
        '{"dtype":"F32","name":"w","shape":[2,3],"v":1}',
        bytes.fromhex("000000000000803f0000004000004040000080400000 00bf".replace(" ", "")),
    )
    assert tensor_digest("w", values, SHA).digest.value.hex() == expected


def test_a_state_worked_out_by_hand() -> None:
    a = bytes.fromhex(by_hand('{"dtype":"U8","name":"a","shape":[],"v":1}', b"\x05"))
    b = bytes.fromhex(by_hand('{"dtype":"I16","name":"b","shape":[1],"v":1}', b"\xfe\xff"))
    leaves = [hashlib.sha256(b"\x00" + leaf).digest() for leaf in (a, b)]
    root = hashlib.sha256(b"\x01" + leaves[0] + leaves[1]).digest()
    state = {"b": np.array([-2], dtype=np.int16), "a": np.array(5, dtype=np.uint8)}
    digest = state_digest(state, SHA)
    assert digest.root == root
    assert digest.as_fields() == {
        "covers": {"adapter": "mapping", "of": ["arrays"]},
        "algorithm": "sha256",
        "root": f"mth-sha256:{root.hex()}",
        "tensor_count": 2,
        "parameter_count": 2,
        "buffer_count": 0,
        "bytes": 3,
        "tensors": [
            {"name": "a", "dtype": "U8", "shape": [], "digest": f"sha256:{a.hex()}"},
            {"name": "b", "dtype": "I16", "shape": [1], "digest": f"sha256:{b.hex()}"},
        ],
    }


def test_the_vector_file_is_what_it_says() -> None:
    for vector in VECTORS["tensors"]:
        expected = by_hand(vector["header"], bytes.fromhex(vector["data"]))
        assert vector["digests"]["sha256"] == expected


@pytest.mark.parametrize("algorithm", DIGEST_SIZES)
def test_vectors(algorithm: str) -> None:
    digest = state_digest(vector_state(), HashFactory(algorithm))
    assert [tensor.name for tensor in digest.tensors] == [v["name"] for v in VECTORS["tensors"]]
    for tensor, vector in zip(digest.tensors, VECTORS["tensors"], strict=True):
        assert tensor.digest.value.hex() == vector["digests"][algorithm], tensor.name
    assert digest.root.hex() == VECTORS["roots"][algorithm]


def test_one_tensor_can_be_proven_alone() -> None:
    digest = state_digest(vector_state())
    leaves = [tensor.value for tensor in digest.tensors]
    proof = merkle.MerkleTree(leaves).inclusion_proof(2)
    merkle.verify_inclusion(leaves[2], 2, len(leaves), proof, digest.root)


# --- one state, many frameworks ----------------------------------------------------------

NUMPY_STATE: dict[str, Any] = {
    "f64": np.linspace(-1, 1, 12).reshape(3, 4),
    "f32": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "f16": np.array([1.5, -2.25, np.inf, np.nan], dtype=np.float16),
    "i64": np.array([-(2**63), 2**63 - 1]),
    "i32": np.array([[-1]], dtype=np.int32),
    "i16": np.array([7], dtype=np.int16),
    "i8": np.array([-128, 127], dtype=np.int8),
    "u8": np.array([0, 255], dtype=np.uint8),
    "u16": np.array([65535], dtype=np.uint16),
    "u32": np.array([2**32 - 1], dtype=np.uint32),
    "u64": np.array([2**64 - 1], dtype=np.uint64),
    "bool": np.array([True, False, True]),
    "c64": np.array([1 + 2j], dtype=np.complex64),
    "scalar": np.array(3.5, dtype=np.float32),
    "empty": np.zeros((0, 3), dtype=np.float32),
}


def test_torch_numpy_and_files_agree(tmp_path: Path) -> None:
    expected = state_digest(NUMPY_STATE)
    from_torch = {name: torch.from_numpy(value) for name, value in NUMPY_STATE.items()}
    assert state_digest(from_torch) == expected
    save_file(from_torch, tmp_path / "torch.safetensors", metadata={"format": "pt"})
    assert state_digest(tmp_path / "torch.safetensors") == expected
    np.savez(tmp_path / "plain.npz", **NUMPY_STATE)
    assert state_digest(tmp_path / "plain.npz") == expected
    np.savez_compressed(tmp_path / "small.npz", **NUMPY_STATE)
    assert state_digest(str(tmp_path / "small.npz")) == expected
    no_u16 = {name: value for name, value in NUMPY_STATE.items() if name != "c64"}
    save_numpy(no_u16, tmp_path / "numpy.safetensors")
    assert state_digest(tmp_path / "numpy.safetensors") == state_digest(no_u16)


def test_bf16_and_fp8_agree_between_torch_and_safetensors(tmp_path: Path) -> None:
    bits = torch.arange(256, dtype=torch.uint8)
    state = {
        "bf16": torch.arange(-4, 4, dtype=torch.float32).to(torch.bfloat16).reshape(2, 4),
        "e4m3": bits.clone().view(torch.float8_e4m3fn),
        "e5m2": bits.clone().view(torch.float8_e5m2),
        "e8m0": bits.clone().view(torch.float8_e8m0fnu),
        "e4m3z": bits.clone().view(torch.float8_e4m3fnuz),
        "e5m2z": bits.clone().view(torch.float8_e5m2fnuz),
    }
    save_file(state, tmp_path / "m.safetensors")
    digest = state_digest(state, SHA)
    assert state_digest_file(tmp_path / "m.safetensors", SHA) == digest
    header = '{"dtype":"BF16","name":"bf16","shape":[2,4],"v":1}'
    data = struct.pack("<8H", 0xC080, 0xC040, 0xC000, 0xBF80, 0x0000, 0x3F80, 0x4000, 0x4040)
    assert digest.tensors[0].digest.value.hex() == by_hand(header, data)
    e4m3 = '{"dtype":"F8_E4M3","name":"e4m3","shape":[256],"v":1}'
    assert digest.tensors[1].digest.value.hex() == by_hand(e4m3, bytes(range(256)))


def test_module_equals_its_state_dict_and_its_file(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    expected = state_digest(model.state_dict())
    assert state_digest(model) == expected
    assert {tensor.name for tensor in expected.tensors} >= {"0.weight", "1.running_mean"}
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    assert state_digest(tmp_path / "m.safetensors") == expected
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] += 1
    assert state_digest(model).root != expected.root


def test_tied_weights_count_once() -> None:
    shared = torch.ones(2, 2)
    digest = state_digest({"out": shared, "in": shared, "late": shared})
    assert [tensor.name for tensor in digest.tensors] == ["in"]
    assert digest == state_digest({"in": shared.clone()})
    assert digest.aliases == {"in": ("late", "out")}
    assert digest.as_fields()["tensors"][0]["aliases"] == ["late", "out"]
    assert (digest.parameter_count, digest.nbytes) == (4, 16)


def test_a_known_digest_takes_the_place_of_a_tensor() -> None:
    whole = state_digest({"a": np.ones(2), "b": np.zeros(3), "c": np.ones(1)})
    known = {tensor.name: tensor for tensor in whole.tensors if tensor.name != "b"}
    assert state_digest({"b": np.zeros(3)}, known=known) == whole
    assert state_digest({"a": object(), "b": np.zeros(3)}, known=known) == whole  # not read
    assert state_digest({}, known={tensor.name: tensor for tensor in whole.tensors}) == whole
    with pytest.raises(InputError, match="no tensors"):
        state_digest({}, known={})


def test_tied_weights_are_those_of_one_memory() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    with torch.no_grad():
        model[1].weight.copy_(model[0].weight)
    equal = state_digest(model)
    assert (equal.aliases, len(equal.tensors)) == ({}, 4)
    assert not any("aliases" in tensor for tensor in equal.as_fields()["tensors"])
    model[1].weight = model[0].weight
    tied = state_digest(model)
    assert tied.aliases == {"0.weight": ("1.weight",)}
    assert tied == state_digest(model.state_dict())
    copies = {name: value.clone() for name, value in model.state_dict().items()}
    assert state_digest(copies).root == equal.root != tied.root
    array = np.ones((2, 3))
    found = state_digest({"a": array, "b": array.copy(), "c": array})
    assert found.aliases == {"a": ("c",)}


def test_a_conjugate_is_not_tied_to_what_it_is_of() -> None:
    torch = framework("torch")
    value = torch.tensor([1 + 2j])
    assert value.conj().data_ptr() == value.data_ptr()
    found = state_digest({"a": value, "b": value.conj()})
    assert found == state_digest({"a": value, "b": value.conj().resolve_conj()})
    assert len(found.tensors) == 2
    assert len(state_digest({"a": value.imag, "b": value.conj().imag}).tensors) == 2


def test_what_has_no_data_of_its_own_is_refused() -> None:
    torch = framework("torch")
    for value, found in (
        (torch._to_functional_tensor(torch.ones(2)), "a transform's tensor"),
        (torch.ones(2, device="meta"), "device meta"),
    ):
        with pytest.raises(InputError, match=f"'w': found {found}"):
            state_digest({"w": value})


def test_a_parameter_that_zero_3_has_elsewhere_is_refused_on_every_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As DeepSpeed 0.19 leaves it; a copy of it in a state_dict() has no mark."""
    torch = framework("torch")
    monkeypatch.setitem(sys.modules, "deepspeed", ModuleType("deepspeed"))
    model = torch.nn.Linear(2, 2)
    model.register_buffer("seen", torch.empty(0))
    assert len(state_digest(model).tensors) == 3
    model.weight.data = torch.empty(0)
    model.weight.ds_shape = torch.Size([2, 2])
    parted: dict[str, Any] = {"weight": model.weight.detach(), "bias": model.bias}
    for take, state in (
        (state_digest, model),
        (copy_of, model),
        (live_weights, model),
        (copy_of, parted),
    ):
        with pytest.raises(InputError, match="'weight': found a part of DeepSpeed's ZeRO-3"):
            take(state)


def test_other_views_of_the_same_memory_are_not_tied() -> None:
    square = torch.arange(9.0).reshape(3, 3)
    views = {"a": square, "b": square.T, "c": square[0], "d": square.view(torch.int32)}
    empty = {name: torch.empty(0) for name in "xyz"}
    assert state_digest(views | empty).aliases == {}


class Duck:
    """An array of another framework, by one of the protocols."""

    def __init__(self, values: Any, protocol: str) -> None:
        self.values = values
        self.dtype, self.shape = values.dtype, values.shape
        setattr(type(self), protocol, lambda self, *a, **k: getattr(self.values, protocol)(*a, **k))
        if protocol == "__dlpack__":
            device = "__dlpack_device__"
            setattr(type(self), device, lambda self: getattr(self.values, device)())


@pytest.mark.parametrize("protocol", ["__array__", "__dlpack__"])
def test_arrays_of_other_frameworks_by_protocol(protocol: str) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    kind = type("Foreign", (Duck,), {})
    assert tensor_digest("x", kind(values, protocol)) == tensor_digest("x", values)


def test_a_foreign_array_that_fails_is_named() -> None:
    class Broken:
        dtype, shape = "float32", (1,)

        def __array__(self, *_: object, **__: object) -> Any:
            raise RuntimeError("deleted buffer")

    with pytest.raises(InputError, match=r"tensor 'x'.*Broken.*deleted buffer"):
        tensor_digest("x", Broken())


def test_nested_parameters_are_named_by_path() -> None:
    flat = {"a.b": np.ones(2), "a.c.0": np.zeros(1), "a.c.1": np.ones(1)}
    nested = {"a": {"b": np.ones(2), "c": [np.zeros(1), np.ones(1)]}}
    assert state_digest(nested) == state_digest(flat)
    assert state_digest([np.ones(2)]) == state_digest({"0": np.ones(2)})
    assert state_digest(np.ones(2)) == state_digest({"": np.ones(2)})


# --- memory layout -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda a: np.asfortranarray(a),
        lambda a: a.astype(a.dtype.newbyteorder(">")),
        lambda a: np.asfortranarray(a.astype(a.dtype.newbyteorder(">"))),
        lambda a: np.repeat(a, 2, axis=1)[:, ::2],
        lambda a: a[::-1].copy()[::-1],
        lambda a: a.T.copy().T,
        lambda a: np.array(a, subok=True).view(np.matrix),
    ],
    ids=["fortran", "big-endian", "big-fortran", "strided", "negative", "transposed", "matrix"],
)
@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i8", "u2", "u1", "?", "c8", "c16"])
def test_layout_does_not_count(make: Any, dtype: str) -> None:
    plain = np.arange(12).reshape(3, 4).astype(dtype)
    variant = make(plain)
    assert np.array_equal(np.asarray(variant), plain)
    assert tensor_digest("x", variant) == tensor_digest("x", plain)


def test_torch_views_conjugates_and_gradients() -> None:
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6).requires_grad_()
    assert tensor_digest("x", base.t()) == tensor_digest("x", base.detach().numpy().T.copy())
    assert tensor_digest("x", base[1:, ::2]) == tensor_digest(
        "x", base.detach().numpy()[1:, ::2].copy()
    )
    half = base.detach().to(torch.bfloat16)
    assert tensor_digest("x", half.t()) == tensor_digest("x", half.t().contiguous())
    z = torch.tensor([1 + 2j, 3 - 1j])
    assert tensor_digest("x", z.conj()) == tensor_digest("x", z.numpy().conj())
    assert tensor_digest("x", z.conj().imag) == tensor_digest("x", -z.numpy().imag)
    assert tensor_digest("x", z.to(torch.complex128)).dtype == "C128"


@pytest.mark.parametrize(
    "shape", [(3 * COPY_BYTES // 4,), (3, 2 * COPY_BYTES), (2, 1, 3, COPY_BYTES)]
)
@pytest.mark.slow
def test_large_non_contiguous_input_is_copied_in_bounded_pieces(shape: tuple[int, ...]) -> None:
    count = int(np.prod(shape))
    plain = (np.arange(count, dtype=np.uint64) % 251).astype(np.uint8).reshape(shape)
    strided = np.repeat(plain, 2, axis=-1)[..., ::2].astype(np.uint16).astype(">u2")
    pieces = [bytes(piece) for piece in row_major(strided)]
    assert max(map(len, pieces)) <= COPY_BYTES
    assert b"".join(pieces) == plain.astype("<u2").tobytes()


@pytest.mark.slow
def test_a_large_transposed_array_is_hashed_while_the_interpreter_ends() -> None:
    """No thread starts then: the copies are made in place."""
    script = (
        "import atexit, numpy as np; from provenance.fingerprint.tensors import state_digest as d;"
        "a = np.arange(3 << 20).reshape(3 << 10, 1 << 10).T;"
        "atexit.register(lambda: print(d({'x': a}) == d({'x': a.copy()})))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_contiguous_memory_is_not_copied() -> None:
    values = np.zeros((4, 4), dtype=np.float32)
    (view,) = row_major(values)
    values[0, 0] = 1
    assert bytes(view[:4]) == struct.pack("<f", 1)
    bf16 = torch.zeros(8, dtype=torch.bfloat16)
    before = tensor_digest("x", bf16)
    bf16[3] = 1
    assert tensor_digest("x", bf16) != before


# --- what counts ---------------------------------------------------------------------------


def test_every_change_shows() -> None:
    base = np.arange(6, dtype=np.int32).reshape(2, 3)
    reference = state_digest({"x": base, "y": (twin := base.copy())}).root
    changed = [
        {"x": base.reshape(3, 2), "y": twin},
        {"x": base.reshape(6), "y": twin},
        {"x": base.reshape(1, 2, 3), "y": twin},
        {"x": base.view(np.uint32), "y": twin},
        {"x": base.view(np.float32), "y": twin},
        {"X": base, "y": twin},
        {"x": base},
        {"x": base, "y": twin, "z": np.zeros(0)},
        {"x": base[::-1], "y": twin},
    ]
    for position in range(base.nbytes):
        other = base.copy()
        other.view(np.uint8).reshape(-1)[position] ^= 1
        changed.append({"x": other, "y": twin})
    roots = [state_digest(state).root for state in changed]
    assert reference not in roots
    assert len(set(roots)) == len(roots)
    assert state_digest({"y": twin, "x": base}).root == reference


def test_swapping_two_tensors_contents_shows() -> None:
    a, b = np.zeros(3), np.ones(3)
    assert state_digest({"x": a, "y": b}).root != state_digest({"x": b, "y": a}).root


def test_more_than_4096_tensors_are_all_listed() -> None:
    digest = state_digest({f"t{i}": np.array(i) for i in range(4100)})
    assert len(digest.as_fields()["tensors"]) == 4100


# --- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (torch.nested.nested_tensor([torch.ones(1)]), "found a nested tensor, expected one"),
        (torch.nn.LazyLinear(2).weight, "found torch.nn.parameter.UninitializedParameter"),
        (torch.empty(2, device="meta"), "device meta"),
        (np.array([object()]), "dtype object, expected one of float64"),
        (np.array(["text"]), "dtype <U4"),
        (np.zeros(1, dtype=[("a", "f4")]), "dtype "),
        (np.array([1], dtype="M8[s]"), "dtype datetime64"),
        (np.ma.masked_array([1.0], mask=[True]), "masked array"),
        (3, "found int, expected an array"),
        ("text", "found str"),
        (None, "found NoneType"),
    ],
)
def test_what_is_no_tensor_is_named(value: object, problem: str) -> None:
    with pytest.raises(
        InputError, match=f"^tensor 'layer.w': found .*{problem.split()[-1]}"
    ) as got:
        state_digest({"layer": {"w": value}})
    assert problem in str(got.value)


def test_a_gathered_tensor_is_asked_for() -> None:
    kind = type("DTensor", (torch.Tensor,), {"__module__": "torch.distributed.tensor"})
    with pytest.raises(InputError, match="gather it first"):
        tensor_digest("x", torch.ones(2).as_subclass(kind))


class StateOfNone:
    def state_dict(self) -> None: ...


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ({}, "dict has no tensors"),
        (torch.nn.ReLU(), "ReLU has no tensors"),
        (object(), "found object, expected a mapping"),
        (StateOfNone(), r"StateOfNone\.state_dict\(\) gives NoneType, expected a mapping"),
        (None, "found NoneType"),
        ({"a.b": np.ones(1), "a": {"b": np.ones(1)}}, "two tensors have the name 'a.b'"),
        ({None: np.ones(1)}, "has a key None"),
        ({"\ud800": np.ones(1)}, "a name that is not Unicode"),
    ],
)
def test_models_that_cannot_be_recorded(model: object, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        state_digest(model)


def test_nesting_is_bounded() -> None:
    model: Any = np.ones(1)
    for _ in range(40):
        model = {"a": model}
    with pytest.raises(InputError, match="nested deeper than 32"):
        state_digest(model)


def test_numpy_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(MissingExtraError, match="pip install"):
        tensor_digest("x", torch.ones(1 << 14))


def test_safetensors_needs_no_framework(tmp_path: Path) -> None:
    save_file({"a": torch.ones(3, dtype=torch.bfloat16)}, tmp_path / "m.safetensors")
    expected = str(state_digest(tmp_path / "m.safetensors"))
    code = (
        "import sys; from provenance.fingerprint.tensors import state_digest;"
        "print(state_digest(sys.argv[1]));"
        "print(sorted({'numpy','torch','pandas','pyarrow','safetensors'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "m.safetensors")]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    assert out[:2] == [expected, "[]"]


# --- files -----------------------------------------------------------------------------------


def safetensors_bytes(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: object = "U8", shape: object = (2,), offsets: object = (0, 2)) -> dict[str, Any]:
    listed = [list(v) if isinstance(v, tuple) else v for v in (shape, offsets)]
    return {"dtype": dtype, "shape": listed[0], "data_offsets": listed[1]}


def test_a_safetensors_file_worked_out_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    header = {
        "__metadata__": {"k": "v"},
        "b": entry(shape=(1,), offsets=(2, 3)),
        "a": entry(),
        "none": entry(shape=(0,), offsets=(2, 2)),
    }
    path.write_bytes(safetensors_bytes(header, b"\x01\x02\x03"))
    digest = state_digest_file(path, SHA)
    assert [tensor.name for tensor in digest.tensors] == ["a", "b", "none"]
    a = by_hand('{"dtype":"U8","name":"a","shape":[2],"v":1}', b"\x01\x02")
    assert digest.tensors[0].digest.value.hex() == a
    del header["__metadata__"]
    path.write_bytes(safetensors_bytes(header, b"\x01\x02\x03"))
    assert state_digest_file(path, SHA) == digest
    path.write_bytes(safetensors_bytes(header, b"\x01\x02\x04"))
    assert state_digest_file(path, SHA).root != digest.root


@pytest.mark.parametrize(
    ("content", "error", "problem"),
    [
        (b"", TruncatedError, "0 bytes, expected at least 8"),
        (b"\x01\x00", TruncatedError, "2 bytes"),
        (struct.pack("<Q", 1 << 40), TooLargeError, "header of 1099511627776 bytes"),
        (struct.pack("<Q", 10) + b"{}", TruncatedError, "header of 10 bytes in a file of 10"),
        (safetensors_bytes(b"{"), FormatError, "no JSON object"),
        (safetensors_bytes(b"\xff"), FormatError, "no JSON object"),
        (safetensors_bytes(b"[" * 100_000), FormatError, "no JSON object"),
        (safetensors_bytes([]), FormatError, "header is list"),
        (safetensors_bytes(b'{"a":1,"a":1}'), FormatError, "key 'a' stands twice"),
        (safetensors_bytes({"a": 1}), FormatError, "exactly dtype, shape and data_offsets"),
        (safetensors_bytes({"a": {}}), FormatError, "exactly dtype"),
        (safetensors_bytes({"a": entry("F4")}, b"ab"), FormatError, "found dtype 'F4'"),
        (safetensors_bytes({"a": entry(7)}, b"ab"), FormatError, "found dtype 7"),
        (safetensors_bytes({"a": entry(shape=2)}, b"ab"), FormatError, "shape: found int"),
        (safetensors_bytes({"a": entry(shape=(-2,))}, b"ab"), FormatError, "found -2"),
        (safetensors_bytes({"a": entry(shape=(True,))}, b"ab"), FormatError, "found True"),
        (safetensors_bytes({"a": entry(shape=(2.0,))}, b"ab"), FormatError, "found 2.0"),
        (safetensors_bytes({"a": entry(offsets=(0, 1, 2))}, b"ab"), FormatError, "has 3 numbers"),
        (safetensors_bytes({"a": entry(offsets=(1, 3))}, b"abc"), FormatError, "begins at 1"),
        (safetensors_bytes({"a": entry(offsets=(0, 3))}, b"abc"), FormatError, "ends at 3, exp"),
        (safetensors_bytes({"a": entry(shape=(2**52,))}, b"ab"), FormatError, "ends at 2, exp"),
        (safetensors_bytes({"a": entry()}, b"a"), TruncatedError, "ends at 2, data at 1"),
        (safetensors_bytes({"a": entry()}, b"abc"), TrailingBytesError, "1 bytes after"),
        (safetensors_bytes({"a": entry(), "b": entry()}, b"ab"), FormatError, "begins at 0, exp"),
        (safetensors_bytes({}), InputError, "no tensors"),
    ],
)
def test_safetensors_decoder_names_what_is_wrong(
    content: bytes, error: type[Exception], problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(error, match=problem) as caught:
        state_digest(path)
    assert "bad.safetensors" in str(caught.value)


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_missing_model_file(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"none\.{suffix}'.*No such file"):
        state_digest(tmp_path / f"none.{suffix}")


def test_other_model_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"m\.pt: no such file or folder"):
        state_digest(tmp_path / "m.pt")
    (tmp_path / "m.doc").touch()
    with pytest.raises(InputError, match=r"m\.doc: expected a name in \.safetensors, \.pt"):
        state_digest(tmp_path / "m.doc")
    (tmp_path / "m.joblib").touch()
    with pytest.raises(InputError, match=r"m\.joblib: a pickle runs code .* expected a name in"):
        state_digest(tmp_path / "m.joblib")


def npz_with(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not a zip file"),
        (npz_with({"a.txt": b"x"}), "found 'a.txt'"),
        (npz_with({"a.npy": b"x"}), "npz file"),
        (npz_with({"a.npy": b"\x93NUMPY\x01\x00"}), "npz file"),
    ],
)
def test_npz_decoder_names_what_is_wrong(content: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=problem):
        state_digest(path)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_npz_with_objects_corruption_or_an_array_twice(tmp_path: Path) -> None:
    path = tmp_path / "o.npz"
    np.savez(path, o=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="o.npz': 'o.npy': found dtype object"):
        state_digest(path)
    np.savez(path, a=np.arange(100))
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    path.write_bytes(content)
    with pytest.raises(FormatError, match="CRC"):
        state_digest(path)
    buffer = io.BytesIO()
    np.save(buffer, np.ones(1))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", buffer.getvalue())
        archive.writestr("a.npy", buffer.getvalue())
    with pytest.raises(FormatError, match="'a' is there twice"):
        state_digest(path)
