"""RFC 6962 trees: reference vectors, hand-worked walks, and what is refused."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from provenance.errors import (
    ProofError,
    TooLargeError,
    TrailingBytesError,
    TruncatedError,
    UnknownVersionError,
)
from provenance.formats import merkle
from provenance.formats.merkle import EMPTY_ROOT, Frontier, MerkleTree, Step
from tests.support import paths

VECTORS: dict[str, Any] = json.loads((paths.VECTORS / "rfc6962.json").read_text(encoding="utf-8"))
LEAVES = [bytes.fromhex(leaf) for leaf in VECTORS["leaves"]]
ROOTS = [bytes.fromhex(value) for value in VECTORS["roots"]]


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def unhex(values: list[str]) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(value) for value in values)


@pytest.mark.parametrize("size", range(9))
def test_reference_roots(size: int) -> None:
    assert merkle.root(LEAVES[:size]) == ROOTS[size]
    assert merkle.root_of_hashes([merkle.leaf_hash(d) for d in LEAVES[:size]]) == ROOTS[size]
    assert Frontier.empty().extend(LEAVES[:size]).root() == ROOTS[size]


@pytest.mark.parametrize("case", VECTORS["inclusion"])
def test_reference_inclusion(case: dict[str, Any]) -> None:
    index, size, proof = case["index"], case["size"], unhex(case["proof"])
    assert merkle.MerkleTree(LEAVES[:size]).inclusion_proof(index) == proof
    merkle.verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size])


@pytest.mark.parametrize("case", VECTORS["consistency"])
def test_reference_consistency(case: dict[str, Any]) -> None:
    old, new, proof = case["old_size"], case["new_size"], unhex(case["proof"])
    assert merkle.MerkleTree(LEAVES[:new]).consistency_proof(old) == proof
    merkle.verify_consistency(old, ROOTS[old], new, ROOTS[new], proof)


def test_three_leaves_by_hand() -> None:
    a, b, c = (sha(b"\x00" + d) for d in (b"a", b"b", b"c"))
    ab = sha(b"\x01" + a + b)
    assert sha(b"") == EMPTY_ROOT
    assert merkle.root([b"a", b"b", b"c"]) == sha(b"\x01" + ab + c)
    assert merkle.MerkleTree([b"a", b"b", b"c"]).inclusion_proof(1) == (a, c)


def test_steps_are_one_sha256_each() -> None:
    data = [b"a", b"b", b"c"]
    a, _b, c = (sha(b"\x00" + d) for d in data)
    steps = merkle.path_steps(1, 3, (a, c))
    assert steps == (
        Step(b"\x00"),
        Step(b"\x01" + a),
        Step(b"\x01", c),
    )
    message = b"b"
    for step in steps:
        message = sha(step.prefix + message + step.suffix)
    assert message == merkle.apply_steps(b"b", steps) == merkle.root(data)


def test_no_steps_leave_the_data() -> None:
    assert merkle.apply_steps(b"x", ()) == b"x"


@pytest.mark.parametrize(("size", "index"), [(0, 0), (3, 3), (3, -1)])
def test_no_proof_for_a_leaf_that_is_not_there(size: int, index: int) -> None:
    with pytest.raises(ValueError, match=f"no leaf {index} in a tree of {size}"):
        merkle.MerkleTree(LEAVES[:size]).inclusion_proof(index)


@pytest.mark.parametrize("old", [-1, 4])
def test_no_proof_for_a_prefix_that_is_not_there(old: int) -> None:
    with pytest.raises(ValueError, match=f"no prefix of {old} in a tree of 3"):
        merkle.MerkleTree(LEAVES[:3]).consistency_proof(old)


def test_hashes_have_32_bytes() -> None:
    short = [bytes(32), bytes(31)]
    for call in (
        lambda: merkle.root_of_hashes(short),
        lambda: MerkleTree.of_hashes(short).inclusion_proof(0),
        lambda: MerkleTree.of_hashes(short).consistency_proof(1),
    ):
        with pytest.raises(ValueError, match="hash 1 has 31 bytes, needs 32"):
            call()


@pytest.mark.parametrize(
    ("index", "size", "proof", "message"),
    [
        (0, 0, (), "size must be 1"),
        (0, -1, (), "size must be 1"),
        (0, 2**63, (), "size must be 1"),
        (8, 8, (), "no such leaf"),
        (-1, 8, (), "no such leaf"),
        (0, 8, (bytes(32),) * 2, "proof has 2 elements, needs 3"),
        (0, 8, (bytes(32),) * 4, "proof has 4 elements, needs 3"),
        (0, 2, (bytes(33),), "element 0 has 33 bytes, needs 32"),
        (0, 2, (bytes(32),), "root is"),
    ],
)
def test_refused_inclusion(index: int, size: int, proof: tuple[bytes, ...], message: str) -> None:
    with pytest.raises(ProofError, match=f"leaf {index} in a tree of {size}: .*{message}"):
        merkle.verify_inclusion(b"", index, size, proof, ROOTS[8])


def test_a_leaf_is_no_node() -> None:
    """Second preimage: the bytes of an inner node do not pass for a leaf."""
    a, b = (merkle.leaf_hash(d) for d in (b"a", b"b"))
    with pytest.raises(ProofError):
        merkle.verify_inclusion(a + b, 0, 1, (), merkle.root([b"a", b"b"]))


@pytest.mark.parametrize(
    ("old", "new", "proof", "message"),
    [
        (-1, 8, (), "old size must be 0 to 8"),
        (9, 8, (), "old size must be 0 to 8"),
        (0, -1, (), "sizes must be 0"),
        (1, 2**63, (), "sizes must be 0"),
        (8, 8, (bytes(32),), "proof has 1 elements, needs 0"),
        (0, 8, (bytes(32),), "proof has 1 elements, needs 0"),
        (6, 8, (), "proof is empty"),
        (4, 8, (), "too short"),
        (6, 8, (bytes(32),), "too short"),
        (6, 8, (bytes(32),) * 4, "too long"),
        (6, 8, (bytes(31),) * 3, "element 0 has 31 bytes"),
        (6, 8, (bytes(32),) * 3, "old root is"),
    ],
)
def test_refused_consistency(old: int, new: int, proof: tuple[bytes, ...], message: str) -> None:
    old_root = ROOTS[old] if 0 <= old <= 8 else EMPTY_ROOT
    with pytest.raises(ProofError, match=f"size {old} with size {new}: .*{message}"):
        merkle.verify_consistency(old, old_root, new, ROOTS[8], proof)


def test_consistency_at_the_edges() -> None:
    merkle.verify_consistency(0, EMPTY_ROOT, 8, ROOTS[8], ())
    merkle.verify_consistency(0, EMPTY_ROOT, 0, EMPTY_ROOT, ())
    merkle.verify_consistency(8, ROOTS[8], 8, ROOTS[8], ())
    with pytest.raises(ProofError, match="old root"):
        merkle.verify_consistency(0, ROOTS[1], 8, ROOTS[8], ())
    with pytest.raises(ProofError, match="new root"):
        merkle.verify_consistency(8, ROOTS[8], 8, ROOTS[7], ())
    with pytest.raises(ProofError, match="new root"):
        merkle.verify_consistency(0, EMPTY_ROOT, 0, ROOTS[1], ())


def test_consistency_binds_both_roots() -> None:
    proof = merkle.MerkleTree(LEAVES).consistency_proof(4)
    with pytest.raises(ProofError, match="new root"):
        merkle.verify_consistency(4, ROOTS[4], 8, ROOTS[7], proof)
    with pytest.raises(ProofError, match="new root"):  # a complete subtree enters as old root
        merkle.verify_consistency(4, ROOTS[3], 8, ROOTS[8], proof)


def test_frontier_is_a_value() -> None:
    empty = Frontier.empty()
    one = empty.append(LEAVES[0])
    assert (empty.size, empty.root()) == (0, EMPTY_ROOT)
    assert (one.size, one.root()) == (1, ROOTS[1])
    assert one.extend(LEAVES[1:]) == empty.extend(LEAVES)


def test_frontier_encoding_by_hand() -> None:
    frontier = Frontier.empty().extend(LEAVES[:3])
    encoded = b"MLPF\x01" + (3).to_bytes(8, "big") + ROOTS[2] + merkle.leaf_hash(LEAVES[2])
    assert frontier.to_bytes() == encoded
    assert Frontier.from_bytes(encoded) == frontier
    assert Frontier.from_bytes(Frontier.empty().to_bytes()) == Frontier.empty()


def test_frontier_decoding_says_what_is_wrong() -> None:
    encoded = Frontier.empty().extend(LEAVES[:3]).to_bytes()
    for cut in range(len(encoded)):
        with pytest.raises(TruncatedError):
            Frontier.from_bytes(encoded[:cut])
    with pytest.raises(TrailingBytesError, match="1 follow"):
        Frontier.from_bytes(encoded + b"\x00")
    with pytest.raises(UnknownVersionError, match="version 2"):
        Frontier.from_bytes(encoded[:4] + b"\x02" + encoded[5:])
    with pytest.raises(UnknownVersionError, match="not a frontier"):
        Frontier.from_bytes(b"MLPX" + encoded[4:])
    with pytest.raises(TooLargeError):
        Frontier.from_bytes(encoded[:5] + b"\xff" * 8)


@pytest.mark.parametrize(
    ("size", "nodes", "message"),
    [
        (-1, (), "size must be"),
        (2**63, (), "size must be"),
        (3, (bytes(32),), "has 2 nodes, got 1"),
        (1, (bytes(31),), "31 bytes"),
    ],
)
def test_frontier_must_fit_its_size(size: int, nodes: tuple[bytes, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Frontier(size, nodes)
