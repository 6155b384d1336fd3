"""Forks and growths of ledgers: FORK is said exactly where two logs are inconsistent."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from provenance.app.log.compare import compare
from provenance.app.log.sources import Seen, SeenHead
from provenance.errors import ProvenanceError
from provenance.formats.checkpoint import Head, sign_head
from provenance.formats.merkle import MerkleTree
from provenance.formats.note import SignerKey
from provenance.formats.tlog.fork import ForkProof
from provenance.formats.tlog.pieces import KnownPieces, consistency, root_at

SIGNER = SignerKey.from_private_bytes("example.org/ledger", bytes(range(32)))
KEYS = [SIGNER.verifier]


def entry(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def seen(name: str, tree: MerkleTree, sizes: list[int], entries: list[int], whole: bool) -> Seen:
    """The ledger at the largest size; or the heads at all of them with inclusions of entries."""
    size = sizes[-1]
    head = Head(SIGNER.name, size, tree.root(size))
    note = sign_head(head, SIGNER)
    if whole:
        part = MerkleTree.of_hashes(tree.read([(0, at) for at in range(size)]))
        return Seen(name, (SeenHead(head, note, part, True),))
    pieces = KnownPieces(size, head.root)
    for old, new in pairwise(sizes):
        path = tree.consistency_proof(old, new)
        pieces.add_consistency(old, tree.root(old), new, tree.root(new), path)
    for index in entries:
        leaf = LEAVES[tree][index]
        pieces.add_inclusion(leaf, index, size, head.root, tree.inclusion_proof(index, size))
    return Seen(name, (SeenHead(head, note, pieces),))


LEAVES: dict[MerkleTree, list[bytes]] = {}


@st.composite
def sides(draw: st.DrawFn, name: str, entries: list[bytes]) -> tuple[Seen, list[bytes]]:
    tree = MerkleTree(entries)
    LEAVES[tree] = entries
    sizes = sorted(draw(st.sets(st.integers(1, len(entries)), min_size=1, max_size=4)))
    shown = draw(st.lists(st.integers(0, sizes[-1] - 1), max_size=3))
    return seen(name, tree, sizes, shown, draw(st.booleans())), entries[: sizes[-1]]


@pytest.mark.slow
@given(st.data())
def test_fork_is_said_exactly_where_the_logs_are_inconsistent(data: st.DataObject) -> None:
    common = data.draw(st.integers(0, 20))
    logs = [
        [entry(f"{at}") for at in range(common)]
        + [entry(f"{at} {data.draw(st.sampled_from('xy'))}") for at in range(common, common + more)]
        for more in (data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12)))
    ]
    (a, first), (b, second) = (
        data.draw(sides(name, each)) for name, each in zip("ab", logs, strict=True)
    )
    size = min(len(first), len(second))
    fits = first[:size] == second[:size]
    found = compare(a, b, KEYS)
    if a.heads[0].whole and b.heads[0].whole:
        story = "same" if len(first) == len(second) else "consistent"
        assert found.result == (story if fits else "fork")
    assert found.result in (("same", "consistent", "unknown") if fits else ("fork", "unknown"))
    if found.proof is not None:
        again = ForkProof.decode(found.proof.encode())
        assert again == found.proof
        assert {head.size for head in again.verify()} == {len(first), len(second)}
        if a.heads[0].whole and b.heads[0].whole:
            at = again.size - 1
            assert first[:at] == second[:at], "the first entry that differs is named"
            assert first[at] != second[at]


@given(st.data(), st.integers(1, 40))
def test_what_follows_from_proofs_is_true(data: st.DataObject, count: int) -> None:
    entries = [entry(f"{at}") for at in range(count)]
    tree = MerkleTree(entries)
    (found, _) = data.draw(sides("a", entries))
    (item,) = found.heads
    for size in sorted(item.sizes):
        assert root_at(item.pieces, size) == tree.root(size)
        proof = consistency(item.pieces, size, item.head.size)
        assert proof == tree.consistency_proof(size, item.head.size)


A, B = (MerkleTree([entry("0"), entry(x), entry("2")]) for x in "xy")
PROOF = compare(seen("a", A, [2], [], True), seen("b", B, [3], [], True), KEYS).proof
assert PROOF is not None
TEXT = PROOF.encode()


@given(st.integers(0, len(TEXT) - 1), st.integers(0, 255))
def test_no_changed_byte_of_a_fork_proof_passes(at: int, byte: int) -> None:
    changed = TEXT[:at] + bytes([byte]) + TEXT[at + 1 :]
    assume(changed != TEXT)
    with pytest.raises(ProvenanceError):
        ForkProof.decode(changed).verify()
