"""One run: its events against its records, its records against themselves, and its seals."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from provenance.errors import FormatError, ProvenanceError
from provenance.formats.event import Event, SegmentHeader, record_of
from provenance.formats.record import Kind, Phase, Record
from provenance.formats.run_tree.selection import (
    DigestedRecord,
    SealMark,
    announced_events,
    announced_ranks,
    before_mark,
    misannounced,
    seal_marks,
)
from provenance.formats.run_tree.walk import RunWalk
from provenance.fsck.findings import Finding, FindingKind, event_name
from provenance.fsck.rows import RecordRow, RunFacts
from provenance.fsck.runs.kept import check_kept
from provenance.fsck.runs.producers import check_signatures


def check_run(facts: RunFacts) -> Iterator[Finding]:
    """Everything about one run."""
    decoded = yield from _records(facts)
    yield from check_signatures(facts)
    yield from _events(facts)
    yield from _holes(facts, decoded)
    yield from _gaps(facts, decoded)
    yield from _row(facts, decoded)
    walk = RunWalk(facts.run, decoded, facts.entries)
    yield from _roots(facts, walk)
    yield from _seals(facts, decoded, walk)
    yield from check_kept(facts, [item.record for item in decoded], walk)


# --- records -----------------------------------------------------------------------------


def _records(facts: RunFacts) -> Generator[Finding, None, list[DigestedRecord]]:
    """Digests, form and place of each record.

    Returns:
        Those that decode, with the SHA-256 of what is really stored.
    """
    decoded: list[DigestedRecord] = []
    for row in facts.records:
        name = event_name(row.run, row.producer, row.seq)
        digest = hashlib.sha256(row.data).digest()
        if digest != row.digest:
            yield FindingKind.RECORD_DIGEST(
                name,
                f"SHA-256 of the record is {digest.hex()}, its digest column {row.digest.hex()}",
            )
        try:
            record = Record.decode(row.data)
        except FormatError as error:
            yield FindingKind.RECORD_UNREADABLE(name, str(error))
            continue
        differs = _misplaced(row, record)
        if differs:
            yield FindingKind.RECORD_PLACE(name, f"the record states another {', '.join(differs)}")
        elif row.ts != record.ts:
            problem = f"records.ts is {row.ts[:40]}, the record states {record.ts}"
            yield FindingKind.KEPT_STATE(name, problem)
        decoded.append(DigestedRecord(record, digest))
    return decoded


def _misplaced(row: RecordRow, record: Record) -> list[str]:
    names = ("run", "producer", "seq", "kind", "epoch", "rank")
    return [name for name in names if getattr(row, name) != getattr(record, name)]


# --- events ------------------------------------------------------------------------------


def _events(facts: RunFacts) -> Iterator[Finding]:
    """Every event of the spool is in the database or in a stream, and says the same there."""
    stored = {(row.producer, row.seq): row.data for row in facts.records}
    for (producer, seq), (header, event) in sorted(facts.spooled.items(), key=lambda i: i[0]):
        name = event_name(facts.run, producer, seq)
        data = stored.get((producer, seq), facts.streamed.get((producer, seq)))
        if data is None:
            refused = facts.parked.get((producer, seq), ())
            if any(_same(event, header, other) for other in refused):
                continue  # a finding of its own
            if facts.ignore_after_ns is None or event.ts_ns < facts.ignore_after_ns:
                yield FindingKind.EVENT_MISSING(
                    name,
                    f"{event.kind.value} event is in the spool, and in neither database nor stream",
                )
        elif not _same(event, header, data):
            yield FindingKind.EVENT_DIFFERS(
                name, f"{event.kind.value} event in the spool is not what was recorded"
            )
    for (producer, seq), data in sorted(facts.streamed.items()):
        known = stored.get((producer, seq))
        if known is not None and known != data:
            yield FindingKind.EVENT_DIFFERS(
                event_name(facts.run, producer, seq),
                "the record in the stream is not the one in the database",
            )


def _same(event: Event, header: SegmentHeader, data: bytes) -> bool:
    """Whether the bytes are the event's record, whatever its salt."""
    try:
        record = Record.decode(data)
    except FormatError:
        return True  # a finding of its own
    try:
        expected = replace(record_of(event, header, b""), salt=record.salt).encode()
    except (ProvenanceError, ValueError, OverflowError):
        return record.kind is Kind.GAP  # what has no form as a record is recorded as a gap
    return expected == data


def _holes(facts: RunFacts, decoded: Collection[DigestedRecord]) -> Iterator[Finding]:
    """Numbers below the highest one known that are nowhere."""
    held: dict[bytes, set[int]] = {}
    for producer, seq in (
        *((row.producer, row.seq) for row in facts.records),
        *facts.spooled,
        *facts.streamed,
    ):
        held.setdefault(producer, set()).add(seq)
    upto = {producer: max(seqs) + 1 for producer, seqs in held.items()}
    for item in decoded:
        announced = item.record.body.get("events")
        if item.record.kind is not Kind.RUN_END:
            continue
        producer = item.record.producer
        if isinstance(announced, int):
            upto[producer] = max(upto.get(producer, 0), announced)
        if misannounced(item.record):
            yield FindingKind.SEQ_HOLE(
                event_name(facts.run, producer, item.record.seq),
                f"run.end announces {str(announced)[:40]} events before it",
            )
    signed = ((row.producer, row.count) for row in facts.statements)
    for producer, count in (*facts.acked.items(), *signed):
        upto[producer] = max(upto.get(producer, 0), count)
    for producer, count in sorted(upto.items()):
        marks = [-1, *sorted(held.get(producer, ())), count]
        for low, high in pairwise(marks):
            if high - low > 1:
                number = high - low - 1
                told = (
                    " though it was acknowledged" if low + 1 < facts.acked.get(producer, 0) else ""
                )
                yield FindingKind.SEQ_HOLE(
                    event_name(facts.run, producer, low + 1, high - 1),
                    f"{number} event{'s' if number > 1 else ''} missing of {count}{told}",
                )


def _gaps(facts: RunFacts, decoded: Collection[DigestedRecord]) -> Iterator[Finding]:
    for item in decoded:
        record = item.record
        if record.kind is Kind.GAP:
            dropped, reason = record.body.get("dropped"), record.body.get("reason")
            yield FindingKind.GAP(
                event_name(facts.run, record.producer, record.seq),
                f"{dropped} events were dropped by the trainer: {reason}",
            )


# --- the run's row -----------------------------------------------------------------------


def _row(facts: RunFacts, decoded: Collection[DigestedRecord]) -> Iterator[Finding]:
    row = facts.row
    if row is None:
        return
    for item in decoded:
        stated = item.record.body.get("public_key")
        if item.record.kind is Kind.CONFIG and stated != row.public_key.hex():
            yield FindingKind.RUN_KEY(
                str(row.run),
                f"the configuration states public key {stated}, the run has {row.public_key.hex()}",
            )
    sealed = any(entry.phase is Phase.AFTER for entry in facts.entries)
    if (row.state == "sealed") != sealed:
        has = "an" if sealed else "no"
        problem = f"the run is {row.state}, and the ledger has {has} after entry of it"
        yield FindingKind.RUN_STATE(str(row.run), problem)
    if row.incomplete is not None:
        yield FindingKind.RUN_INCOMPLETE(str(row.run), f"sealed without: {row.incomplete}")


# --- seals -------------------------------------------------------------------------------


def _roots(facts: RunFacts, walk: RunWalk) -> Iterator[Finding]:
    """Each of the run's entries is the root of the run's records."""
    for entry, seal in zip(facts.entries, walk.seals, strict=True):
        name, label = f"entry {entry.index}", _label(entry.phase, entry.epoch)
        if seal.root is None:
            problem = f"the tree cannot be built: {seal.problem}"
            yield FindingKind.ENTRY_ROOT(name, problem)
        elif seal.root != entry.root:
            yield FindingKind.ENTRY_ROOT(
                name,
                f"{label} of run {facts.run}: the records give {seal.root.hex()}, the ledger has "
                f"{entry.root.hex()}",
            )
        elif dict(entry.coverage) != seal.coverage:
            problem = "states to cover other numbers of events than its records give"
            yield FindingKind.ENTRY_SEAL(name, f"{label}: {problem}")


def _seals(
    facts: RunFacts, decoded: Collection[DigestedRecord], walk: RunWalk
) -> Iterator[Finding]:
    """What was asked for and could be sealed is sealed, and nothing else is."""
    records = [item.record for item in decoded]
    marks = seal_marks(records)
    asked: dict[tuple[Phase, int | None], list[SealMark]] = {}
    for mark in marks:
        asked.setdefault((mark.phase, mark.epoch), []).append(mark)
    made = {(entry.phase, entry.epoch): entry for entry in facts.entries}
    for seal, entry in made.items():
        flags = {mark.anchor for mark in asked.get(seal, ())}
        if entry.anchor not in flags:
            problem = "to be anchored or not otherwise than asked for" if flags else "not asked for"
            yield FindingKind.ENTRY_SEAL(f"entry {entry.index}", f"{_label(*seal)}: {problem}")
    ready = _Readiness(records, marks, walk.without_hole)
    sealed = max((entry.epoch for entry in facts.entries if entry.epoch is not None), default=-1)
    for seal in asked:
        behind = seal[1] is not None and seal[1] < sealed
        if seal not in made and not behind and ready.has_all(*seal):
            yield FindingKind.RUN_NOT_SEALED(
                str(facts.run),
                f"{_label(*seal)}: every event it needs is in the database, and it has no entry",
            )


class _Readiness:
    """Whether the database has what a seal needs."""

    def __init__(
        self,
        records: Collection[Record],
        marks: Sequence[SealMark],
        without_hole: Mapping[bytes, int],
    ) -> None:
        self.marks, self.leader = marks, before_mark(marks)
        self.without_hole = without_hole
        self.upto: dict[bytes, int] = {}
        for record in records:
            self.upto[record.producer] = max(record.seq + 1, self.upto.get(record.producer, 0))
        self.ended: set[int] = set()
        for record in records:
            if record.kind is Kind.RUN_END:
                self.ended.add(record.rank)
                events = announced_events(record)
                self.upto[record.producer] = max(self.upto[record.producer], events)
        self.ranks = announced_ranks(records)

    def has_all(self, phase: Phase, epoch: int | None) -> bool:
        if self.leader is None:
            return False
        if phase is Phase.BEFORE:
            return self._upto(self.leader)
        if phase is Phase.CHECKPOINT:
            own = [mark for mark in self.marks if (mark.phase, mark.epoch) == (phase, epoch)]
            return self._all_ranks({mark.rank for mark in own}) and all(map(self._upto, own))
        whole = all(self.without_hole.get(producer, 0) >= n for producer, n in self.upto.items())
        return whole and self._all_ranks(self.ended)

    def _all_ranks(self, ranks: Collection[int]) -> bool:
        return sum(0 <= rank < self.ranks for rank in ranks) == self.ranks

    def _upto(self, mark: SealMark) -> bool:
        return self.without_hole.get(mark.producer, 0) >= mark.seq


def _label(phase: Phase, epoch: int | None) -> str:
    return phase.value if epoch is None else f"{phase.value} {epoch}"
