"""The ledger against programs that know nothing of it.

pymerkle is an independent implementation of RFC 9162 trees. The reader of tiles below is
written from the text of https://c2sp.org/tlog-tiles and uses nothing but the files.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pymerkle
import pytest

from provenance.app.log.export import export
from provenance.formats import merkle
from provenance.formats.checkpoint import Head, open_head, sign_head
from provenance.formats.note import SignerKey
from provenance.formats.tlog.proof import TlogProof
from provenance.formats.tlog.tiles import TiledLedger, accounts_path, tiles
from provenance.ports.store import LedgerStore
from provenance.ports.values import HeadRow

SIZES = range(1, 71)
ENTRIES = [hashlib.sha256(b"run %d" % i).digest() for i in range(70)]
SIGNER = SignerKey.from_private_bytes("example.org/ledger", bytes(range(32)))


# --- pymerkle ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def peer() -> pymerkle.InmemoryTree:
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    tree.append_entries(ENTRIES)
    return tree


def inclusion_for_peer(peer: pymerkle.InmemoryTree, index: int, size: int) -> Any:
    """Our path in the peer's clothes: it counts from one and lists the leaf's hash first.

    The shape (which side each hash is on) is the peer's own; it checks that anyway.
    """
    ours = merkle.MerkleTree(ENTRIES[:size]).inclusion_proof(index)
    shape = peer.prove_inclusion(index + 1, size)
    path = [merkle.leaf_hash(ENTRIES[index]), *ours]
    return pymerkle.InclusionProof("sha256", True, size, index + 1, shape.rule, path)


def rfc_proof(path: list[bytes], rule: list[int], old: int, new: int) -> list[bytes]:
    """The peer's consistency proof in the order of the RFC.

    Both have the root of the largest subtree that ends at ``old`` (left) and what stands to
    its right (right), then the same hashes up to the root. The RFC gives right as one hash,
    after left, and omits left where it is the whole old tree; the peer gives right as the
    path of the leaf at ``old``, before left.
    """
    if old == new:
        return path[1:]
    at = rule.index(1) + 1
    right = path[0]
    for sibling in path[1:at]:
        right = hashlib.sha256(b"\x01" + right + sibling).digest()
    return [*([] if old & (old - 1) == 0 else [path[at]]), right, *path[at + 1 :]]


def consistency_for_peer(peer: pymerkle.InmemoryTree, old: int, new: int) -> Any:
    """Our proof in the peer's clothes (see `rfc_proof`); the path of the leaf at ``old``, which
    the RFC's proof does not have, is the peer's."""
    ours = list(merkle.MerkleTree(ENTRIES[:new]).consistency_proof(old))
    if old & (old - 1) == 0 or old == new:
        ours.insert(0, merkle.root(ENTRIES[:old]))
    shape = peer.prove_consistency(old, new)
    path = ours[:1]
    if old != new:
        at = shape.rule.index(1) + 1
        path = [*shape.path[:at], ours[0], *ours[2:]]
    return pymerkle.ConsistencyProof("sha256", True, new, old, shape.rule, shape.subset, path)


@pytest.mark.parametrize("size", SIZES)
def test_the_peer_has_the_same_root(peer: pymerkle.InmemoryTree, size: int) -> None:
    assert peer.get_root(size) == merkle.root(ENTRIES[:size])
    assert peer.get_leaf(size) == merkle.leaf_hash(ENTRIES[size - 1])


def test_the_peer_has_the_same_empty_root(peer: pymerkle.InmemoryTree) -> None:
    assert peer.get_root(0) == merkle.EMPTY_ROOT


@pytest.mark.parametrize("size", SIZES)
def test_the_peer_accepts_every_inclusion_proof(peer: pymerkle.InmemoryTree, size: int) -> None:
    root = merkle.root(ENTRIES[:size])
    for index in range(size):
        leaf = merkle.leaf_hash(ENTRIES[index])
        proof = inclusion_for_peer(peer, index, size)
        pymerkle.verify_inclusion(leaf, root, proof, index=index + 1, size=size)
        theirs = tuple(peer.prove_inclusion(index + 1, size).path[1:])
        merkle.verify_inclusion(ENTRIES[index], index, size, theirs, root)


@pytest.mark.parametrize("new", SIZES)
def test_the_peer_accepts_every_consistency_proof(peer: pymerkle.InmemoryTree, new: int) -> None:
    new_root = merkle.root(ENTRIES[:new])
    for old in range(1, new + 1):
        old_root = merkle.root(ENTRIES[:old])
        proof = consistency_for_peer(peer, old, new)
        pymerkle.verify_consistency(old_root, new_root, proof, prior_size=old, later_size=new)
        shape = peer.prove_consistency(old, new)
        theirs = rfc_proof(shape.path, shape.rule, old, new)
        assert tuple(theirs) == merkle.MerkleTree(ENTRIES[:new]).consistency_proof(old)
        merkle.verify_consistency(old, old_root, new, new_root, theirs)


def test_the_peer_refuses_what_we_refuse(peer: pymerkle.InmemoryTree) -> None:
    root, leaf = merkle.root(ENTRIES[:23]), merkle.leaf_hash(ENTRIES[9])
    proof = inclusion_for_peer(peer, 9, 23)
    for at in range(len(proof.path)):
        bad = inclusion_for_peer(peer, 9, 23)
        bad.path[at] = bytes(32)
        with pytest.raises(pymerkle.InvalidProof):
            pymerkle.verify_inclusion(leaf, root, bad)
    for at in range(len(consistency_for_peer(peer, 9, 23).path)):
        growth = consistency_for_peer(peer, 9, 23)
        growth.path[at] = bytes(32)
        with pytest.raises(pymerkle.InvalidProof):
            pymerkle.verify_consistency(merkle.root(ENTRIES[:9]), root, growth)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 70])
def test_the_peer_accepts_what_a_tlog_proof_file_holds(
    peer: pymerkle.InmemoryTree, size: int
) -> None:
    """The file is taken apart by hand, as its specification says."""
    index = size // 2
    head = Head(SIGNER.name, size, merkle.root(ENTRIES[:size]))
    path = merkle.MerkleTree(ENTRIES[:size]).inclusion_proof(index)
    text = TlogProof(index, path, sign_head(head, SIGNER)).encode()
    proof_lines, _, checkpoint = text.partition("\n\n")
    _, index_line, *hashes = proof_lines.split("\n")
    _, size_line, root_line = checkpoint.split("\n")[:3]
    found, total = int(index_line.split(" ")[1]), int(size_line)
    rule = peer.prove_inclusion(found + 1, total).rule
    decoded = [merkle.leaf_hash(ENTRIES[found]), *map(_base64, hashes)]
    proof = pymerkle.InclusionProof("sha256", True, total, found + 1, rule, decoded)
    pymerkle.verify_inclusion(merkle.leaf_hash(ENTRIES[found]), _base64(root_line), proof)


def _base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


# --- a reader of tiles -------------------------------------------------------------------


class Ledger:
    """As much of a ledger store as an export reads."""

    def __init__(self, size: int) -> None:
        self.values = [hashlib.sha256(b"%d" % i).digest() for i in range(size)]
        self.size = size
        self.tree = merkle.MerkleTree(self.values)

    @contextmanager
    def snapshot(self) -> Iterator[Ledger]:
        yield self

    def roots(self, first: int, end: int) -> list[bytes]:
        return self.values[first:end]

    def entries(self, first: int, end: int) -> list[Any]:
        return []  # of no run that it knows: none has an account

    outcomes = entries

    def ledger_size(self) -> int:
        return self.size

    def subtrees(self, wanted: Sequence[merkle.Subtree]) -> Sequence[bytes]:
        return self.tree.read(wanted)

    def head(self, size: int | None = None) -> HeadRow:
        root = merkle.root(self.values)
        note = sign_head(Head(SIGNER.name, self.size, root), SIGNER)
        return HeadRow(self.size, root, note, b"", 0.0)


class Reader:
    """Reads a folder of tiles for a tree of the checkpoint's size."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        origin, size, root = (folder / "checkpoint").read_text().split("\n")[:3]
        assert origin == SIGNER.name
        self.size, self.root = int(size), _base64(root)
        self.cache: dict[tuple[str, int], bytes] = {}

    def file(self, level: str, index: int, count: int) -> bytes:
        """Tile ``index`` of a level that has ``count`` hashes or entries."""
        if (level, index) not in self.cache:
            digits = f"{index:03}"
            digits = digits.zfill(-(-len(digits) // 3) * 3)
            groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
            name = "/".join(["x" + group for group in groups[:-1]] + groups[-1:])
            width = count - index * 256
            suffix = "" if width >= 256 else f".p/{width}"
            self.cache[level, index] = (self.folder / f"tile/{level}/{name}{suffix}").read_bytes()
        return self.cache[level, index]

    def hash(self, level: int, index: int) -> bytes:
        """MTH(D[index * 256**level : (index + 1) * 256**level])."""
        tile = self.file(str(level), index // 256, self.size // 256**level)
        at = index % 256 * 32
        assert len(tile) % 32 == 0
        return tile[at : at + 32]

    def mth(self, low: int, high: int, use: int) -> bytes:
        """RFC 6962 root of D[low:high], with no tile above level ``use``."""
        if high == low:
            return hashlib.sha256(b"").digest()
        for level in range(use, -1, -1):
            if high - low == 256**level and low % 256**level == 0:
                return self.hash(level, low // 256**level)
        k = 1
        while k * 2 < high - low:
            k *= 2
        left, right = self.mth(low, low + k, use), self.mth(low + k, high, use)
        return hashlib.sha256(b"\x01" + left + right).digest()

    def entries(self) -> list[bytes]:
        found = []
        for index in range(-(-self.size // 256)):
            rest = self.file("entries", index, self.size)
            while rest:
                length = int.from_bytes(rest[:2], "big")
                found.append(rest[2 : 2 + length])
                assert len(found[-1]) == length
                rest = rest[2 + length :]
        return found


def write(ledger: Ledger, folder: Path) -> None:
    export(cast(LedgerStore, ledger), folder, SIGNER.verifier)


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537])
def test_the_root_is_read_back_from_tiles_alone(size: int, tmp_path: Path) -> None:
    ledger = Ledger(size)
    write(ledger, tmp_path)
    reader = Reader(tmp_path)
    assert reader.root == merkle.root(ledger.values)
    for use in range(3):
        assert reader.mth(0, size, use) == reader.root
    assert reader.entries() == ledger.values
    assert [reader.hash(0, i) for i in range(size)] == [
        hashlib.sha256(b"\0" + entry).digest() for entry in ledger.values
    ]
    lying = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    told = {accounts_path(tile) for tile in tiles(size) if tile.level is None}
    assert lying == {"checkpoint", *told, *(tile.path for tile in tiles(size))}


def test_a_folder_that_grows_is_whole_at_every_size(tmp_path: Path) -> None:
    before: dict[Path, bytes] = {}
    for size in (1, 2, 255, 256, 257, 600, 66_000):
        ledger = Ledger(size)
        write(ledger, tmp_path)
        now = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        kept = {path: data for path, data in before.items() if path.name != "checkpoint"}
        assert kept.items() <= now.items(), "nothing that was served changes or goes"
        reader = Reader(tmp_path)
        assert reader.mth(0, size, 2) == reader.root
        assert reader.entries() == ledger.values
        assert open_head((tmp_path / "checkpoint").read_text(), SIGNER.verifier).size == size
        before = now


def test_levels_beyond_the_second(tmp_path: Path) -> None:
    """256**3 entries are too many for a test; the third level is checked by its definition."""
    entries = [b"%d" % (i % 7) for i in range(131_072)]
    ledger = TiledLedger(merkle.MerkleTree(entries), lambda first, end: entries[first:end])
    (second,) = (tile for tile in tiles(len(entries)) if tile.level == 2)
    data = ledger.data(second)
    halves = [merkle.root(entries[i : i + 65_536]) for i in (0, 65_536)]
    assert data == b"".join(halves)
