"""Bitcoin bytes: real blocks by hand, and partial Merkle trees against a naive builder."""

from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import (
    FormatError,
    ProofError,
    TooLargeError,
    TrailingBytesError,
    TruncatedError,
)
from provenance.proofs.bitcoin import (
    CHAINS,
    BlockHeader,
    MerkleBlock,
    check_work,
    display,
    double_sha256,
    parse_header,
    parse_merkle_block,
    parse_transaction,
    prove_inclusion,
    verify_anchor,
)

GENESIS_HEADER = bytes.fromhex(
    "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b2"
    "7ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c"
)
# Block 170 of the main chain: the first payment, from Satoshi Nakamoto to Hal Finney.
BLOCK_170 = "00000000d1145790a8694403d4063f323d499e655c83426834d4ce2f8dd4a2ee"
HEADER_170 = (
    struct.pack("<I", 1)
    + bytes.fromhex("000000002a22cfee1f2c846adbd12b3e183d4f97683f85dad08a79780a84bd55")[::-1]
    + bytes.fromhex("7dac2c5666815c17a3b36427de37bb9d2e2c5ccec3f8633eb91a4205cb4c10ff")[::-1]
    + struct.pack("<III", 1231731025, 0x1D00FFFF, 1889418792)
)
COINBASE_170 = "b1fea52486ce0c62bb442b530a3f0132b826c74e473d1f2c220bfa78111c5082"
PAYMENT = "f4184fc596403b9d638783cf57adfe4c75c605f6356fbc91338530e9831e9e16"
PAYMENT_RAW = bytes.fromhex(
    "0100000001c997a5e56e104102fa209c6a852dd90660a20b2d9c352423edce25857fcd37040000000048473044"
    "02204e45e16932b8af514961a1d3a1a25fdf3f4f7732e9d624c6c61548ab5fb8cd410220181522ec8eca07de48"
    "60a4acdd12909d831cc56cbbac4622082221a8768d1d0901ffffffff0200ca9a3b00000000434104ae1a62fe09"
    "c5f51b13905f07f06b99a2f7159b2225f374cd378d71302fa28414e7aab37397f554a7df5f142c21c1b7303b8a"
    "0626f1baded5c72a704f7e6cd84cac00286bee0000000043410411db93e1dcdb8a016b49840f8c53bc1eb68a38"
    "2e97b1482ecad7b148a6909a5cb2e0eaddfb84ccf9744464f82e160bfa9b8b64f9d4c03f999b8643f656b412a3"
    "ac00000000"
)
# BIP 143, "Native P2WPKH", the unsigned and the signed serialisation.
P2WPKH_SIGNED = bytes.fromhex(
    "01000000000102fff7f7881a8099afa6940d42d1e7f6362bec38171ea3edf433541db4e4ad969f000000004948"
    "30450221008b9d1dc26ba6a9cb62127b02742fa9d754cd3bebf337f7a55d114c8e5cdd30be022040529b194ba3"
    "f9281a99f2b1c0a19c0489bc22ede944ccf4ecbab4cc618ef3ed01eeffffffef51e1b804cc89d182d279655c3a"
    "a89e815b1b309fe287d9b2b55d57b90ec68a0100000000ffffffff02202cb206000000001976a9148280b37df3"
    "78db99f66f85c95a783a76ac7a6d5988ac9093510d000000001976a9143bde42dbee7e4dbe6a21b2d50ce2f016"
    "7faa815988ac000247304402203609e17b84f6a7d30c80bfa610b5b4542f32a8a0d5447a12fb1366d7f01cc44a"
    "0220573a954c4518331561406f90300e8f3358f51928d43c212a8caed02de67eebee0121025476c2e83188368d"
    "a1ff3e292e7acafcdb3566bb0ad253f62fc70f07aeee635711000000"
)
PAYLOAD = b"MLP1" + bytes(range(32))


def transaction(script: bytes, *, witness: bool = False, value: int = 0) -> bytes:
    """One input, one output; by hand."""
    core = b"\x01" + bytes(32) + b"\x00\x00\x00\x00" + b"\x00" + b"\xff\xff\xff\xff"
    core += b"\x01" + struct.pack("<q", value) + bytes([len(script)]) + script
    marker, stack = (b"\x00\x01", b"\x02\x01a\x02bc") if witness else (b"", b"")
    return b"\x02\x00\x00\x00" + marker + core + stack + b"\x00\x00\x00\x00"


def anchor(payload: bytes = PAYLOAD, *, witness: bool = False) -> bytes:
    return transaction(b"\x6a" + bytes([len(payload)]) + payload, witness=witness)


def header(root: bytes, bits: int = 0x207FFFFF, *, worked: bool = True) -> bytes:
    for nonce in range(10_000):
        raw = bytes(4) + bytes(32) + root + struct.pack("<III", 1_700_000_000, bits, nonce)
        low = double_sha256(raw)[31] <= 0x7E
        if low == worked:
            return raw
    raise AssertionError


def naive_tree(leaves: list[bytes], matched: set[int], head: bytes) -> bytes:
    """BIP 37 as its text says it, recursively; returns the message."""
    bits: list[int] = []
    hashes: list[bytes] = []

    def level(items: list[bytes]) -> list[bytes]:
        if len(items) % 2:
            items = [*items, items[-1]]
        return [double_sha256(a + b) for a, b in zip(items[::2], items[1::2], strict=True)]

    levels = [leaves]
    while len(levels[-1]) > 1:
        levels.append(level(levels[-1]))

    def walk(height: int, index: int) -> None:
        span = range(index << height, (index + 1) << height)
        hit = any(i in matched for i in span)
        bits.append(int(hit))
        if height == 0 or not hit:
            hashes.append(levels[height][index])
            return
        walk(height - 1, 2 * index)
        if 2 * index + 1 < len(levels[height - 1]):
            walk(height - 1, 2 * index + 1)

    walk(len(levels) - 1, 0)
    flags = bytearray((len(bits) + 7) // 8)
    for at, bit in enumerate(bits):
        flags[at // 8] |= bit << (at % 8)
    return (
        head
        + struct.pack("<I", len(leaves))
        + bytes([len(hashes)])
        + b"".join(hashes)
        + bytes([len(flags)])
        + bytes(flags)
    )


def merkle_root(leaves: list[bytes]) -> bytes:
    while len(leaves) > 1:
        leaves = leaves + leaves[-1:] if len(leaves) % 2 else leaves
        pairs = zip(leaves[::2], leaves[1::2], strict=True)
        leaves = [double_sha256(a + b) for a, b in pairs]
    return leaves[0]


def test_genesis_header_hashes_to_the_known_block() -> None:
    parsed = parse_header(GENESIS_HEADER)
    assert display(parsed.hash) == CHAINS["main"].genesis
    assert parsed.time == 1231006505
    assert parsed.previous == bytes(32)
    check_work(parsed, CHAINS["main"].limit)


def test_first_payment_is_proven_into_block_170() -> None:
    parsed = parse_transaction(PAYMENT_RAW)
    assert display(parsed.txid) == PAYMENT
    assert [o.value for o in parsed.outputs] == [1_000_000_000, 4_000_000_000]
    assert parsed.vsize == len(PAYMENT_RAW) == 275
    assert parsed.data == ()
    message = (
        HEADER_170
        + struct.pack("<I", 2)
        + b"\x02"
        + bytes.fromhex(COINBASE_170)[::-1]
        + parsed.txid
        + b"\x01\x05"  # root, not the coinbase, the payment
    )
    block = parse_merkle_block(message)
    assert display(block.header.hash) == BLOCK_170
    leaf = prove_inclusion(parsed, block)
    assert (leaf.index, leaf.path) == (1, ((True, bytes.fromhex(COINBASE_170)[::-1]),))
    check_work(block.header, CHAINS["main"].limit)


def test_witness_does_not_change_the_id() -> None:
    parsed = parse_transaction(P2WPKH_SIGNED)
    assert parse_transaction(parsed.stripped).txid == parsed.txid
    assert parsed.size == len(P2WPKH_SIGNED) == 343
    assert len(parsed.stripped) == 233
    assert parsed.vsize == (3 * 233 + 343 + 3) // 4 == 261
    assert [o.value for o in parsed.outputs] == [112340000, 223450000]


@pytest.mark.parametrize(
    ("script", "data"),
    [
        (b"\x6a\x24" + PAYLOAD, (PAYLOAD,)),
        (b"\x6a\x4c\x24" + PAYLOAD, (PAYLOAD,)),
        (b"\x6a\x4d\x24\x00" + PAYLOAD, (PAYLOAD,)),
        (b"\x6a\x25" + PAYLOAD, ()),
        (b"\x6a\x24" + PAYLOAD + b"\x00", ()),
        (b"\x6a\x01a\x24" + PAYLOAD, ()),
        (b"\x6b\x24" + PAYLOAD, ()),
        (b"\x6a", ()),
        (b"\x6a\x4c", ()),
        (b"\x6a\x51" + PAYLOAD, ()),
    ],
)
def test_only_one_plain_push_behind_op_return_is_data(
    script: bytes, data: tuple[bytes, ...]
) -> None:
    assert parse_transaction(transaction(script)).data == data


def test_an_anchor_verifies_offline_and_every_planted_fault_is_found() -> None:
    for witness in (False, True):
        raw = anchor(witness=witness)
        leaves = [hashlib.sha256(bytes([i])).digest() for i in range(6)]
        leaves[3] = parse_transaction(raw).txid
        head = header(merkle_root(leaves))
        proof = naive_tree(leaves, {3}, head)
        assert verify_anchor(raw, proof, head, PAYLOAD, "regtest").hash == double_sha256(head)
        with pytest.raises(ProofError, match="payload"):  # (2)
            verify_anchor(raw, proof, head, PAYLOAD[:-1] + b"\0", "regtest")
        with pytest.raises(ProofError, match="out of range"):  # (3)
            verify_anchor(raw, proof, head, PAYLOAD, "main")
        idle = header(merkle_root(leaves), worked=False)
        with pytest.raises(ProofError, match="above its target"):
            verify_anchor(raw, naive_tree(leaves, {3}, idle), idle, PAYLOAD, "regtest")
        with pytest.raises(ProofError, match="another block"):  # (4)
            verify_anchor(raw, proof, header(bytes(32)), PAYLOAD, "regtest")
        wrong = header(bytes(32))
        with pytest.raises(ProofError, match="recompute"):
            verify_anchor(raw, naive_tree(leaves, {3}, wrong), wrong, PAYLOAD, "regtest")
        with pytest.raises(ProofError, match="is not in it"):  # (5)
            verify_anchor(raw, naive_tree(leaves, {2}, head), head, PAYLOAD, "regtest")
        with pytest.raises(FormatError, match="testnet3"):
            verify_anchor(raw, proof, head, PAYLOAD, "testnet3")
        with pytest.raises(TruncatedError):  # (1)
            verify_anchor(raw[:-1], proof, head, PAYLOAD, "regtest")


@given(st.integers(1, 40), st.data())
def test_partial_trees_prove_exactly_what_was_matched(count: int, data: st.DataObject) -> None:
    leaves = [hashlib.sha256(struct.pack("<I", i)).digest() for i in range(count)]
    matched = data.draw(st.sets(st.integers(0, count - 1)))
    head = header(merkle_root(leaves))
    block = parse_merkle_block(naive_tree(leaves, matched, head))
    proven = block.leaves()
    assert [leaf.index for leaf in proven] == sorted(matched)
    for leaf in proven:
        value = leaf.txid
        assert value == leaves[leaf.index]
        for left, sibling in leaf.path:
            value = double_sha256(sibling + value if left else value + sibling)
        assert value == block.header.merkle_root


@given(st.data())
def test_no_flipped_bit_proves_another_transaction(data: st.DataObject) -> None:
    leaves = [hashlib.sha256(struct.pack("<I", i)).digest() for i in range(7)]
    message = bytearray(naive_tree(leaves, {4}, header(merkle_root(leaves))))
    at = data.draw(st.integers(0, 8 * len(message) - 1))
    message[at // 8] ^= 1 << (at % 8)
    try:
        proven = parse_merkle_block(bytes(message)).leaves()
    except (ProofError, FormatError):
        return
    assert all(leaf.txid in leaves for leaf in proven)


def test_merkle_traps() -> None:
    leaf = bytes(32)
    root = double_sha256(leaf + leaf)
    block = MerkleBlock(BlockHeader(b"", b"", root, 0, 0), 2, (leaf, leaf), b"\x07")
    with pytest.raises(ProofError, match="equal siblings"):  # CVE-2012-2459
        block.leaves()
    head = header(leaf)
    with pytest.raises(ProofError, match="padding"):
        MerkleBlock(parse_header(head), 1, (leaf,), b"\x03").leaves()
    with pytest.raises(ProofError, match="left over"):
        MerkleBlock(parse_header(head), 1, (leaf, leaf), b"\x01").leaves()
    with pytest.raises(ProofError, match="left over"):
        MerkleBlock(parse_header(head), 1, (leaf,), b"\x01\x00").leaves()
    with pytest.raises(ProofError, match="ends inside"):
        MerkleBlock(parse_header(head), 1, (), b"\x01").leaves()
    with pytest.raises(ProofError, match="ends inside"):
        MerkleBlock(parse_header(head), 4, (leaf,), b"").leaves()
    small = parse_transaction(transaction(b"\x6a\x02ab"))
    assert len(small.stripped) == 64
    with pytest.raises(ProofError, match="64 bytes"):  # CVE-2017-12842
        prove_inclusion(
            small, MerkleBlock(parse_header(header(small.txid)), 1, (small.txid,), b"\x01")
        )


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", TruncatedError),
        (anchor()[:30], TruncatedError),
        (anchor() + b"\0", TrailingBytesError),
        (anchor(witness=True)[:-5], TruncatedError),
        (b"\x02\0\0\0" + b"\xfd\x01\x00", FormatError),
        (b"\x02\0\0\0" + b"\xfe\xff\xff\xff\xff", TooLargeError),
        (b"\x02\0\0\0" + b"\xff" * 9, TooLargeError),
        (bytes(4_000_001), TooLargeError),
        (b"\x02\0\0\0" + b"\x00\x00" + bytes(4), FormatError),
    ],
)
def test_transactions_that_do_not_decode(raw: bytes, error: type[FormatError]) -> None:
    with pytest.raises(error):
        parse_transaction(raw)


@given(st.binary(max_size=300))
def test_decoders_raise_nothing_else(raw: bytes) -> None:
    for parse in (parse_transaction, parse_merkle_block, parse_header):
        try:
            parse(raw)
        except FormatError:
            continue


def test_headers_and_messages_have_exact_lengths() -> None:
    with pytest.raises(TruncatedError):
        parse_header(GENESIS_HEADER[:-1])
    with pytest.raises(TrailingBytesError):
        parse_header(GENESIS_HEADER + b"\0")
    message = naive_tree([bytes(32)], {0}, header(bytes(32)))
    with pytest.raises(TrailingBytesError):
        parse_merkle_block(message + b"\0")
    with pytest.raises(FormatError, match="0 transactions"):
        parse_merkle_block(message[:80] + bytes(4) + message[84:])
    with pytest.raises(TooLargeError):
        parse_merkle_block(message[:84] + b"\x02" + message[85:])


def test_a_negative_or_zero_target_is_refused() -> None:
    for bits in (0x1D80FFFF, 0x00000000, 0x01003456):
        raw = header(bytes(32), bits)
        with pytest.raises(ProofError, match="out of range"):
            check_work(parse_header(raw), CHAINS["regtest"].limit)
