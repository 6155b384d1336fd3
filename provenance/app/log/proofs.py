"""The ledger as a transparency log: what mirrors, auditors and witnesses get and give.

Life of a cosignature: :func:`consistency` prints what a witness asks for
(https://c2sp.org/tlog-witness, add-checkpoint); the witness answers with signature lines;
they are put behind the head's note; :func:`cosign` verifies them and stores the longer note,
which from then on goes into exports, proofs and bundles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from provenance.errors import (
    BadSignatureError,
    EquivocationError,
    FormatError,
    InputError,
    IntegrityError,
    ProofError,
    TooLargeError,
)
from provenance.formats.checkpoint import Head, open_head, parse_note
from provenance.formats.cosignature import Cosignature, WitnessKey
from provenance.formats.merkle import KeptTree, verify_consistency
from provenance.formats.note import MAX_NOTE_BYTES, MAX_SIGNATURES, VerifierKey, encode_base64
from provenance.formats.tlog.proof import TlogProof
from provenance.ports.store import LedgerStore
from provenance.ports.values import HeadRow, LedgerEntry

# --- proofs ------------------------------------------------------------------------------


class RunInLog(NamedTuple):
    """The newest root of a run, and the proof that the ledger has it under ``head``."""

    entry: LedgerEntry
    head: Head
    proof: TlogProof


def prove(store: LedgerStore, run: UUID, key: VerifierKey | None) -> RunInLog:
    """The proof of a run's newest root: under the newest cosigned head, else the newest; without
    the ledger's key the head's signature is not verified.

    Raises:
        InputError: The run has no root in the ledger.
        IntegrityError: The ledger does not recompute to its head.
        StoreUnavailable
    """
    with store.snapshot() as tx:
        entries = tx.entries(run)
        if not entries:
            raise InputError(f"run {run}: has no seal in the ledger yet")
        entry = entries[-1]
        # Of those that cover the entry the largest with a cosignature, else the largest.
        covering = (r for r in (tx.cosigned_head(), tx.head()) if r and r.size > entry.index)
        row = next(covering, None)
        if row is None:
            raise IntegrityError(f"entry {entry.index}: no head covers it; run: provenance fsck")
        tree = KeptTree(row.size, tx.subtrees)
        proof = TlogProof(entry.index, tree.inclusion_proof(entry.index), row.note)
    try:
        return RunInLog(entry, proof.verify(entry.root, key), proof)
    except (FormatError, IntegrityError) as error:
        raise ProofError(f"head {row.size}: {error}; run: provenance fsck") from error


@dataclass(frozen=True, slots=True)
class Growth:
    """That the ledger at one size extends the ledger at another: heads as the entries give them,
    the RFC 9162 consistency proof between them (at most 63 hashes of 32 bytes), and the signed
    heads, None where none was signed at that size."""

    old: Head
    new: Head
    proof: tuple[bytes, ...]
    old_note: str | None
    new_note: str | None

    def text(self) -> str:
        """As a witness takes it (https://c2sp.org/tlog-witness, add-checkpoint): old size,
        proof, empty line, new head; not signed where there is no signed one."""
        lines = [f"old {self.old.size}", *map(encode_base64, self.proof)]
        return "\n".join(lines) + "\n\n" + (self.new_note or self.new.text())


def consistency(
    store: LedgerStore, old: int, new: int, origin: str, key: VerifierKey | None
) -> Growth:
    """Prove that the ledger of ``old`` entries is a prefix of the one of ``new``; without the
    ledger's key the heads' signatures are not verified.

    Args:
        origin: The ledger's name, for a head that was never signed.

    Raises:
        InputError: The ledger has no such sizes.
        IntegrityError: A signed head is not what the entries give.
        StoreUnavailable
    """
    if not 0 <= old <= new:
        raise InputError(f"consistency: found OLD {old} and NEW {new}, expected 0 <= OLD <= NEW")
    with store.snapshot() as tx:
        tree = KeptTree(tx.ledger_size(), tx.subtrees)
        if tree.size < new:
            raise InputError(f"consistency: found NEW {new}, the ledger has {tree.size} entries")
        sizes = {size: Head(origin, size, tree.root(size)) for size in (old, new)}
        rows = {size: tx.head(size) for size in sizes}
        proof = tree.consistency_proof(old, new)
    notes: dict[int, str | None] = {}
    for size, row in rows.items():
        if row is not None:
            stated_head(row, sizes[size].root, key)
        notes[size] = None if row is None else row.note
    verify_consistency(old, sizes[old].root, new, sizes[new].root, proof)
    return Growth(sizes[old], sizes[new], proof, notes[old], notes[new])


def stated_head(row: HeadRow, root: bytes, key: VerifierKey | None) -> Head:
    """What a stored note states; it must be the head it is stored for.

    Args:
        root: What the entries give at that size.
        key: Without it the signature is not verified.

    Raises:
        IntegrityError: It states something else, is not signed, or cannot be read.
    """
    try:
        head = open_head(row.note, key) if key else parse_note(row.note).head
    except (FormatError, InputError, BadSignatureError) as error:
        raise IntegrityError(f"head {row.size}: {error}; run: provenance fsck") from error
    if (head.size, head.root) != (row.size, root):
        raise IntegrityError(
            f"head {row.size}: states size {head.size} and root {head.root.hex()}, the entries "
            f"give {root.hex()}; run: provenance fsck"
        )
    return head


# --- witnesses ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cosigned:
    """What :func:`cosign` took in.

    Attributes:
        added: New cosignatures, verified and stored.
        known: Those of the given witnesses that were stored before.
        ignored: Names on other signature lines that the ledger does not have; not stored.
        note: The head's note as it is stored now.
    """

    head: Head
    added: tuple[Cosignature, ...]
    known: tuple[Cosignature, ...]
    ignored: tuple[str, ...]
    note: str


def cosign(
    store: LedgerStore, note: str, key: VerifierKey, witnesses: Sequence[WitnessKey]
) -> Cosigned:
    """Store the cosignatures that the given witnesses put behind a head of this ledger: the lines
    of ``note``, the signed head.

    Raises:
        InputError: It brings nothing new by these witnesses.
        TooLargeError: The note would have more signatures or bytes than a reader takes.
        BadSignatureError: It is not signed by the ledger, or a cosignature does not verify.
        EquivocationError, IntegrityError: It is no head of this ledger.
        FormatError: It is no signed head.
        StoreUnavailable
    """
    head = open_head(note, key)
    given = parse_note(note)
    if head.origin != key.name:
        raise IntegrityError(f"the note is a head of {head.origin!r}, not of {key.name!r}")
    given_by_witnesses = dict.fromkeys(
        made for witness in witnesses for made in witness.cosignatures(given.text, given.signatures)
    )
    with store.transaction() as tx:
        row = tx.head(head.size)
        if row is None:
            raise IntegrityError(
                f"the ledger's key signed this head of size {head.size}, and the ledger has none"
            )
        stored = parse_note(row.note)
        if stored.text != given.text:
            raise EquivocationError(
                f"the ledger's key signed two heads of size {head.size}: with root "
                f"{stored.head.root.hex()}, and this one with {head.root.hex()}"
            )
        stored_lines = {(line.name, line.key_id, line.signature) for line in stored.signatures}
        known = tuple(made for made in given_by_witnesses if _blob(made) in stored_lines)
        added = tuple(made for made in given_by_witnesses if _blob(made) not in stored_lines)
        if not added:
            names = ", ".join(dict.fromkeys(each.label for each in known or witnesses))
            problem = f"the note has no cosignature by {names}"
            if known:
                problem = f"the cosignature by {names} is stored already"
            raise InputError(f"head {head.size}: {problem}")
        lines = "".join(made.line() for made in added)
        total = len(stored.signatures) + len(added)
        if total > MAX_SIGNATURES or len((row.note + lines).encode()) > MAX_NOTE_BYTES:
            raise TooLargeError(
                f"head {head.size}: its note would have {total} signatures, and a reader "
                f"takes {MAX_SIGNATURES} and {MAX_NOTE_BYTES} bytes"
            )
        row = tx.extend_head_note(head.size, lines)
    taken = stored_lines | {_blob(made) for made in added}
    ignored = dict.fromkeys(
        line.name
        for line in given.signatures
        if (line.name, line.key_id, line.signature) not in taken
    )
    return Cosigned(head, added, known, tuple(ignored), row.note)


def _blob(made: Cosignature) -> tuple[str, bytes, bytes]:
    """Name, key id and signature as `NoteSignature` has them."""
    return (made.name, made.key_id, made.time.to_bytes(8, "big") + made.signature)
