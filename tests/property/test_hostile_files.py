"""Files that were changed anywhere are read, or refused by an error of this project in one line.

The seed is printed; ``PROVENANCE_MUTATION_SEED`` sets it.
"""

from __future__ import annotations

import io
import json
import os
import random
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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


KINDS: dict[str, tuple[str, Callable[[Path], bytes], Callable[[Path], object]]] = {
    "safetensors": ("m.safetensors", lambda _: TENSORS, read_state),
    "npz": ("m.npz", lambda _: npz(), read_state),
    "npz, stored": ("m.npz", lambda _: npz(np.savez), read_state),
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


def test_zeros_packed_a_thousandfold_are_read_piece_by_piece(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "m.npz", a=np.zeros(4_000_000))
    assert (tmp_path / "m.npz").stat().st_size < 40_000
    with few_bytes(2 * FEW_BYTES):
        state = state_digest_file(tmp_path / "m.npz")
    assert state.nbytes == 32_000_000


def test_a_member_that_says_more_than_its_bytes_can_be_is_refused(tmp_path: Path) -> None:
    data = bytearray(member(npy("'<f8'", "(500000000,)"), bytes(100)))
    at = data.index(b"PK\1\2") + 24
    data[at : at + 4] = struct.pack("<L", 4_000_000_000)
    path = tmp_path / "m.npz"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"m\.npz': 'a\.npy': \d+ bytes cannot be 4000000000"):
        read_state(path)


def test_a_checkpoint_of_lists_in_lists_is_refused_in_time(tmp_path: Path) -> None:
    torch = framework("torch")
    value: object = [torch.zeros(1)]
    for _ in range(30):
        value = [value, value]
    torch.save({"state_dict": value}, tmp_path / "m.pt")
    with pytest.raises(InputError, match="no mapping of names to tensors"):
        read_model(tmp_path / "m.pt")
    packed = tmp_path / "n.pt"
    with zipfile.ZipFile(tmp_path / "m.pt") as old, zipfile.ZipFile(packed, "w", 8) as new:
        for item in old.namelist():
            new.writestr(item, old.read(item))
    with pytest.raises(FormatError, match=r"n\.pt: .*packed by method 8"):
        read_model(packed)
