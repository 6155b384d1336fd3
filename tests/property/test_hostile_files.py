"""Files that were changed anywhere are read, or refused by an error of this project in one line.

The seed is printed; ``PROVENANCE_MUTATION_SEED`` sets it.
"""

from __future__ import annotations

import io
import json
import os
import random
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from provenance.bundle.reader import read_bundle
from provenance.bundle.writer import bundle_files, write_files
from provenance.errors import FormatError, InputError, ProvenanceError
from provenance.fingerprint.hashers import HashFactory
from provenance.fingerprint.model_files import INDEX, read_model
from provenance.fingerprint.tensors import state_digest_file
from tests.support.frameworks import framework
from tests.support.verify_world import finished

SEED = int(os.environ.get("PROVENANCE_MUTATION_SEED", "0")) or random.SystemRandom().getrandbits(32)
MUTATIONS = 400
FEW_BYTES = 8 * 1024**2
EXTREMES = (b"\x00", b"\xff", b"\x00" * 8, b"\xff" * 8, b"\xff" * 4, b"[" * 200, b'"', b"9" * 30)


def safetensors(**tensors: tuple[str, list[int], bytes]) -> bytes:
    header, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        end = len(data) + len(content)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), end]}
        data += content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def npz(save: Callable[..., None] = np.savez_compressed) -> bytes:
    buffer = io.BytesIO()
    square = np.arange(12.0).reshape(3, 4)
    save(buffer, a=square, b=np.asfortranarray(square), c=square.astype(">i4"), d=np.float16(1))
    return buffer.getvalue()


def read_state(path: Path) -> object:
    return state_digest_file(path, HashFactory("sha256"))


def read_folder(path: Path) -> object:
    return read_model(path.parent).digests(HashFactory("sha256"))


FILES = bundle_files(finished(1).evidence())
TENSORS = safetensors(a=("F32", [2, 3], b"x" * 24), b=("BF16", [], b"yy"), c=("U8", [0, 5], b""))
SHARDS = {"weight_map": {"a": "one.safetensors", "b": "one.safetensors"}}


def zipped(tmp_path: Path) -> bytes:
    return write_files(FILES, tmp_path / "b.zip").read_bytes()


def keras_file(name: str, fill: Callable[[Any], object], method: int = zipfile.ZIP_STORED) -> None:
    h5py = framework("h5py", "keras")
    weights = name if name.endswith(".h5") else f"{name}.weights.h5"
    with h5py.File(weights, "w") as file:
        fill(file)
    if weights != name:
        with zipfile.ZipFile(name, "w", method) as archive:
            archive.write(weights, "model.weights.h5")


def keras(tmp_path: Path) -> bytes:
    def fill(file: Any) -> None:
        file.create_dataset("a/vars/0", data=np.ones((2, 3)))
        file.create_dataset("b/vars/0", data=np.ones(3, "u2")).attrs["dtype"] = "bfloat16"

    keras_file(str(tmp_path / "k.keras"), fill)
    return (tmp_path / "k.keras").read_bytes()


def torch_file(tmp_path: Path) -> bytes:
    torch = framework("torch")
    state = {"a": torch.ones(3, 4), "b": torch.eye(3).to_sparse(), "c": torch.ones(4, 4).t()}
    torch.save(state, tmp_path / "t.pt")
    return (tmp_path / "t.pt").read_bytes()


KINDS: dict[str, tuple[str, Callable[[Path], bytes], Callable[[Path], object]]] = {
    "safetensors": ("m.safetensors", lambda _: TENSORS, read_state),
    "npz": ("m.npz", lambda _: npz(), read_state),
    "npz, stored": ("m.npz", lambda _: npz(np.savez), read_state),
    "keras": ("m.keras", keras, read_state),
    "torch": ("m.pt", torch_file, read_state),
    "index": (f"m/{INDEX}", lambda _: json.dumps(SHARDS).encode(), read_folder),
    "zip": ("b.zip", zipped, read_bundle),
    "run.json": ("b/run.json", lambda _: FILES["run.json"], lambda path: read_bundle(path.parent)),
}


@contextmanager
def few_bytes(most: int = FEW_BYTES) -> Iterator[None]:
    """What is allocated meanwhile stays below."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def mutated(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 3))):
        at = chance.randrange(len(changed) + 1)
        end = min(len(changed), at + chance.choice((0, 1, 1, 4, 40)))
        changed[at:end] = chance.choice(
            (
                b"",
                bytes(x ^ 1 << chance.randrange(8) for x in changed[at:end]),
                chance.choice(EXTREMES),
            )
        )
    return bytes(changed)


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_changed_anywhere_ends_in_one_line(kind: str, tmp_path: Path) -> None:
    print(f"PROVENANCE_MUTATION_SEED={SEED}")
    chance = random.Random(f"{SEED} {kind}")
    name, make, read = KINDS[kind]
    path = tmp_path / name
    write_files(FILES, tmp_path / "b")
    path.parent.mkdir(exist_ok=True)
    (path.parent / "one.safetensors").write_bytes(TENSORS)
    if kind == "run.json":
        (path.parent / "one.safetensors").unlink()
    data = make(tmp_path)
    path.write_bytes(data)
    read(path)
    refused = 0
    for _ in range(MUTATIONS):
        path.write_bytes(mutated(data, chance))
        with few_bytes():
            try:
                read(path)
            except ProvenanceError as error:
                refused += 1
                assert str(error)
                assert "\n" not in str(error)
                assert len(str(error)) < 2000
    assert refused > MUTATIONS // 3


def member(header: bytes, data: bytes = b"", *, packed: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packed) as archive:
        start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header))
        archive.writestr("a.npy", start + header + data)
    return buffer.getvalue()


def npy(descr: str, shape: str, order: str = "False") -> bytes:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()


def one(
    dtype: object = "U8", shape: object = (2,), offsets: object = (0, 2), **more: object
) -> bytes:
    header = {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"ab"


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("m.safetensors", one(shape=[2**50, 2**50]), "a shape of 2**53 elements or more"),
        ("m.safetensors", one(shape=[1] * 65), "65 axes, at most 64"),
        ("m.safetensors", one(dtype="x" * 10_000), "found dtype 'xxx"),
        ("m.safetensors", struct.pack("<Q", 2**63) + b"{}", "at most 100000000"),
        ("m.safetensors", struct.pack("<Q", 90_000_000) + b"{}", "in a file of 10 bytes"),
        ("m.npz", member(npy("'|O'", "(1,)"), b"cos\nsystem\n."), "'a.npy': found dtype object"),
        ("m.npz", member(npy("'<f4'", "(4503599627370495,)")), "its shape needs 18014398509481980"),
        ("m.npz", member(npy("'<f4'", "(9007199254740991, 9007199254740991)")), "a shape of 2**53"),
        ("m.npz", member(npy("'<f4'", "(1,)"), b"12345"), "5 bytes, its shape needs 4"),
        ("m.npz", member(npy("[('a', '<f4')]", "(1,)"), b"1234"), "'a.npy': header"),
        ("m.npz", member(b"-" * 9000), "'a.npy': header"),
        ("m.npz", member(npy("'<f4'", "(0,)"), packed=zipfile.ZIP_LZMA), "packed by method 14"),
        ("m.npz", member(npy("'>f8'", "(2000000,)"), bytes(16_000_000)), "more than 200 times"),
    ],
)  # fmt: skip
def test_headers_are_bounded_by_the_file(name: str, data: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with few_bytes(), pytest.raises((FormatError, InputError)) as caught:
        read_state(path)
    assert name in str(caught.value)
    assert told in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.slow
def test_zeros_packed_a_thousandfold_are_read_piece_by_piece(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "m.npz", a=np.zeros(4_000_000))
    assert (tmp_path / "m.npz").stat().st_size < 40_000
    with few_bytes(2 * FEW_BYTES):
        state = state_digest_file(tmp_path / "m.npz")
    assert state.nbytes == 32_000_000


def zeros(file: Any) -> None:
    file.create_dataset("a/vars/0", (500_000_000,), "f4", chunks=(10**6,), compression="gzip")


def packed_zeros(file: Any) -> None:
    file.create_dataset("a/vars/0", data=np.zeros(10**7), chunks=(10**6,), compression="gzip")


def one_text_a_million_times(file: Any) -> None:
    import h5py  # type: ignore[import-untyped, unused-ignore]

    file.create_dataset("a", data=["x" * 1000] * 1000, dtype=h5py.string_dtype())


def groups_in_groups(file: Any) -> None:
    h5py = framework("h5py", "keras")
    group = file.id
    for _ in range(20_000):
        group = h5py.h5g.create(group, b"a")


LIMITED = """
import resource, sys
import h5py, numpy
from provenance.errors import ProvenanceError
from provenance.fingerprint.hashers import HashFactory
from provenance.fingerprint.tensors import state_digest_file
with open("/proc/self/statm") as file:
    most = int(file.read().split()[0]) * resource.getpagesize() + (300 << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
for path in sys.argv[1:]:
    try:
        state_digest_file(path, HashFactory("sha256"))
    except ProvenanceError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_small_file_takes_no_large_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = {
        "twice.keras": "'model.weights.h5': packed by method 8",
        "stored.keras": "'a/vars/0': found more bytes than the file has",
        "filled.h5": "'a/vars/0': found more bytes than the file has",
        "packed.h5": "'a/vars/0': found more bytes than the file has",
        "texts.h5": "'a': found dtype object, expected numbers",
        "deep.h5": "is nested deeper than 64 groups",
    }
    keras_file("twice.keras", zeros, zipfile.ZIP_DEFLATED)
    keras_file("stored.keras", zeros)
    keras_file("filled.h5", zeros)
    keras_file("packed.h5", packed_zeros)
    keras_file("texts.h5", one_text_a_million_times)
    keras_file("deep.h5", groups_in_groups)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *told], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(told)
    for (name, problem), line in zip(told.items(), lines, strict=True):
        assert line.startswith(f"keras file {name!r}: ")
        assert problem in line


def test_a_tensor_that_repeats_one_element_without_end_is_refused(tmp_path: Path) -> None:
    torch = framework("torch")
    torch.save({"a": torch.ones(1).expand(2**40)}, tmp_path / "m.pt")
    with pytest.raises(FormatError, match=r"m\.pt: tensors of 4398046511104 bytes in a file of "):
        read_state(tmp_path / "m.pt")


def test_a_member_that_says_more_than_its_bytes_can_be_is_refused(tmp_path: Path) -> None:
    data = bytearray(member(npy("'<f8'", "(500000000,)"), bytes(100)))
    at = data.index(b"PK\1\2") + 24
    data[at : at + 4] = struct.pack("<L", 4_000_000_000)
    path = tmp_path / "m.npz"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"m\.npz': 'a\.npy': \d+ bytes cannot be 4000000000"):
        read_state(path)


@pytest.mark.slow
def test_a_checkpoint_of_lists_in_lists_is_refused_in_time(tmp_path: Path) -> None:
    torch = framework("torch")
    value: object = [torch.zeros(1)]
    for _ in range(30):
        value = [value, value]
    torch.save({"state_dict": value}, tmp_path / "m.pt")
    with pytest.raises(InputError, match="no mapping of names to tensors"):
        read_model(tmp_path / "m.pt")
    torch.save({"w": torch.zeros(1), "_extra_state": value}, tmp_path / "m.pt")
    with pytest.raises(InputError, match="no mapping of names to tensors"):
        read_model(tmp_path / "m.pt")
    packed = tmp_path / "n.pt"
    with zipfile.ZipFile(tmp_path / "m.pt") as old, zipfile.ZipFile(packed, "w", 8) as new:
        for item in old.namelist():
            new.writestr(item, old.read(item))
    with pytest.raises(FormatError, match=r"n\.pt: .*packed by method 8"):
        read_model(packed)
