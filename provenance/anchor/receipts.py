"""From a confirmed anchor to receipts for the ledger entries it is the first to cover.

An entry needs one receipt per network: from the smallest head that covers it. A
``confirmed`` receipt is provisional; when its anchor becomes FINAL the receipts are made
anew, and then for every entry that no smaller FINAL head covers, so that an entry whose own
head is lost to a reorg is covered by the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from provenance.errors import IntegrityError
from provenance.formats.merkle import MerkleTree
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
    states = [AnchorState.FINAL] if final else [AnchorState.FINAL, AnchorState.CONFIRMED]
    covered = max((a.size for a in tx.anchors(row.network, states) if a.size < row.size), default=0)
    return [entry for entry in tx.entries() if covered <= entry.index < row.size]


def attested_block(tx: LedgerTx, row: AnchorRow, entries: Sequence[LedgerEntry]) -> str | None:
    """The block hash that the receipts of the anchor state; None where one is missing."""
    block: str | None = None
    for entry in entries:
        mine = [
            receipt
            for receipt in tx.receipts(entry.run)
            if receipt.anchor_id == row.id and receipt.index == entry.index
        ]
        if not mine:
            return None
        block = Receipt.decode(mine[0].document.encode()).anchor.block_hash or ""
    return block


def make_receipts(
    tx: LedgerTx,
    row: AnchorRow,
    version: VersionRow,
    seen: Observation,
    evidence: Mapping[str, Json],
    now: float,
) -> list[ReceiptRow]:
    """Receipts for all that :func:`owed` names, each one checked. Reads only.

    Raises:
        IntegrityError: The ledger has no such head, or does not recompute to it.
    """
    head = tx.head(row.size)
    if head is None:
        raise IntegrityError(f"anchor {row.id}: the ledger has no head at size {row.size}")
    entries = owed(tx, row, seen.final)
    tree = MerkleTree(tx.entry_roots(row.size))
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
    for entry in entries:
        proof = tree.inclusion_proof(entry.index)
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
