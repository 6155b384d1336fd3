"""Tries, RLP and Keccak against slow or foreign makers of the same; no changed bit holds."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace

import pytest
import rlp as reference
from eth_utils import keccak
from hypothesis import given
from hypothesis import strategies as st

from provenance.chains.ethereum.trie import prove
from provenance.errors import FormatError, IntegrityError, ProofError
from provenance.formats.keccak import keccak256, sponge
from provenance.proofs import rlp
from provenance.proofs.ethereum import (
    TrieProof,
    parse_header,
    parse_receipt,
    parse_transaction,
    trie_value,
    verify_anchor,
    verify_trie,
)
from tests.support.nodes.ethereum_block import (
    ROOT,
    Block,
    calldata_block,
    receipt,
    repeated_block,
    transaction,
)


@given(st.binary(max_size=500))
def test_keccak(data: bytes) -> None:
    assert keccak256(data) == keccak(data)
    assert sponge(data, 0x06) == hashlib.sha3_256(data).digest()


items = st.recursive(
    st.binary(max_size=70), lambda inner: st.lists(inner, max_size=5).map(tuple), max_leaves=20
)


@given(items)
def test_rlp_reads_what_others_write(item: rlp.Item) -> None:
    assert rlp.decode(reference.encode(item), "item", 10_000) == item


@given(st.binary(max_size=80))
def test_rlp_has_one_encoding_per_value(raw: bytes) -> None:
    try:
        item = rlp.decode(raw, "item", 80)
    except FormatError:
        return
    assert reference.encode(item) == raw


@given(items, st.data())
def test_a_changed_byte_of_rlp_is_another_value_or_none(
    item: rlp.Item, data: st.DataObject
) -> None:
    raw = bytearray(reference.encode(item))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(FormatError):
        assert rlp.decode(bytes(raw), "item", 10_000) != item


# --- the trie: a naive maker of proofs, by the recursion of Yellow Paper appendix D --------

Held = dict[tuple[int, ...], bytes]


def nibbles(key: bytes) -> tuple[int, ...]:
    return tuple(int(digit, 16) for digit in key.hex())


def hex_prefix(path: tuple[int, ...], leaf: bool) -> bytes:
    flag = 2 * leaf
    whole = (flag + 1, *path) if len(path) % 2 else (flag, 0, *path)
    return bytes.fromhex("".join(f"{each:x}" for each in whole))


def node(held: Held, at: int) -> list[object]:
    """The node over the keys, whose first ``at`` nibbles are alike."""
    if len(held) == 1:
        ((path, value),) = held.items()
        return [hex_prefix(path[at:], True), value]
    first, *rest = held
    same = at
    while all(len(k) > same and len(first) > same and k[same] == first[same] for k in rest):
        same += 1
    if same > at:
        return [hex_prefix(first[at:same], False), link(node(held, same))]
    children: list[object] = []
    for nibble in range(16):
        below = {k: v for k, v in held.items() if len(k) > at and k[at] == nibble}
        children.append(link(node(below, at + 1)) if below else b"")
    ended = [value for key, value in held.items() if len(key) == at]
    return [*children, ended[0] if ended else b""]


def link(made: list[object]) -> object:
    raw = reference.encode(made)
    return keccak(raw) if len(raw) >= 32 else made


def path_to(held: Held, key: tuple[int, ...]) -> tuple[bytes, list[bytes]]:
    """Root and the nodes on the way to a key, without those that lie inside others."""
    made, at = node(held, 0), 0
    raw = [reference.encode(made)]
    while True:
        if len(made) == 17 and at < len(key):
            at, held = at + 1, {k: v for k, v in held.items() if k[: at + 1] == key[: at + 1]}
        elif len(made) == 2 and made[0][0] < 0x20:  # type: ignore[index]  # JSON, or known to be there
            first = next(iter(held))
            while all(len(k) > at and k[at] == first[at] for k in held):
                at += 1
        else:
            return keccak(raw[0]), raw
        made = node(held, at)
        below = reference.encode(made)
        if len(below) >= 32:
            raw.append(below)


@pytest.mark.slow
@given(
    st.dictionaries(
        st.binary(min_size=1, max_size=3), st.binary(min_size=1, max_size=50), min_size=1
    )
)
def test_any_trie(held: dict[bytes, bytes]) -> None:
    by_path = {nibbles(key): value for key, value in held.items()}
    for key, value in held.items():
        root, nodes = path_to(by_path, nibbles(key))
        assert trie_value(root, key, nodes, "value") == value


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=150), st.data())
def test_the_trie_of_a_block(values: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(values) - 1))
    root, proof = prove(values, index)
    held = {nibbles(rlp.encode_index(at)): value for at, value in enumerate(values)}
    assert path_to(held, nibbles(rlp.encode_index(index))) == (root, list(proof.nodes))
    verify_trie(root, proof, "value")
    # Small equal values lie side by side in one node, which then proves either.
    elsewhere = [at for at in range(300) if values[at : at + 1] != [values[index]]]
    other = data.draw(st.sampled_from(elsewhere))
    with pytest.raises((ProofError, FormatError)):
        verify_trie(root, replace(proof, index=other), "value")


def flipped(raw: bytes, data: st.DataObject) -> bytes:
    changed = bytearray(raw)
    changed[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    return bytes(changed)


@pytest.mark.slow
@given(st.sampled_from([Block(), calldata_block(), repeated_block(count=140)]), st.data())
def test_no_changed_bit_holds(block: Block, data: st.DataObject) -> None:
    def spoil(proof: TrieProof) -> TrieProof:
        at = data.draw(st.integers(-1, len(proof.nodes) - 1))
        if at < 0:
            return replace(proof, value=flipped(proof.value, data))
        nodes = list(proof.nodes)
        nodes[at] = flipped(nodes[at], data)
        return replace(proof, nodes=tuple(nodes))

    header, root, contract = block.header, ROOT, block.contract
    bill, sent = block.receipt, block.transaction
    what = data.draw(st.sampled_from(["root", "contract", "receipt", "transaction"]))
    if what == "root":
        root = flipped(root, data)
    elif what == "contract" and contract is not None:
        contract = flipped(contract, data)
    elif what == "receipt":
        bill = spoil(bill)
    else:
        sent = spoil(sent)
    with pytest.raises((FormatError, IntegrityError)):
        verify_anchor(header, root, contract, bill, sent)


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(junk: bytes) -> None:
    for raw in (junk, b"\x02" + junk, receipt()[:40] + junk, transaction()[:60] + junk):
        for read in (parse_header, parse_receipt, parse_transaction):
            with contextlib.suppress(FormatError):
                read(raw)
    with pytest.raises((FormatError, ProofError)):
        verify_trie(keccak(junk), TrieProof(0, b"x", (junk,)), "value")
