"""Rows for tests of the ledger store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from uuid import UUID

from provenance.formats.record import Kind, Record
from provenance.formats.run_tree.selection import Checkpoint, DigestedRecord
from provenance.ports.store import LedgerTx
from provenance.ports.values import AnchorRow, AnchorState, HeadRow, SignedVersion, StoredRecord

RUN = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
OTHER = UUID("01890a5d-ac96-774b-bcce-b302099a8058")
KEY = bytes(range(32))
A = b"a" * 16
B = b"b" * 16
DUE = (AnchorState.DUE, AnchorState.SENT)


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def record(
    seq: int,
    *,
    run: UUID = RUN,
    producer: bytes = A,
    kind: Kind = Kind.METRICS,
    epoch: int | None = 1,
    text: str | None = None,
) -> StoredRecord:
    data = (text or f"{producer.hex()} {seq}").encode()
    own = hashlib.sha256(data).digest()
    return StoredRecord(run, producer, seq, kind, epoch, 0, f"{seq:027}", own, data)


def digested(tx: LedgerTx, run: UUID) -> list[DigestedRecord]:
    """All records of a run, decoded, with their stored digests."""
    return [DigestedRecord(Record.decode(row.data), row.digest) for row in tx.records(run)]


def covered(
    records: Iterable[DigestedRecord], checkpoints: Sequence[Checkpoint]
) -> dict[bytes, int]:
    """What the last of the checkpoints has to state, being what it states or less (rule 4)."""
    if not checkpoints:
        return {}
    own, before = checkpoints[-1], max((c.epoch for c in checkpoints[:-1]), default=-1)
    found: dict[bytes, int] = {}
    for item in records:
        record = item.record
        if not record.kind.is_epoch or record.epoch is None:
            continue
        if before < record.epoch <= own.epoch and (
            record.seq < own.coverage.get(record.producer, 0)
        ):
            found[record.producer] = max(record.seq + 1, found.get(record.producer, 0))
    return found


def signed(text: str = "tx", **changes: object) -> SignedVersion:
    plain = SignedVersion(
        network="ethereum",
        payload=b"MLP1" + bytes(32),
        transaction_id=f"0x{text}",
        raw=text.encode(),
        key="0xkey",
        nonce=7,
        fee=2_000_000_000,
        detail={"chain_id": 31337, "inputs": ["a", "b"], "wei": 10**30},
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # keyword arguments of several types


def with_heads(tx: LedgerTx, sizes: int) -> None:
    for size in range(1, sizes + 1):
        tx.add_head(HeadRow(size, digest(f"root {size}"), f"note {size}", b"frontier", 1.0))


def with_anchor(tx: LedgerTx, size: int = 1, network: str = "ethereum") -> AnchorRow:
    with_heads(tx, size)
    return tx.add_anchor(network, size, 1.0)
