"""HashFactory and Digest: known values, every way of hashing agrees, errors name the cause."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from provenance.errors import ConfigError, FormatError, InputError
from provenance.fingerprint.hashers import DIGEST_SIZES, Digest, HashFactory
from tests.support import paths

VECTORS = json.loads((paths.VECTORS / "tensors.json").read_text())
ALGORITHMS = ("blake3", "sha256", "sha512", "sha3-256", "blake2b")

# Published: BLAKE3 and NIST test vectors for the empty input, RFC 7693 appendix A for "abc".
PUBLISHED = [
    ("blake3", b"", "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
    ("sha256", b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ("sha3-256", b"", "a7ffc6f8bf1ed76651c14756a061d662f580ff4de43b49fa82d80a4b80f8434a"),
    (
        "sha512",
        b"abc",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
    ),
    (
        "blake2b",
        b"abc",
        "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1"
        "7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923",
    ),
]


def test_the_algorithms_are_these() -> None:
    assert tuple(DIGEST_SIZES) == ALGORITHMS
    assert HashFactory().algorithm == "blake3"
    assert repr(HashFactory("sha256")) == "HashFactory('sha256')"


@pytest.mark.parametrize(("algorithm", "data", "expected"), PUBLISHED)
def test_published_vectors(algorithm: str, data: bytes, expected: str) -> None:
    assert HashFactory(algorithm).digest(data).value.hex() == expected


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_project_vectors_and_size(algorithm: str) -> None:
    digest = HashFactory(algorithm).digest(b"abc")
    assert digest.value.hex() == VECTORS["hashes_of_abc"][algorithm]
    assert len(digest.value) == HashFactory(algorithm).digest_size == DIGEST_SIZES[algorithm]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("size", [0, 1, 65_537, (1 << 20) - 1, (3 << 20) + 5])
def test_stream_buffer_and_file_agree(algorithm: str, size: int, tmp_path: Path) -> None:
    factory = HashFactory(algorithm)
    data = bytes(np.arange(size, dtype=np.uint32).astype(np.uint8))
    path = tmp_path / "data"
    path.write_bytes(data)
    hasher = factory.new()
    for start in range(0, size, 50_000):
        hasher.update(data[start : start + 50_000])
    streamed = factory.wrap(hasher.digest())
    assert factory.digest(data) == streamed
    assert factory.digest(bytearray(data)) == streamed
    assert factory.digest_file(path) == streamed
    assert factory.digest_file(str(path)) == streamed


def test_typed_and_empty_views_are_hashed_as_their_bytes() -> None:
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    factory = HashFactory()
    assert factory.digest(values.data) == factory.digest(values.tobytes())
    assert factory.digest(np.zeros((0, 3)).data) == factory.digest(b"")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_can_hash_after_its_parent_did() -> None:
    """A shared thread pool would leave the child waiting: it is killed by its alarm then."""
    data = bytes(8 << 20)
    expected = HashFactory().digest(data)
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(30)
        os._exit(0 if HashFactory().digest(data) == expected else 1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    for algorithm in ("blake3", "sha256"):
        factory = HashFactory(algorithm)
        with pytest.raises(InputError, match=r"nowhere\.bin.*No such file"):
            factory.digest_file(tmp_path / "nowhere.bin")
        with pytest.raises(InputError, match="directory"):
            factory.digest_file(tmp_path)


@pytest.mark.parametrize("name", ["md5", "SHA256", "sha3_256", "", None, ["sha256"]])
def test_unknown_algorithm(name: object) -> None:
    with pytest.raises(ConfigError) as caught:
        HashFactory(name)  # type: ignore[arg-type]  # wrong or wider on purpose
    assert caught.value.key == "hash_algorithm"
    assert f"found {name!r}, expected one of blake3, sha256" in str(caught.value)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_text_form_round_trips(algorithm: str) -> None:
    digest = HashFactory(algorithm).digest(b"x")
    assert str(digest) == f"{algorithm}:{digest.value.hex()}"
    assert Digest.parse(str(digest)) == digest


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no colon"),
        ("e3b0c442", "no colon"),
        ("md5:" + "00" * 16, "unknown algorithm 'md5'"),
        ("sha256:" + "AB" * 32, "found 'A', expected lower-case hex"),
        ("sha256:" + "0g" * 32, "found 'g'"),
        ("sha256:" + "00" * 31 + "0", "odd number of hex digits"),
        ("sha256:" + "00" * 31, "sha256 has 32 bytes, found 31"),
        ("sha512:" + "00" * 32, "sha512 has 64 bytes, found 32"),
        ("sha256:" + "00" * 32 + "\n", r"found '\\n'"),
        ("sha256:", "found 0"),
    ],
)
def test_parse_names_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        Digest.parse(text)


def test_digest_is_a_frozen_value() -> None:
    digest = HashFactory().digest(b"x")
    with pytest.raises(dataclasses.FrozenInstanceError):
        digest.value = b""  # type: ignore[misc]  # the base class has no types
    assert {digest, Digest("blake3", digest.value)} == {digest}


def test_hash_config_imports_no_framework() -> None:
    import subprocess

    code = (
        "import sys; import provenance.fingerprint.hashers;"
        "print(sorted({'numpy', 'torch', 'pandas', 'pyarrow'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
