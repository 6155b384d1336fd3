"""OpenTimestamps proofs: operations, attestations, trees and files, to the byte."""

from __future__ import annotations

import hashlib

import pytest

from provenance.errors import (
    FormatError,
    InputError,
    ProvenanceError,
    TooLargeError,
    TrailingBytesError,
    TruncatedError,
    UnknownVersionError,
)
from provenance.formats.merkle import MerkleTree, path_steps, root
from provenance.formats.opentimestamps.file import MAGIC, MAX_FILE_BYTES, TimestampFile
from provenance.formats.opentimestamps.tree import (
    MAX_HEIGHT,
    SHA256,
    Attestation,
    Bitcoin,
    Operation,
    Pending,
    Timestamp,
    Unknown,
    append,
    operations,
    prepend,
    varuint,
)

DIGEST = hashlib.sha256(b"record").digest()
HEAD = MAGIC + b"\x01\x08" + DIGEST
BITCOIN = b"\x00" + bytes.fromhex("0588960d73d71901")
PENDING = b"\x00" + bytes.fromhex("83dfe30d2ef90c8e")


def small() -> TimestampFile:
    walk = [prepend(b"\x00"), SHA256, prepend(b"\x01"), append(b"\x22" * 32), SHA256]
    return TimestampFile(Timestamp.of_walk(DIGEST, walk, Bitcoin(800_000)))


# --- bytes worked out by hand ------------------------------------------------------------


def test_a_file_is_magic_version_hash_digest_and_tree() -> None:
    by_hand = HEAD + b"\xf1\x01\x00" + b"\x08" + b"\xf1\x01\x01" + b"\xf0\x20" + b"\x22" * 32
    by_hand += b"\x08" + BITCOIN + b"\x03" + b"\x80\xea\x30"  # 800,000 = 0 + 106 * 128 + 48 * 2^14
    assert small().encode() == by_hand
    assert TimestampFile.decode(by_hand, canonical=True) == small()


def test_forks_have_ff_before_all_but_the_last_item() -> None:
    tree = Timestamp(
        DIGEST,
        [Pending("https://b"), Pending("https://a"), Bitcoin(5)],
        [
            (SHA256, Timestamp(hashlib.sha256(DIGEST).digest(), [Bitcoin(7)])),
            (append(b"x"), Timestamp(DIGEST + b"x", [Bitcoin(6)])),
        ],
    )
    a, b = b"\x0a\x09https://a", b"\x0a\x09https://b"
    assert TimestampFile(tree).encode() == HEAD + (
        b"\xff" + BITCOIN + b"\x01\x05" + b"\xff" + PENDING + a + b"\xff" + PENDING + b
        + b"\xff\x08" + BITCOIN + b"\x01\x07"
        + b"\xf0\x01x" + BITCOIN + b"\x01\x06"
    )  # fmt: skip
    assert [(len(m), a) for m, a in tree.walk()] == [
        (32, Bitcoin(5)),
        (32, Pending("https://a")),
        (32, Pending("https://b")),
        (32, Bitcoin(7)),
        (33, Bitcoin(6)),
    ]


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        (0x02, "a9993e364706816aba3e25717850c26c9cd0d89d"),  # FIPS 180
        (0x03, "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc"),  # RIPEMD-160's own vectors
        (0x08, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (0x67, "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"),
        (0xF2, "636261"),
        (0xF3, "363136323633"),
    ],
)
def test_operations_of_the_format(tag: int, expected: str) -> None:
    data = HEAD + b"\xf0\x03abc" + bytes([tag]) + BITCOIN + b"\x01\x05"
    (end,) = TimestampFile.decode(data, canonical=True).timestamp.walk()
    assert end == (Operation(tag).apply(DIGEST + b"abc"), Bitcoin(5))
    assert Operation(tag).apply(b"abc").hex() == expected
    assert TimestampFile.decode(data).encode() == data


def test_the_walk_of_a_merkle_proof_leads_to_its_root() -> None:
    leaves = [bytes([at]) * 32 for at in range(11)]
    for at in range(11):
        steps = path_steps(at, 11, MerkleTree(leaves).inclusion_proof(at))
        tree = Timestamp.of_walk(leaves[at], operations(steps), Bitcoin(1))
        assert list(tree.walk()) == [(root(leaves), Bitcoin(1))]


def test_a_walk_can_end_in_what_is_known_of_its_last_message() -> None:
    end = Timestamp(hashlib.sha256(DIGEST).digest(), [Bitcoin(1), Pending("https://a")])
    assert len(list(Timestamp.of_walk(DIGEST, [SHA256], end).walk())) == 2
    with pytest.raises(InputError, match="the walk leads to"):
        Timestamp.of_walk(DIGEST, [append(b"x"), SHA256], end)


# --- merging and extending ---------------------------------------------------------------


def test_merging_keeps_what_either_knows() -> None:
    one = Timestamp.of_walk(DIGEST, [append(b"x"), SHA256], Bitcoin(1))
    two = Timestamp.of_walk(DIGEST, [append(b"x"), prepend(b"y")], Bitcoin(2))
    both = one.merge(two)
    assert {a for _, a in both.walk()} == {Bitcoin(1), Bitcoin(2)}
    assert both == two.merge(one) == both.merge(one)
    assert hash(both) == hash(two.merge(one))
    assert both != one
    assert one != "one"
    with pytest.raises(InputError, match="do not merge"):
        one.merge(Timestamp(b"z", [Bitcoin(1)]))


def test_extending_makes_a_pending_attestation_good() -> None:
    wanted, other = Pending("https://a"), Pending("https://b")
    middle = hashlib.sha256(DIGEST).digest()
    tree = Timestamp.of_walk(DIGEST, [SHA256], Timestamp(middle, [wanted, other]))
    more = Timestamp.of_walk(middle, [append(b"x"), SHA256], Bitcoin(9))
    done = tree.extend(more, wanted)
    assert {a for _, a in done.walk()} == {Bitcoin(9), other}
    assert {a for _, a in tree.extend(more).walk()} == {Bitcoin(9), other, wanted}
    assert tree.extend(Timestamp(b"elsewhere", [Bitcoin(1)])) == tree
    assert "Pending" in repr(tree)
    assert TimestampFile.decode(TimestampFile(done).encode(), canonical=True).timestamp == done


# --- what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "error", "problem"),
    [
        (b"", TruncatedError, "ends inside its magic"),
        (MAGIC[:9], TruncatedError, "ends inside its magic"),
        (b"\x00Open\x00", UnknownVersionError, "begins otherwise"),
        (MAGIC + b"\x02\x08", UnknownVersionError, "version 2, this release has 1"),
        (MAGIC + b"\xff" * 12, TooLargeError, "a number of more than ten bytes"),
        (MAGIC + b"\x01\xf2" + DIGEST, FormatError, "a file is not hashed with reverse"),
        (MAGIC + b"\x01\x08" + DIGEST[:31], TruncatedError, "32 bytes needed"),
        (HEAD, TruncatedError, "ends inside the tree"),
        (HEAD + b"\xff", TruncatedError, "ends inside the tree"),
        (HEAD + b"\xff" + BITCOIN + b"\x01\x05", TruncatedError, "ends inside the tree"),
        (HEAD + b"\x09", FormatError, "byte 65: unknown operation 09"),
        (HEAD + b"\xff\xff", FormatError, "unknown operation ff"),
        (HEAD + b"\xf0\x00", FormatError, "append of nothing"),
        (HEAD + b"\xf0\x81\x20", TooLargeError, "4097, at most 4096"),
        (HEAD + b"\xf0\x05abcd", TruncatedError, "5 bytes needed"),
        (HEAD + b"\xf0\xff\x1f" + b"x" * 4095, TooLargeError, "byte 65: append: more than 4096"),
        (HEAD + BITCOIN + b"\x01\x05\x00", TrailingBytesError, "1 after the end"),
        (HEAD + BITCOIN + b"\x02\x05\x00", TrailingBytesError, "goes on after its end"),
        (HEAD + BITCOIN + b"\x00", FormatError, "in an attestation"),
        (HEAD + BITCOIN + b"\x0a" + b"\xff" * 9 + b"\x01", FormatError, "in an attestation"),
        (HEAD + PENDING + b"\x0a\x09https://?", FormatError, "not a URI"),
        (HEAD + PENDING + b"\x02\x01\xe9", FormatError, "not a URI"),
        (HEAD + PENDING + b"\xea\x07\xe9\x07" + b"a" * 1001, FormatError, "1001, at most 1000"),
        (HEAD + b"\x00" + b"unknown!" + b"\x81\x40", TooLargeError, "8193, at most 8192"),
        (HEAD + b"\x08" * 256 + BITCOIN + b"\x01\x05", TooLargeError, "more than 255 operations"),
        (HEAD + b"\x67" * 17 + BITCOIN + b"\x01\x05", TooLargeError, "16 times keccak256"),
        (bytes(MAX_FILE_BYTES + 1), TooLargeError, "at most 65536"),
    ],
)
def test_what_does_not_decode(data: bytes, error: type[ProvenanceError], problem: str) -> None:
    with pytest.raises(error, match=problem) as caught:
        TimestampFile.decode(data)
    assert "\n" not in str(caught.value)


def test_a_walk_of_255_operations_is_the_longest() -> None:
    walk = [SHA256] * 255
    data = TimestampFile(Timestamp.of_walk(DIGEST, walk, Bitcoin(1))).encode()
    longest = TimestampFile.decode(data, canonical=True).timestamp
    assert longest.encode() == data[len(HEAD) :]
    assert longest == longest.merge(longest)
    with pytest.raises(TooLargeError, match="255 operations"):
        TimestampFile(Timestamp.of_walk(DIGEST, [*walk, SHA256], Bitcoin(1))).encode()
    deep = Timestamp(DIGEST, [Bitcoin(2)], [(append(b"x"), Timestamp(DIGEST + b"x", [Bitcoin(1)]))])
    for _ in range(3):
        deep.merge(deep)


@pytest.mark.parametrize(
    "tail",
    [
        b"\xf1\x81\x00\x00\x08" + BITCOIN + b"\x01\x05",  # a length with a needless byte
        BITCOIN + b"\x02\x85\x00",
        b"\xff" + BITCOIN + b"\x01\x05" + BITCOIN + b"\x01\x05",
        b"\xff" + BITCOIN + b"\x01\x06" + BITCOIN + b"\x01\x05",
        b"\xff\x08" + BITCOIN + b"\x01\x05" + BITCOIN + b"\x01\x05",
        b"\xff\xf0\x01x" + BITCOIN + b"\x01\x05\x08" + BITCOIN + b"\x01\x05",
        b"\xff\x08" + BITCOIN + b"\x01\x05\x08" + BITCOIN + b"\x01\x06",
    ],
)
def test_others_may_write_differently_a_bundle_may_not(tail: bytes) -> None:
    read = TimestampFile.decode(HEAD + tail)
    assert TimestampFile.decode(read.encode(), canonical=True) == read
    assert read.encode() != HEAD + tail
    with pytest.raises(FormatError):
        TimestampFile.decode(HEAD + tail, canonical=True)


def test_a_repeated_operation_keeps_both_of_its_ends() -> None:
    data = HEAD + b"\xff\x08" + BITCOIN + b"\x01\x05\x08" + BITCOIN + b"\x01\x06"
    assert {a for _, a in TimestampFile.decode(data).timestamp.walk()} == {Bitcoin(5), Bitcoin(6)}


def test_attestations_of_other_kinds_are_kept_in_the_references_order() -> None:
    litecoin = bytes.fromhex("06869a0d73d71b45")
    kinds: list[Attestation] = [
        Unknown(b"zzzzzzzz", b""),
        Unknown(litecoin, varuint(300)),
        Unknown(litecoin, varuint(5)),
        Unknown(b"zzzzzzzz", b"a"),
    ]
    tree = Timestamp(DIGEST, kinds)
    assert [a for _, a in tree.walk()] == [kinds[2], kinds[1], kinds[0], kinds[3]]
    data = TimestampFile(tree).encode()
    assert TimestampFile.decode(data, canonical=True).encode() == data


def test_what_cannot_be_written() -> None:
    with pytest.raises(InputError, match="nothing is known"):
        TimestampFile(Timestamp(DIGEST)).encode()
    with pytest.raises(InputError, match="not its digest"):
        TimestampFile(Timestamp(b"short", [Bitcoin(1)])).encode()
    with pytest.raises(InputError, match="argument of 0 bytes"):
        append(b"")
    with pytest.raises(InputError, match="argument of 4097 bytes"):
        prepend(bytes(4097))
    with pytest.raises(InputError, match="not a URI"):
        Pending("https://a?b")
    with pytest.raises(InputError, match="not a URI"):
        Pending("a" * 1001)
    for height in (-1, MAX_HEIGHT + 1):
        with pytest.raises(InputError, match="height"):
            Bitcoin(height)
    many = [Unknown(at.to_bytes(8, "big"), bytes(8000)) for at in range(9)]
    with pytest.raises(TooLargeError, match="at most 65536"):
        TimestampFile(Timestamp(DIGEST, many)).encode()
    with pytest.raises(TooLargeError, match="hexlify"):
        Operation(0xF3).apply(bytes(2049))
    with pytest.raises(FormatError, match="of an empty message"):
        Operation(0xF2).apply(b"")


def test_a_machine_without_ripemd160_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such(name: str, data: bytes = b"") -> None:
        raise ValueError(f"unsupported hash type {name}")

    monkeypatch.setattr(hashlib, "new", no_such)
    with pytest.raises(FormatError, match="byte 65: ripemd160: this machine's OpenSSL"):
        TimestampFile.decode(HEAD + b"\x03" + BITCOIN + b"\x01\x05")


def test_every_single_bit_change_is_refused_or_seen() -> None:
    data = small().encode()
    (end,) = small().timestamp.walk()
    refused = seen = 0
    for at in range(8 * len(data)):
        changed = bytearray(data)
        changed[at // 8] ^= 1 << at % 8
        try:
            proof = TimestampFile.decode(bytes(changed), canonical=True)
        except FormatError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        assert (proof.timestamp.message, list(proof.timestamp.walk())) != (DIGEST, [end])
        seen += 1
    assert refused > 300
    assert seen > 300
