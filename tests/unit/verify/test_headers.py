"""Bitcoin headers that an auditor brings."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from provenance.errors import FormatError, InputError, ProofError, TruncatedError, UnavailableError
from provenance.proofs.bitcoin import double_sha256
from provenance.verify.headers import GivenHeaders

REGTEST_BITS = 0x207FFFFF
# Block 1 of the main chain, whose work holds everywhere.
BLOCK_1 = bytes.fromhex(
    "010000006fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000"
    "982051fd1e4ba744bbbe680e1fee14677ba1a3c3540bf7b1cdb606e857233e0e"
    "61bc6649ffff001d01e36299"
)
GENESIS = bytes.fromhex(
    "01000000" + "00" * 32 + "3ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a"
    "29ab5f49ffff001d1dac2b7c"
)


def header(previous: bytes, mark: int) -> bytes:
    """A header on top of another, with regtest's work done."""
    nonce = 0
    while True:
        raw = struct.pack("<I32s32sIII", 1, previous, b"\1" * 32, mark, REGTEST_BITS, nonce)
        if double_sha256(raw)[31] < 0x80:
            return raw
        nonce += 1


def chain(length: int, previous: bytes = bytes(32), mark: int = 0) -> list[bytes]:
    made: list[bytes] = []
    for at in range(length):
        made.append(header(previous, mark + at))
        previous = double_sha256(made[-1])
    return made


def test_depth_counts_what_builds_on_a_block_in_any_order() -> None:
    headers = chain(5)
    given = GivenHeaders.of(reversed(headers))
    depths = [given.depth(double_sha256(raw), "regtest") for raw in headers]
    assert depths == [5, 4, 3, 2, 1]


def test_the_longest_branch_counts_and_holes_end_it() -> None:
    trunk = chain(3)
    fork = chain(4, double_sha256(trunk[0]), mark=100)
    given = GivenHeaders.of([*fork, *trunk])
    assert given.depth(double_sha256(trunk[0]), "regtest") == 5
    assert given.depth(double_sha256(trunk[1]), "regtest") == 2
    holed = GivenHeaders.of([trunk[0], trunk[2]])
    assert holed.depth(double_sha256(trunk[0]), "regtest") == 1


def test_a_block_that_is_not_there_is_named() -> None:
    given = GivenHeaders.of(chain(2))
    with pytest.raises(ProofError, match=f"{'07' * 32} is not among the headers given"):
        given.depth(b"\7" * 32, "regtest")


def test_headers_that_end_before_a_block_leave_it_open_and_those_beside_it_do_not() -> None:
    given = GivenHeaders.of([GENESIS, BLOCK_1])
    for height in (0, 1, None):
        with pytest.raises(ProofError, match="is not among the headers given"):
            given.depth(b"\7" * 32, "main", height)
    with pytest.raises(UnavailableError, match="end at height 1, and the block at 2 is not there"):
        given.depth(b"\7" * 32, "main", 2)
    for some in ([BLOCK_1], chain(3), [GENESIS]):  # of no height, of none, of another chain
        with pytest.raises(UnavailableError, match="do not begin with the chain's first"):
            GivenHeaders.of(some).depth(b"\7" * 32, "regtest", 1)
    holed = GivenHeaders.of([GENESIS, *chain(3)])
    with pytest.raises(ProofError, match="is not among the headers given"):
        holed.depth(b"\7" * 32, "main", 9)
    assert given.depth(double_sha256(BLOCK_1), "main", 1) == 1


def test_work_is_that_of_the_chain() -> None:
    (raw,) = chain(1)
    given = GivenHeaders.of([raw, BLOCK_1])
    with pytest.raises(ProofError, match="target is out of range"):
        given.depth(double_sha256(raw), "main")
    assert given.depth(double_sha256(BLOCK_1), "main") == 1
    with pytest.raises(FormatError, match="expected one of main"):
        given.depth(double_sha256(raw), "dogecoin")


def test_a_file_of_hex_lines(tmp_path: Path) -> None:
    path = tmp_path / "headers.txt"
    path.write_text(f"# mainnet\n\n{BLOCK_1.hex().upper()}  \n{GENESIS.hex()}\n")
    given = GivenHeaders.read(path)
    assert given.depth(double_sha256(GENESIS), "main") == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "holds no block header"),
        ("# nothing\n", "holds no block header"),
        (f"{BLOCK_1.hex()}\n{BLOCK_1.hex()[:-2]}\n", "line 2 is no block header"),
        ("xyz\n", "line 1 is no block header, expected 160 hex digits"),
        ("é\n", "cannot be read"),
    ],
)
def test_what_is_no_file_of_headers_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "headers.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=problem):
        GivenHeaders.read(path)


def test_a_file_that_is_not_there_or_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        GivenHeaders.read(tmp_path / "none")
    monkeypatch.setattr("provenance.verify.headers.MAX_FILE_BYTES", 3)
    (tmp_path / "large").write_text("0000")
    with pytest.raises(InputError, match="more than 3 bytes"):
        GivenHeaders.read(tmp_path / "large")
    with pytest.raises(TruncatedError):
        GivenHeaders.of([b"short"])
