"""Item sets against Python's own sets, and forgers against the proof."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.errors import ProofError, ProvenanceError
from provenance.fingerprint.data.progress import Progress
from provenance.formats import merkle
from provenance.formats.item_set import LEAF_DIGESTS, Claim, ItemProof, ItemSet, key_commitment
from provenance.items import sorted_file
from provenance.items.sorted_file import DigestSorter, SortedFile

pytestmark = pytest.mark.slow

KEY, RUN, RECORD = bytes(32), UUID(int=7), bytes(range(32))
DIGESTS = st.lists(st.integers(0, 60).map(lambda n: hashlib.sha256(b"%d" % n).digest()))
"""Few that differ, so that there are duplicates."""
OTHERS = st.lists(st.integers(0, 99).map(lambda n: hashlib.sha256(b"%d" % n).digest()), min_size=1)


@contextmanager
def kept(digests: Sequence[bytes]) -> Iterator[SortedFile]:
    with tempfile.TemporaryFile() as file:
        with DigestSorter(Path(tempfile.gettempdir())) as sorter:
            for digest in digests:
                sorter.add(digest)
            assert sorter.write(file) == len(set(digests))
        file.flush()
        yield SortedFile(file, "digests", Progress())


def naive_root(digests: Sequence[bytes]) -> bytes:
    """As the document has it, with the tree of another module's linear function."""
    ordered = sorted(set(digests))
    leaves = [b"".join(ordered[at : at + 4]) for at in range(0, len(ordered), 4)]
    return merkle.root(leaves)


def proof_of(file: SortedFile, claim: Claim, leaves: Sequence[int]) -> ItemProof:
    shown = sorted(set(leaves))
    data = b"".join(file.leaf(at) for at in shown)
    ranges = merkle.ranges_beside(shown, file.size)
    hashes = file.hashes(ranges)
    digests = tuple(data[at : at + 32] for at in range(0, len(data), 32))
    siblings = tuple(hashes[own] for own in ranges)
    return ItemProof(RUN, "train", RECORD, claim, KEY, tuple(shown), digests, siblings)


def stated(file: SortedFile) -> ItemSet:
    return ItemSet(file.root(), file.digests, file.digests, key_commitment(KEY), None)


@settings(max_examples=100)
@given(DIGESTS, OTHERS, st.sampled_from([2, 7, 1 << 21]))
def test_a_set_has_what_a_set_has(digests: list[bytes], asked: list[bytes], run: int) -> None:
    """Duplicates, the empty set, one item, below the first, above the last; spilled or not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorted_file, "RUN_DIGESTS", run)
        with kept(digests) as file:
            assert file.root() == naive_root(digests)
            own = set(digests)
            for name in asked:
                place = file.place(name)
                assert place == sum(digest < name for digest in own)
                beside = [at for at in (place - 1, place) if 0 <= at < file.digests]
                proof = proof_of(file, "in", [at // LEAF_DIGESTS for at in beside])
                shown = ItemProof.decode(proof.encode(), "proof").shown(stated(file))
                assert shown.claim(name) == ("in" if name in own else "not-in")


@settings(max_examples=100)
@given(st.sets(st.integers(0, 300), min_size=1), st.data())
def test_a_proof_of_many_leaves_is_checked_against_the_root_alone(
    numbers: set[int], data: st.DataObject
) -> None:
    leaves = [b"%d" % number for number in numbers]
    size, tree = len(leaves), merkle.MerkleTree(leaves)
    chosen = sorted(data.draw(st.sets(st.integers(0, size - 1))))
    ranges = merkle.ranges_beside(chosen, size)
    proof = [tree.hashes([own])[own] for own in ranges]
    some = {at: leaves[at] for at in chosen}
    assert merkle.root_of_some(some, size, proof) == merkle.root(leaves)
    if len(chosen) == 1:
        assert len(proof) == len(tree.inclusion_proof(chosen[0]))
    for wrong in (proof[1:], [*proof, bytes(32)]):
        if len(wrong) != len(proof):
            with pytest.raises(ProofError):
                merkle.root_of_some(some, size, wrong)
    with pytest.raises(ProofError):
        merkle.root_of_some({**some, size: b""}, size, proof)


WORLD = [hashlib.sha256(b"%d" % number).digest() for number in range(150)]
ORDERED = sorted(WORLD)


def test_every_bit_of_a_proof_counts() -> None:
    with kept(WORLD) as file:
        own, name = stated(file), ORDERED[70]
        data = proof_of(file, "in", [70 // LEAF_DIGESTS]).encode()
        for bit in range(8 * len(data)):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            try:
                proof = ItemProof.decode(bytes(flipped), "proof")
                shown = proof.shown(own)
            except ProvenanceError as error:
                assert "\n" not in str(error)
                continue
            same = (proof.run, proof.split, proof.record) == (RUN, "train", RECORD)
            assert not (same and proof.claim == "in" and shown.claim(name) == "in"), bit


def forgers() -> dict[str, Sequence[int]]:
    """Leaves that a forger shows to hide the digest at place 70, which is in leaf 17."""
    return {"beside": [16, 18], "far": [3, 30], "before": [16], "behind": [18], "ends": [0, 37]}


@pytest.mark.parametrize("leaves", forgers().values(), ids=forgers())
def test_neighbours_that_are_none_prove_no_absence(leaves: Sequence[int]) -> None:
    with kept(WORLD) as file:
        shown = proof_of(file, "not-in", leaves).shown(stated(file))
        assert shown.claim(ORDERED[70]) is None


def without(file: SortedFile, place: int) -> ItemProof:
    """The leaf of a digest shown without it, the next in its place."""
    leaf = place // LEAF_DIGESTS
    proof = proof_of(file, "not-in", [leaf, leaf + 1])
    digests = list(proof.digests)
    digests.remove(ORDERED[place])
    return replace(proof, digests=(*digests, ORDERED[4 * leaf + 8]))


def test_a_leaf_without_the_digest_a_smaller_set_and_unsorted_digests_are_refused() -> None:
    with kept(WORLD) as file:
        own = stated(file)
        with pytest.raises(ProofError, match="lead to root"):
            without(file, 70).shown(own)
        last = proof_of(file, "not-in", [file.size - 1])
        smaller = replace(own, size=own.size - 1)
        with pytest.raises(ProofError, match="digests: found 2"):
            last.shown(smaller)
        swapped = replace(last, digests=last.digests[::-1])
        with pytest.raises(ProofError, match="do not ascend"):
            swapped.shown(own)


def test_a_set_that_was_recorded_unsorted_proves_nothing_of_the_leaf_out_of_order() -> None:
    """A trainer who states such a root can make no proof that shows it."""
    leaves = [b"".join(ORDERED[at : at + 4]) for at in range(0, 32, 4)]
    leaves[2], leaves[5] = leaves[5], leaves[2]
    tree = merkle.MerkleTree(leaves)
    own = ItemSet(tree.root(), 32, 32, key_commitment(KEY), None)
    ranges = merkle.ranges_beside([2, 3], 8)
    siblings = tuple(tree.hashes([one])[one] for one in ranges)
    data = leaves[2] + leaves[3]
    digests = tuple(data[at : at + 32] for at in range(0, len(data), 32))
    with pytest.raises(ProofError, match="do not ascend"):
        ItemProof(RUN, "train", RECORD, "not-in", KEY, (2, 3), digests, siblings).shown(own)


@settings(max_examples=20)
@given(st.integers(5, 2**63 - 1), st.data())
def test_a_set_of_any_stated_size_is_checked_in_bounded_time(
    size: int, data: st.DataObject
) -> None:
    """What a forger states costs the proof's own length."""
    own = ItemSet(bytes(32), size, size, key_commitment(KEY), None)
    leaf = data.draw(st.integers(0, -(-size // 4) - 1))
    digests = tuple(ORDERED[: min(4, size - 4 * leaf)])
    proof = ItemProof(RUN, "train", RECORD, "in", KEY, (leaf,), digests, ())
    with pytest.raises(ProofError, match="proof has 0 elements, needs"):
        proof.shown(own)
