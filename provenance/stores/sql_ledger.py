"""Ledger entries, heads and receipts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Row, delete, func, insert, select, update

from provenance.errors import EquivocationError, InputError, IntegrityError
from provenance.formats import json_text
from provenance.formats.record import MAX_SAFE_INTEGER, Phase
from provenance.ports.values import HeadRow, LedgerEntry, ReceiptRow
from provenance.stores.schema import NO_EPOCH, heads, ledger_entries, receipts
from provenance.stores.sql_session import Session


class LedgerPart(Session):
    """The append-only log: nothing here deletes an entry or a head or changes what it says; a
    head's note only gains signature lines."""

    def append_entry(
        self,
        run: UUID,
        phase: Phase,
        epoch: int | None,
        root: bytes,
        anchor: bool,
        now: float,
        coverage: Mapping[bytes, int] | None = None,
    ) -> LedgerEntry:
        stated = tuple(sorted((coverage or {}).items()))
        if stated and phase is not Phase.CHECKPOINT:
            raise InputError(f"coverage of {phase.value}: only a checkpoint has one")
        for producer, events in stated:
            if len(producer) != 16 or not 0 <= events <= MAX_SAFE_INTEGER:
                raise InputError(f"coverage: {events} events of producer {producer.hex()[:40]}")
        if epoch is not None and not 0 <= epoch <= MAX_SAFE_INTEGER:
            raise InputError(f"epoch {epoch}, expected 0 to {MAX_SAFE_INTEGER}")
        stored_epoch = NO_EPOCH if epoch is None else epoch
        there = self._read(
            select(ledger_entries).where(
                ledger_entries.c.run == run,
                ledger_entries.c.phase == phase.value,
                ledger_entries.c.epoch == stored_epoch,
            )
        ).one_or_none()
        if there is not None:
            return _entry(there)
        highest = self._read(select(func.max(ledger_entries.c.entry))).scalar()
        index = 0 if highest is None else int(highest) + 1
        self._write(
            insert(ledger_entries).values(
                entry=index,
                run=run,
                phase=phase.value,
                epoch=stored_epoch,
                root=root,
                anchor=anchor,
                created_at=now,
                coverage=json.dumps({producer.hex(): events for producer, events in stated}),
            )
        )
        return LedgerEntry(index, run, phase, epoch, root, anchor, now, stated)

    def entries(self, run: UUID | None = None) -> Sequence[LedgerEntry]:
        query = select(ledger_entries).order_by(ledger_entries.c.entry)
        if run is not None:
            query = query.where(ledger_entries.c.run == run)
        return [_entry(row) for row in self._read(query)]

    def entry_roots(self, size: int | None = None) -> Sequence[bytes]:
        query = select(ledger_entries.c.root).order_by(ledger_entries.c.entry)
        if size is not None:
            query = query.where(ledger_entries.c.entry < size)
        return [bytes(root) for root in self._read(query).scalars()]

    def add_head(self, head: HeadRow) -> None:
        """The first head at a size stands; EquivocationError for another root."""
        there = self.head(head.size)
        if there is None:
            self._write(
                insert(heads).values(
                    size=head.size,
                    root=head.root,
                    note=head.note,
                    frontier=head.frontier,
                    created_at=head.created_at,
                )
            )
        elif there.root != head.root:
            raise EquivocationError(
                f"ledger size {head.size} has root {there.root.hex()}, not {head.root.hex()}"
            )

    def head(self, size: int | None = None) -> HeadRow | None:
        query = select(heads).order_by(heads.c.size.desc()).limit(1)
        if size is not None:
            query = query.where(heads.c.size == size)
        row = self._read(query).one_or_none()
        return None if row is None else _head(row)

    def heads(self) -> Sequence[HeadRow]:
        """By size."""
        return [_head(row) for row in self._read(select(heads).order_by(heads.c.size))]

    def extend_head_note(self, size: int, lines: str) -> HeadRow:
        there = self.head(size)
        if there is None:
            raise InputError(f"the ledger has no head at size {size}")
        note = there.note + lines
        self._write(update(heads).where(heads.c.size == size).values(note=note))
        return replace(there, note=note)

    def add_receipt(self, receipt: ReceiptRow) -> None:
        statement = self._upsert(receipts).values(
            entry=receipt.index,
            anchor_id=receipt.anchor_id,
            network=receipt.network,
            document=receipt.document,
            created_at=receipt.created_at,
        )
        self._write(
            statement.on_conflict_do_update(
                index_elements=[receipts.c.entry, receipts.c.anchor_id],
                set_={
                    "network": statement.excluded.network,
                    "document": statement.excluded.document,
                    "created_at": statement.excluded.created_at,
                },
            )
        )

    def delete_receipts(self, anchor_id: int) -> None:
        self._write(delete(receipts).where(receipts.c.anchor_id == anchor_id))

    def receipts(self, run: UUID) -> Sequence[ReceiptRow]:
        rows = self._read(
            select(receipts)
            .join(ledger_entries, ledger_entries.c.entry == receipts.c.entry)
            .where(ledger_entries.c.run == run)
            .order_by(receipts.c.entry, receipts.c.network, receipts.c.anchor_id)
        )
        return [
            ReceiptRow(row.entry, row.anchor_id, row.network, row.document, row.created_at)
            for row in rows
        ]


def _entry(row: Row[Any]) -> LedgerEntry:
    epoch = None if row.epoch == NO_EPOCH else row.epoch
    return LedgerEntry(
        row.entry,
        row.run,
        Phase(row.phase),
        epoch,
        row.root,
        row.anchor,
        row.created_at,
        _coverage(row),
    )


def _coverage(row: Row[Any]) -> tuple[tuple[bytes, int], ...]:
    try:
        stated = json_text.loads(row.coverage)
        found = {bytes.fromhex(producer): events for producer, events in stated.items()}
    except (AttributeError, TypeError, ValueError, RecursionError):
        found = {b"": None}
    if any(type(n) is not int or n < 0 or len(producer) != 16 for producer, n in found.items()):
        raise IntegrityError(f"ledger entry {row.entry}: what it states to cover does not read")
    return tuple(sorted(found.items()))


def _head(row: Row[Any]) -> HeadRow:
    return HeadRow(row.size, row.root, row.note, row.frontier, row.created_at)
