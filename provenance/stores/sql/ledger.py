"""Ledger entries, heads and receipts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, insert, select, update

from provenance.errors import EquivocationError, InputError, IntegrityError
from provenance.formats import json_text
from provenance.formats.record import MAX_SAFE_INTEGER, Phase
from provenance.ports.values import HeadRow, LedgerEntry, ReceiptRow
from provenance.stores.sql.schema import NO_EPOCH, heads, ledger_entries, receipts
from provenance.stores.sql.session import Session, fields_of, values_in

_ENTRIES: Final = values_in(LedgerEntry, ledger_entries)
_HEADS: Final = values_in(HeadRow, heads)
_RECEIPTS: Final = values_in(ReceiptRow, receipts)


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
        """Next index, or the existing entry of ``(run, phase, epoch)``."""
        stated = tuple(sorted((coverage or {}).items()))
        for producer, events in stated:
            if len(producer) != 16 or not 1 <= events <= MAX_SAFE_INTEGER:
                raise InputError(f"coverage: {events} events of producer {producer.hex()[:40]}")
        if epoch is not None and not 0 <= epoch <= MAX_SAFE_INTEGER:
            raise InputError(f"epoch {epoch}, expected 0 to {MAX_SAFE_INTEGER}")
        stored_epoch = NO_EPOCH if epoch is None else epoch
        existing = self._one(_entry, _ENTRIES.where(*_of_seal(run, phase, epoch)))
        if existing is not None:
            return existing
        highest = self._read(select(func.max(ledger_entries.c.index))).scalar()
        index = 0 if highest is None else int(highest) + 1
        entry = LedgerEntry(index, run, phase, epoch, root, anchor, now, stated)
        written = {producer.hex(): events for producer, events in stated}
        row = fields_of(entry) | {"epoch": stored_epoch, "coverage": json.dumps(written)}
        self._write(insert(ledger_entries).values(row))
        return entry

    def is_sealed(self, run: UUID, phase: Phase, epoch: int | None) -> bool:
        """Whether there is an entry of ``(run, phase, epoch)``."""
        query = select(ledger_entries.c.index).where(*_of_seal(run, phase, epoch))
        return self._read(query).first() is not None

    def entries(self, run: UUID | None = None) -> Sequence[LedgerEntry]:
        """By index."""
        query = _ENTRIES.order_by(ledger_entries.c.index)
        if run is not None:
            query = query.where(ledger_entries.c.run == run)
        return self._all(_entry, query)

    def entry_roots(self, size: int | None = None) -> Sequence[bytes]:
        """The first ``size`` roots, 32 bytes each; all where None."""
        query = select(ledger_entries.c.root).order_by(ledger_entries.c.index)
        if size is not None:
            query = query.where(ledger_entries.c.index < size)
        return [bytes(root) for root in self._read(query).scalars()]

    def add_head(self, head: HeadRow) -> None:
        """The first head at a size stands; EquivocationError for another root."""
        existing = self.head(head.size)
        if existing is None:
            self._write(insert(heads).values(fields_of(head)))
        elif existing.root != head.root:
            raise EquivocationError(
                f"ledger size {head.size} has root {existing.root.hex()}, not {head.root.hex()}"
            )

    def head(self, size: int | None = None) -> HeadRow | None:
        """The head at ``size``, the largest where None; None if absent."""
        query = _HEADS.order_by(heads.c.size.desc()).limit(1)
        if size is not None:
            query = query.where(heads.c.size == size)
        return self._one(HeadRow, query)

    def heads(self) -> Sequence[HeadRow]:
        """By size."""
        return self._all(HeadRow, _HEADS.order_by(heads.c.size))

    def extend_head_note(self, size: int, lines: str) -> HeadRow:
        """Append signature lines to a head's note. Raises InputError if absent."""
        head = self.head(size)
        if head is None:
            raise InputError(f"the ledger has no head at size {size}")
        note = head.note + lines
        self._write(update(heads).where(heads.c.size == size).values(note=note))
        return replace(head, note=note)

    def add_receipt(self, receipt: ReceiptRow) -> None:
        """Insert or replace by ``(index, anchor_id)``."""
        self._replace(receipts, fields_of(receipt))

    def delete_receipts(self, anchor_id: int) -> None:
        """All of an anchor."""
        self._write(delete(receipts).where(receipts.c.anchor_id == anchor_id))

    def receipts(self, run: UUID) -> Sequence[ReceiptRow]:
        """Of the run's entries, by ``(index, network, anchor_id)``."""
        return self._all(
            ReceiptRow,
            _RECEIPTS.join(ledger_entries, ledger_entries.c.index == receipts.c.index)
            .where(ledger_entries.c.run == run)
            .order_by(receipts.c.index, receipts.c.network, receipts.c.anchor_id),
        )


def _of_seal(run: UUID, phase: Phase, epoch: int | None) -> tuple[ColumnElement[bool], ...]:
    entry, stored = ledger_entries.c, NO_EPOCH if epoch is None else epoch
    return entry.run == run, entry.phase == phase, entry.epoch == stored


def _entry(
    index: int, run: UUID, phase: Phase, epoch: int, root: bytes, anchor: bool, at: float, text: str
) -> LedgerEntry:
    coverage = _coverage(index, text)
    known = None if epoch == NO_EPOCH else epoch
    return LedgerEntry(index, run, phase, known, root, anchor, at, coverage)


def _coverage(index: int, text: str) -> tuple[tuple[bytes, int], ...]:
    try:
        stated: dict[bytes, Any] = {
            bytes.fromhex(producer): events for producer, events in json_text.loads(text).items()
        }
    except (AttributeError, TypeError, ValueError, RecursionError):
        stated = {b"": None}
    if any(type(n) is not int or n < 1 or len(producer) != 16 for producer, n in stated.items()):
        raise IntegrityError(f"ledger entry {index}: what it states to cover does not read")
    return tuple(sorted(stated.items()))
