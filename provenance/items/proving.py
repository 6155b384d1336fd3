"""Proofs that items were among a run's data, or that none of them was; made and checked.

Life of a proof: the owner names items and the run. Their keyed digests are looked up in the digests
kept at home; the leaves that have them, or on either side of them, go into a file with the hashes
that lead from there to the root, and the item key. Whoever gets it makes the digests of the items
anew, with that key, and holds the root against the run's record, which must stand under a run root
that recomputes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from blake3 import blake3

from provenance import files
from provenance.errors import InputError, IntegrityError, ProofError
from provenance.evidence.run_evidence import RecordFile, RunEvidence
from provenance.formats.item_set import (
    LEAF_DIGESTS,
    MAX_PROOF_BYTES,
    Claim,
    ItemProof,
    ItemSet,
    Split,
    key_commitment,
)
from provenance.formats.merkle import HASH_SIZE, ranges_beside
from provenance.formats.record import Kind, Record
from provenance.items.folder import ItemFolder
from provenance.items.values import item_bytes
from provenance.models.stated import record_problem, signed_counts
from provenance.verify.report import VerificationReport

NOT_CHECKED: Final = (
    "that these are the items that the run trained on: the record is the trainer's word, and only"
    " who has the data and the key can make the set anew",
    "items that mean the same and have other bytes, such as a picture saved again: an item is the"
    " same where every bit is",
    "what the run's evidence rests on, check by check: provenance verify says it",
)
_NO_FORM: Final = (
    "the type of each item: the set's items differ in form, so an item of another type counts as"
    " another item"
)
_SHOWN: Final = 5
_WORDS: Final = {"in": "in", "not-in": "absent from"}

Items = Iterable[tuple[str, Any]]
"""What a message calls an item, and the item."""


@dataclass(frozen=True, slots=True)
class StatedSet:
    """An item set as a record of a run states it.

    Attributes:
        path: Of the record in the run tree; ``digest`` its SHA-256.
        is_table: The items are rows of a table.
    """

    run: UUID
    split: Split
    path: str
    digest: bytes
    items: ItemSet
    is_table: bool

    def digests(
        self, key: bytes, items: Items, nearest: list[str] | None = None
    ) -> list[tuple[str, bytes]]:
        """What a message calls each item, and its keyed digest; ``InputError``. ``nearest`` as
        :func:`item_bytes`."""
        hasher, found = blake3(key=key), list[tuple[str, bytes]]()
        for where, value in items:
            hasher.reset()
            hasher.update(item_bytes(where, value, self.items.form, self.is_table, nearest))
            found.append((where, hasher.digest()))
        if not found:
            raise InputError("ITEM: found none, expected one at least")
        return found


@dataclass(frozen=True, slots=True)
class ItemCheck:
    """What a proof says of some items.

    Attributes:
        record: Path of the record that states the set.
        items: How many were asked for; ``size``: distinct ones of the set.
        others: Those of which the claim does not hold, or is not shown.
        nearest: Of items with a number that its type has not: which was asked instead.
    """

    run: UUID
    split: Split
    claim: Claim
    record: str
    items: int
    size: int
    others: tuple[str, ...]
    nearest: tuple[str, ...]
    not_checked: tuple[str, ...]

    @classmethod
    def of(
        cls,
        stated: StatedSet,
        claim: Claim,
        items: int,
        others: Sequence[str],
        nearest: Sequence[str],
    ) -> ItemCheck:
        """Of items that were looked for in a set."""
        not_checked = NOT_CHECKED if stated.items.form else (*NOT_CHECKED, _NO_FORM)
        size = stated.items.size
        run, split, path = stated.run, stated.split, stated.path
        told = tuple(others), tuple(nearest)
        return cls(run, split, claim, path, items, size, *told, not_checked)

    @property
    def holds(self) -> bool:
        """Whether the claim holds of every item."""
        return not self.others

    @property
    def line(self) -> str:
        """What came out, for people."""
        where = f"the {self.split} data of run {self.run} ({self.record}: {self.size} items)"
        if self.holds:
            number = "1 item is" if self.items == 1 else f"all {self.items} items are"
            return f"{number} {_WORDS[self.claim]} {where}"
        count = len(self.others)
        some = ", ".join(self.others[:_SHOWN]) + (", ..." if count > _SHOWN else "")
        number = f"{count} of {self.items} items {'is' if count == 1 else 'are'}"
        return f"FOUND: {number} not shown to be {_WORDS[self.claim]} {where}: {some}"

    @property
    def asked(self) -> list[str]:
        """Which numbers were asked in the place of others, for people."""
        more = len(self.nearest) - _SHOWN
        rest = [f"asked: ... of {more} more items"] if more > 0 else []
        return [f"asked: {line}" for line in self.nearest[:_SHOWN]] + rest

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "v": 1,
            "holds": self.holds,
            "run_id": str(self.run),
            "split": self.split,
            "claim": self.claim,
            "record": self.record,
            "items": self.items,
            "set_size": self.size,
            "others": list(self.others),
            "nearest": list(self.nearest),
            "not_checked": list(self.not_checked),
        }


def owned_set(evidence: RunEvidence, folder: ItemFolder, split: Split) -> StatedSet:
    """The set of a run's split whose key and digests the folder has. ``InputError``: the run has
    none, or the key is lost or another; ``FormatError``: its record states what is none."""
    kind = Kind.DATA_TRAIN if split == "train" else Kind.DATA_TEST
    records = [record for record in evidence.records if record.kind is kind]
    stated = [s for record in records if (s := _stated(evidence.run, split, record)) is not None]
    if not stated:
        problem = "track_data(..., items=True) records one"
        raise InputError(f"run {evidence.run}: has no item set of its {split} data: {problem}")
    commitment = key_commitment(folder.key(split))
    own = [one for one in stated if one.items.key == commitment]
    if not own:
        path = folder.path(split, "key")
        raise InputError(f"{path}: is another key than that of {stated[-1].path}")
    return own[-1]


def _stated(run: UUID, split: Split, record: RecordFile) -> StatedSet | None:
    if not isinstance(record.decoded, Record):
        return None
    body = record.decoded.body
    items = ItemSet.of(body, record.path)
    is_table = body.get("kind") == "table"
    if items is None:
        return None
    return StatedSet(run, split, record.path, record.digest, items, is_table)


def prove(
    stated: StatedSet, folder: ItemFolder, claim: Claim, items: Items
) -> tuple[ItemCheck, ItemProof | None]:
    """Prove that all items are in a set, or none of them; None where that is not so.

    Raises:
        InputError: The digests or the key are lost, or an item has another form.
    """
    split, key = stated.split, folder.key(stated.split)
    nearest = list[str]()
    digests = stated.digests(key, items, nearest)
    with folder.opened(split) as kept:
        leaves, others = set[int](), []
        for name, digest in digests:
            place = kept.place(digest)
            found = place < kept.digests and kept.digest(place) == digest
            if found != (claim == "in"):
                others.append(name)
            beside = (place,) if found else (place - 1, place)
            leaves |= {at // LEAF_DIGESTS for at in beside if 0 <= at < kept.digests}
        shown = sorted(leaves)
        data = b"".join(map(kept.leaf, shown))
        ranges = ranges_beside(shown, kept.size)
        hashes = kept.hashes(ranges)
    proof = ItemProof(
        stated.run,
        split,
        stated.digest,
        claim,
        key,
        tuple(shown),
        tuple(data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE)),
        tuple(hashes[own] for own in ranges),
    )
    try:
        proof.shown(stated.items)
    except ProofError as error:
        path = folder.path(split, "digests")
        raise InputError(f"{path}: has other digests than {stated.path} states") from error
    checked = ItemCheck.of(stated, claim, len(digests), others, nearest)
    return checked, None if others else proof


def read_proof(path: Path) -> ItemProof:
    """A proof's file; ``InputError``."""
    kind = "a proof of 'provenance data prove'"
    return files.read_given(path, kind, MAX_PROOF_BYTES, ItemProof.decode)


def proven_set(report: VerificationReport, proof: ItemProof) -> StatedSet:
    """The set that a proof is about, from what verifying its run found.

    Raises:
        IntegrityError: The proof is of another run or split, the record is not there, or does not
            count: it stands under no run root that holds.
    """
    if proof.run != report.run:
        raise IntegrityError(f"run: the proof is of run {proof.run}, this is run {report.run}")
    record = next((r for r in report.evidence.records if r.digest == proof.record), None)
    if record is None:
        raise IntegrityError(f"record: run {report.run} has none of digest {proof.record.hex()}")
    slot = record.path.rpartition("/")[0]
    if slot != f"data/{proof.split}":
        raise IntegrityError(f"split: found {proof.split}, the proof's record is {record.path}")
    if record.withheld:
        raise IntegrityError(f"{record.path}: is withheld, expected the record of the item set")
    problem = record_problem(report, signed_counts(report.evidence), record)
    if problem is not None:
        raise IntegrityError(f"{record.path}: does not count: {problem}")
    stated = _stated(report.run, proof.split, record)
    if stated is None:
        raise IntegrityError(f"{record.path}: states no item set")
    return stated


def check(stated: StatedSet, proof: ItemProof, items: Items) -> ItemCheck:
    """Hold items against a proof. ``ProofError``: it does not hold; ``InputError``: an item has
    another form."""
    shown = proof.shown(stated.items)
    nearest = list[str]()
    digests = stated.digests(proof.key, items, nearest)
    others = [name for name, digest in digests if shown.claim(digest) != proof.claim]
    return ItemCheck.of(stated, proof.claim, len(digests), others, nearest)
