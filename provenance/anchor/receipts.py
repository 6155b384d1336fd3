"""From a confirmed anchor to receipts for the ledger entries it is the first to cover.

An entry needs one receipt per network: from the smallest head that covers it. A
``confirmed`` receipt is provisional; when its anchor becomes FINAL the receipts are made
anew, and then for every entry that no smaller FINAL head covers, so that an entry whose own
head is lost to a reorg is covered by the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from provenance.errors import IntegrityError
from provenance.formats.merkle import KeptTree
from provenance.formats.receipt import AnchorProof, LedgerProof, Receipt
from provenance.formats.record import Json
from provenance.ports.store import LedgerTx
from provenance.ports.values import (
    AnchorRow,
    AnchorState,
    LedgerEntry,
    Observation,
    ReceiptRow,
    VersionRow,
)


def owed(tx: LedgerTx, row: AnchorRow, final: bool) -> list[LedgerEntry]:
    """Entries that the anchor is the first to cover, among anchors at least as certain."""
    return list(tx.entries(first=first_owed(tx, row, final), end=row.size))


def first_owed(tx: LedgerTx, row: AnchorRow, final: bool) -> int:
    """The index of the first of them; all up to the anchor's head are."""
    states = [AnchorState.FINAL] if final else [AnchorState.FINAL, AnchorState.CONFIRMED]
    return tx.reach(row.network, states, below=row.size)


def attested_block(tx: LedgerTx, row: AnchorRow) -> str | None:
    """The block hash that the receipts of the anchor state, which are made together; None where
    one that it owes is missing."""
    made = tx.receipt(row.id)
    if made is None or made[0] < len(owed(tx, row, final=False)):
        return None
    return Receipt.decode(made[1].encode()).anchor.block_hash or ""


def make_receipts(
    tx: LedgerTx,
    row: AnchorRow,
    version: VersionRow,
    seen: Observation,
    evidence: Mapping[str, Json],
    now: float,
) -> list[ReceiptRow]:
    """Receipts for all that :func:`owed` names, each one checked. Reads only. Raises
    IntegrityError: the ledger has no such head, or does not recompute to it."""
    head = tx.head(row.size)
    if head is None:
        raise IntegrityError(f"anchor {row.id}: the ledger has no head at size {row.size}")
    entries = owed(tx, row, seen.final)
    tree = KeptTree(row.size, tx.subtrees)
    proofs = tree.inclusion_proofs((entry.index, row.size) for entry in entries)
    anchor = AnchorProof(
        network=row.network,
        state="final" if seen.final else "confirmed",
        transaction_id=version.version.transaction_id,
        payload=version.version.payload,
        height=seen.height,
        block_hash=seen.block_hash,
        depth=seen.depth,
        block_time=seen.block_time,
        confirmed_at=now,
    )
    made = []
    for entry, proof in zip(entries, proofs, strict=True):
        receipt = Receipt(
            run=entry.run,
            phase=entry.phase,
            epoch=entry.epoch,
            root=entry.root,
            ledger=LedgerProof(entry.index, row.size, row.root, proof),
            head=head.note,
            anchor=anchor,
            evidence=evidence,
        )
        receipt.verify_inclusion()
        document = receipt.encode().decode()
        made.append(ReceiptRow(entry.index, row.id, row.network, document, now))
    return made


def final_everywhere(tx: LedgerTx, networks: Sequence[str]) -> int:
    """The size up to which the ledger lies under a final head on each of ``networks``; 0 where
    there is no network."""
    return min((tx.reach(name, (AnchorState.FINAL,)) for name in networks), default=0)
