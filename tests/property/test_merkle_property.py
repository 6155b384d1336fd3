"""Proofs against a naive tree written from the text of RFC 6962 section 2.1."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.errors import FormatError, ProofError
from provenance.formats import merkle
from provenance.formats.merkle import Frontier, MerkleTree

pytestmark = pytest.mark.slow

SIZES = range(301)
LEAVES = tuple(b"leaf-%d" % i for i in range(300))


def split(n: int) -> int:
    """k: the largest power of two smaller than n."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


@cache
def mth(d: tuple[bytes, ...]) -> bytes:
    if len(d) == 0:
        return hashlib.sha256(b"").digest()
    if len(d) == 1:
        return hashlib.sha256(b"\x00" + d[0]).digest()
    k = split(len(d))
    return hashlib.sha256(b"\x01" + mth(d[:k]) + mth(d[k:])).digest()


def path(m: int, d: tuple[bytes, ...]) -> list[bytes]:
    if len(d) == 1:
        return []
    k = split(len(d))
    if m < k:
        return [*path(m, d[:k]), mth(d[k:])]
    return [*path(m - k, d[k:]), mth(d[:k])]


def subproof(m: int, d: tuple[bytes, ...], b: bool) -> list[bytes]:
    n = len(d)
    if m == n:
        return [] if b else [mth(d)]
    k = split(n)
    if m <= k:
        return [*subproof(m, d[:k], b), mth(d[k:])]
    return [*subproof(m - k, d[k:], False), mth(d[:k])]


def sample(size: int) -> list[int]:
    """Indexes worth a proof: the ends, the middle, those by the powers of two, a few more."""
    near = {1 << p for p in range(9)}
    wanted = {0, size // 2, size - 2, size - 1, *near, *(p - 1 for p in near)}
    wanted |= set(range(size % 7, size, 41))
    return sorted(i for i in wanted if 0 <= i < size)


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("size", SIZES)
def test_every_size_against_the_naive_tree(size: int) -> None:
    d = LEAVES[:size]
    root = mth(d)
    assert merkle.root(d) == root
    frontier = Frontier.empty().extend(d)
    assert frontier.root() == root
    assert Frontier.from_bytes(frontier.to_bytes()) == frontier
    for index in sample(size):
        proof = merkle.MerkleTree(d).inclusion_proof(index)
        assert list(proof) == path(index, d)
        merkle.verify_inclusion(d[index], index, size, proof, root)
    assert merkle.MerkleTree(d).consistency_proof(0) == ()
    merkle.verify_consistency(0, mth(()), size, root, ())
    for old in [i + 1 for i in sample(size)]:
        proof = merkle.MerkleTree(d).consistency_proof(old)
        assert list(proof) == subproof(old, d, True)
        merkle.verify_consistency(old, mth(d[:old]), size, root, proof)


@pytest.mark.parametrize("size", range(1, 18))
def test_every_other_place_is_refused(size: int) -> None:
    """A proof holds at its own index and size only."""
    d = LEAVES[:size]
    root = mth(d)
    for index in range(size):
        proof = merkle.MerkleTree(d).inclusion_proof(index)
        for other in range(size):
            if other != index:
                with pytest.raises(ProofError):
                    merkle.verify_inclusion(d[index], other, size, proof, root)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_bit_of_an_inclusion_proof_counts(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 300))
    index = data.draw(st.integers(0, size - 1))
    d = LEAVES[:size]
    root = mth(d)
    proof = list(merkle.MerkleTree(d).inclusion_proof(index))
    at = data.draw(st.integers(0, len(proof) - 1))
    proof[at] = flip(proof[at], data.draw(st.integers(0, 255)))
    with pytest.raises(ProofError):
        merkle.verify_inclusion(d[index], index, size, proof, root)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_bit_of_a_consistency_proof_counts(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 300))
    old = data.draw(st.integers(1, size - 1))
    d = LEAVES[:size]
    proof = list(merkle.MerkleTree(d).consistency_proof(old))
    at = data.draw(st.integers(0, len(proof) - 1))
    proof[at] = flip(proof[at], data.draw(st.integers(0, 255)))
    with pytest.raises(ProofError):
        merkle.verify_consistency(old, mth(d[:old]), size, mth(d), proof)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_proof_of_another_length_is_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 300))
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size - 1))
    longer = data.draw(st.booleans())
    d = LEAVES[:size]
    included = list(merkle.MerkleTree(d).inclusion_proof(index))
    consistent = list(merkle.MerkleTree(d).consistency_proof(old))
    for proof in (included, consistent):
        if longer:
            proof.append(bytes(32))
        else:
            proof.pop()
    with pytest.raises(ProofError):
        merkle.verify_inclusion(d[index], index, size, included, mth(d))
    with pytest.raises(ProofError):
        merkle.verify_consistency(old, mth(d[:old]), size, mth(d), consistent)


@given(st.lists(st.binary(max_size=40), max_size=40), st.data())
@settings(max_examples=200, deadline=None)
def test_random_leaves(leaves: list[bytes], data: st.DataObject) -> None:
    d = tuple(leaves)
    assert merkle.root(d) == mth(d)
    old = data.draw(st.integers(0, len(d)))
    proof = merkle.MerkleTree(d).consistency_proof(old)
    merkle.verify_consistency(old, mth(d[:old]), len(d), mth(d), proof)
    grown = Frontier.empty().extend(d[:old]).extend(d[old:])
    assert grown.root() == mth(d)
    if d:
        index = data.draw(st.integers(0, len(d) - 1))
        steps = merkle.path_steps(index, len(d), merkle.MerkleTree(d).inclusion_proof(index))
        assert merkle.apply_steps(d[index], steps) == mth(d)


@given(st.binary(max_size=120))
@settings(max_examples=300, deadline=None)
def test_a_frontier_decodes_or_is_refused(noise: bytes) -> None:
    for candidate in (noise, b"MLPF\x01" + noise):
        try:
            frontier = Frontier.from_bytes(candidate)
        except FormatError:
            continue
        assert frontier.to_bytes() == candidate


@given(
    st.integers(-5, 70) | st.integers(2**62, 2**64),
    st.integers(-5, 70) | st.integers(2**62, 2**64),
    st.lists(st.binary(min_size=32, max_size=32), max_size=70),
)
@settings(max_examples=300, deadline=None)
def test_hostile_numbers_only_raise_proof_errors(a: int, b: int, proof: list[bytes]) -> None:
    with pytest.raises(ProofError):
        merkle.verify_inclusion(b"x", a, b, proof, bytes(32))
    with pytest.raises(ProofError):
        merkle.verify_consistency(a, bytes(32), b, bytes(31), proof)


# --- one kept tree at every size ---------------------------------------------------------


def check_tree(tree: MerkleTree, size: int, indexes: Iterable[int], olds: Iterable[int]) -> None:
    """Root and proofs of the first leaves of a tree over ``LEAVES``, against the naive one."""
    d = LEAVES[:size]
    assert tree.root(size) == mth(d)
    for index in indexes:
        assert list(tree.inclusion_proof(index, size)) == path(index, d)
    for old in olds:
        assert list(tree.consistency_proof(old, size)) == (subproof(old, d, True) if old else [])


def test_a_tree_that_grew_leaf_by_leaf_agrees_at_every_smaller_size() -> None:
    tree = MerkleTree()
    for count in range(41):
        assert (tree.size, tree.root()) == (count, mth(LEAVES[:count]))
        tree.extend([LEAVES[count]])
    for size in range(41):
        check_tree(tree, size, range(size), range(size + 1))


@given(st.data())
def test_a_tree_that_grew_in_any_steps_agrees(data: st.DataObject) -> None:
    steps = data.draw(st.lists(st.integers(0, 60), min_size=1, max_size=5))
    tree = MerkleTree()
    for step in steps:
        tree.extend(LEAVES[tree.size : tree.size + step])
    size = data.draw(st.integers(0, tree.size))
    indexes = [data.draw(st.integers(0, size - 1))] if size else []
    check_tree(tree, size, indexes, [data.draw(st.integers(0, size))])
    height = data.draw(st.integers(0, 9))
    whole = range(0, tree.size - 2**height + 1, 2**height)
    wanted = [(height, number) for number in range(len(whole))]
    assert tree.read(wanted) == [mth(LEAVES[at : at + 2**height]) for at in whole]


def test_sizes_that_are_not_there_are_refused() -> None:
    tree = MerkleTree(LEAVES[:5])
    for refused in (
        lambda: tree.root(6),
        lambda: tree.root(-1),
        lambda: tree.inclusion_proof(5, 5),
        lambda: tree.inclusion_proof(0, 6),
        lambda: tree.consistency_proof(4, 3),
        lambda: tree.consistency_proof(-1, 3),
    ):
        with pytest.raises(ValueError, match="^no "):
            refused()
