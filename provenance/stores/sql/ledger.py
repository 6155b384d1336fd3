"""Ledger entries, heads and receipts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, insert, or_, select, true, update

from provenance.errors import EquivocationError, FormatError, InputError, IntegrityError
from provenance.formats import json_text
from provenance.formats.checkpoint import parse_note
from provenance.formats.cosignature import Cosignature
from provenance.formats.merkle import (
    Frontier,
    Subtree,
    completed_by,
    leaf_hash,
    node_hash,
    node_number,
)
from provenance.formats.record import MAX_SAFE_INTEGER, Phase
from provenance.ports.values import HeadRow, LedgerEntry, OutcomeRow, ReceiptRow
from provenance.stores.sql.schema import (
    NO_EPOCH,
    OUTCOME,
    heads,
    ledger_entries,
    outcomes,
    receipts,
    runs,
    subtrees,
    summaries,
)
from provenance.stores.sql.session import Session, fields_of, values_in

_SEALS: Final = ledger_entries.c.phase != OUTCOME
_ENTRIES: Final = values_in(LedgerEntry, ledger_entries).where(_SEALS)
_HEADS: Final = values_in(HeadRow, heads)
_RECEIPTS: Final = values_in(ReceiptRow, receipts)
_UNFINISHED: Final = or_(runs.c.state != "sealed", runs.c.incomplete.is_not(None))
_AT_ONCE: Final = 500
"""Keys in one query."""


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
        for producer, events in stated:
            if len(producer) != 16 or not 1 <= events <= MAX_SAFE_INTEGER:
                raise InputError(f"coverage: {events} events of producer {producer.hex()[:40]}")
        if epoch is not None and not 0 <= epoch <= MAX_SAFE_INTEGER:
            raise InputError(f"epoch {epoch}, expected 0 to {MAX_SAFE_INTEGER}")
        self._share()
        stored_epoch = NO_EPOCH if epoch is None else epoch
        existing = self._one(_entry, _ENTRIES.where(*_of_seal(run, phase, epoch)))
        if existing is not None:
            return existing
        index = self.ledger_size()
        entry = LedgerEntry(index, run, phase, epoch, root, anchor, now, stated)
        written = {producer.hex(): events for producer, events in stated}
        row = fields_of(entry) | {"epoch": stored_epoch, "coverage": json.dumps(written)}
        self._insert_entry(row)
        return entry

    def append_outcome(self, run: UUID, number: int, document: bytes, now: float) -> int:
        self._share()
        index, root = self.ledger_size(), hashlib.sha256(document).digest()
        entry = ledger_entries.c
        own = (entry.run == run, entry.phase == OUTCOME, entry.epoch == number)
        if self._read(select(entry.index).where(*own)).first() is not None:
            raise InputError(f"run {run}: the ledger has outcome {number} of it")
        row = {"index": index, "run": run, "phase": OUTCOME, "epoch": number, "root": root}
        self._insert_entry(row | {"anchor": False, "created_at": now, "coverage": "{}"})
        self._write(insert(outcomes).values({"index": index, "document": document}))
        return index

    def _insert_entry(self, row: Mapping[str, Any]) -> None:
        """Insert an entry, and the subtrees that it completes."""
        index: int = row["index"]
        self._write(insert(ledger_entries).values(row))
        node, completed = leaf_hash(row["root"]), []
        for height, beside in enumerate(self._beside(index), 1):
            node = node_hash(beside, node)
            completed.append({"node": node_number(height, index >> height), "hash": node})
        if completed:
            self._write(insert(subtrees), completed)

    def is_sealed(self, run: UUID, phase: Phase, epoch: int | None) -> bool:
        query = select(ledger_entries.c.index).where(*_of_seal(run, phase, epoch))
        return self._read(query).first() is not None

    def _beside(self, index: int) -> Sequence[bytes]:
        """The left siblings of the subtrees that an entry completes: of the frontier that the next
        head is made of, so that a row that is damaged or gone neither spreads nor stops a seal."""
        siblings = completed_by(index)
        head = self.head(index) if siblings else None
        if head is not None:
            with suppress(FormatError):
                frontier = Frontier.from_bytes(head.frontier)
                if frontier.size == index:
                    return frontier.nodes[: -len(siblings) - 1 : -1]
        return self.subtrees(siblings)

    def ledger_size(self) -> int:
        highest: int | None = self._read(select(func.max(ledger_entries.c.index))).scalar()
        return 0 if highest is None else highest + 1

    def entries(
        self, run: UUID | None = None, first: int = 0, end: int | None = None
    ) -> Sequence[LedgerEntry]:
        query = _ENTRIES.order_by(ledger_entries.c.index)
        if run is not None:
            query = query.where(ledger_entries.c.run == run)
        if first:
            query = query.where(ledger_entries.c.index >= first)
        if end is not None:
            query = query.where(ledger_entries.c.index < end)
        return self._all(_entry, query)

    def roots(self, first: int, end: int) -> Sequence[bytes]:
        entry = ledger_entries.c
        query = select(entry.root).where(entry.index >= first, entry.index < end)
        return list(self._read(query.order_by(entry.index)).scalars())

    def outcomes(
        self, run: UUID | None = None, first: int = 0, end: int | None = None
    ) -> Sequence[OutcomeRow]:
        entry = ledger_entries.c
        query = select(entry.index, entry.run, outcomes.c.document).where(entry.index >= first)
        query = query.join(outcomes, outcomes.c.index == entry.index).order_by(entry.index)
        if run is not None:
            query = query.where(entry.run == run)
        if end is not None:
            query = query.where(entry.index < end)
        return [OutcomeRow(*row) for row in self._read(query)]

    def has_final(self, first: int, end: int) -> bool:
        entry = ledger_entries.c
        own = (entry.index >= first, entry.index < end, entry.phase == Phase.AFTER)
        return self._read(select(entry.index).where(*own).limit(1)).first() is not None

    def subtrees(self, wanted: Sequence[Subtree]) -> Sequence[bytes]:
        known: dict[int, bytes] = {}
        leaves = [number for height, number in wanted if not height]
        for at in range(0, len(leaves), _AT_ONCE):
            place = ledger_entries.c.index.in_(leaves[at : at + _AT_ONCE])
            rows = self._read(select(ledger_entries.c.index, ledger_entries.c.root).where(place))
            known |= {2 * i: leaf_hash(root) for i, root in rows if isinstance(root, bytes)}
        above = [node_number(*pair) for pair in wanted if pair[0]]
        for at in range(0, len(above), _AT_ONCE):
            place = subtrees.c.node.in_(above[at : at + _AT_ONCE])
            rows = self._read(select(subtrees.c.node, subtrees.c.hash).where(place))
            known |= {node: value for node, value in rows if isinstance(value, bytes)}
        nodes = [node_number(*pair) for pair in wanted]
        if len(known) < len(set(nodes)):
            height, number = wanted[next(at for at, node in enumerate(nodes) if node not in known)]
            raise IntegrityError(
                f"the ledger's subtree {number} of height {height} is gone or does not read; "
                "run: provenance fsck"
            )
        return [known[node] for node in nodes]

    def entry_of_root(self, root: bytes) -> LedgerEntry | None:
        query = _ENTRIES.where(ledger_entries.c.root == root)
        return self._one(_entry, query.order_by(ledger_entries.c.index.desc()).limit(1))

    def run_counts(self, team: str | None = None) -> tuple[int, int]:
        query = select(func.count()).select_from(runs).where(_of_team(team))
        every = self._read(query).scalar_one()
        return every, every - self._read(query.where(_UNFINISHED)).scalar_one()

    def unfinished(
        self, limit: int, team: str | None = None
    ) -> Sequence[tuple[UUID, str, tuple[int, ...]]]:
        newest = select(runs.c.run, runs.c.state).where(_UNFINISHED, _of_team(team))
        newest = newest.order_by(runs.c.created_at.desc(), runs.c.run.desc()).limit(limit)
        states = {row.run: row.state for row in self._read(newest)}
        indexes: dict[UUID, list[int]] = {run: [] for run in states}
        ids = list(states)
        for at in range(0, len(ids), _AT_ONCE):
            mine = ledger_entries.c.run.in_(ids[at : at + _AT_ONCE])
            query = select(ledger_entries.c.run, ledger_entries.c.index).where(mine, _SEALS)
            for run, index in self._read(query.order_by(ledger_entries.c.index)):
                indexes[run].append(index)
        return [(run, states[run], tuple(indexes[run])) for run in ids]

    def seals(self, of: Collection[UUID]) -> Mapping[UUID, Sequence[Phase]]:
        phases: dict[UUID, list[Phase]] = {}
        query = select(ledger_entries.c.run, ledger_entries.c.phase)
        query = query.where(ledger_entries.c.run.in_(list(of)), _SEALS)
        for run, phase in self._read(query.order_by(ledger_entries.c.index)):
            phases.setdefault(run, []).append(phase)
        return phases

    def add_head(self, head: HeadRow) -> None:
        existing = self.head(head.size)
        if existing is None:
            row = fields_of(head) | {"cosigned": _is_cosigned(head.note)}
            self._write(insert(heads).values(row))
        elif existing.root != head.root:
            raise EquivocationError(
                f"ledger size {head.size} has root {existing.root.hex()}, not {head.root.hex()}"
            )

    def head(self, size: int | None = None) -> HeadRow | None:
        query = _HEADS.order_by(heads.c.size.desc()).limit(1)
        if size is not None:
            query = query.where(heads.c.size == size)
        return self._one(HeadRow, query)

    def heads(self, first: int = 0, limit: int | None = None) -> Sequence[HeadRow]:
        query = _HEADS.where(heads.c.size >= first).order_by(heads.c.size)
        return self._all(HeadRow, query.limit(limit))

    def cosigned_head(self) -> HeadRow | None:
        query = _HEADS.where(heads.c.cosigned).order_by(heads.c.size.desc())
        return self._one(HeadRow, query.limit(1))

    def head_of_root(self, root: bytes) -> HeadRow | None:
        query = _HEADS.where(heads.c.root == root).order_by(heads.c.size.desc())
        return self._one(HeadRow, query.limit(1))

    def extend_head_note(self, size: int, lines: str) -> HeadRow:
        head = self.head(size)
        if head is None:
            raise InputError(f"the ledger has no head at size {size}")
        note = head.note + lines
        row = {"note": note, "cosigned": _is_cosigned(note)}
        self._write(update(heads).where(heads.c.size == size).values(row))
        return replace(head, note=note)

    def add_receipts(self, made: Sequence[ReceiptRow]) -> None:
        self._replace(receipts, [fields_of(receipt) for receipt in made])

    def delete_receipts(self, anchor_id: int) -> None:
        self._write(delete(receipts).where(receipts.c.anchor_id == anchor_id))

    def receipts(self, run: UUID) -> Sequence[ReceiptRow]:
        return self._all(
            ReceiptRow,
            _RECEIPTS.join(ledger_entries, ledger_entries.c.index == receipts.c.index)
            .where(ledger_entries.c.run == run)
            .order_by(receipts.c.index, receipts.c.network, receipts.c.anchor_id),
        )

    def receipt(self, anchor_id: int) -> tuple[int, str] | None:
        mine = receipts.c.anchor_id == anchor_id
        query = select(func.count().over(), receipts.c.document).where(mine).limit(1)
        row = self._read(query).one_or_none()
        return None if row is None else (row[0], row[1])


def _is_cosigned(note: str) -> bool:
    """Whether a line has the shape of a cosignature: what it is worth, the verifier says."""
    try:
        return any(map(Cosignature.of, parse_note(note).signatures))
    except (FormatError, InputError):
        return False


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


def _of_team(team: str | None) -> ColumnElement[bool]:
    """Of runs: all where None."""
    if team is None:
        return true()
    return runs.c.run.in_(select(summaries.c.run).where(summaries.c.team == team))
