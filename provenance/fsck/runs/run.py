"""One run: its events against its records, its records against themselves, and its seals."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from provenance.errors import FormatError, ProvenanceError
from provenance.formats.event import Event, SegmentHeader, record_of, without_numbers
from provenance.formats.record import Json, Kind, Phase, Record
from provenance.formats.run_tree.selection import (
    FREE_KINDS,
    DigestedRecord,
    SealMark,
    announced_events,
    announced_ranks,
    before_mark,
    end_state,
    goes_on,
    misannounced,
    seal_marks,
)
from provenance.formats.run_tree.walk import RunWalk
from provenance.fsck.findings import Finding, FindingKind, event_name, holes
from provenance.fsck.rows import RunFacts
from provenance.fsck.runs.kept import check_kept
from provenance.fsck.runs.producers import check_signatures

PLACE = ("run", "producer", "seq", "kind", "epoch", "rank")


def check_run(facts: RunFacts) -> Iterator[Finding]:
    """Everything about one run."""
    decoded = yield from _records(facts)
    records = [item.record for item in decoded]
    yield from check_signatures(facts)
    yield from _events(facts)
    yield from _holes(facts, records)
    yield from _row(facts, records)
    walk = RunWalk(facts.run, decoded, facts.entries)
    yield from _roots(facts, walk)
    yield from _seals(facts, records, walk)
    yield from check_kept(facts, records, walk)


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
            problem = f"SHA-256 of the record is {digest.hex()}"
            yield FindingKind.RECORD_DIGEST(
                name, f"{problem}, its digest column {row.digest.hex()}"
            )
        try:
            record = Record.decode(row.data)
        except FormatError as error:
            yield FindingKind.RECORD_UNREADABLE(name, str(error))
            continue
        differs = [part for part in PLACE if getattr(row, part) != getattr(record, part)]
        if differs:
            problem = f"the record states another {', '.join(differs)}"
            yield FindingKind.RECORD_PLACE(name, problem)
        elif row.ts != record.ts:
            problem = f"records.ts is {row.ts[:40]}, the record states {record.ts}"
            yield FindingKind.KEPT_STATE(name, problem)
        decoded.append(DigestedRecord(record, digest))
    return decoded


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
                where = "is in the spool, and in neither database nor stream"
                yield FindingKind.EVENT_MISSING(name, f"{event.kind.value} event {where}")
        elif not _same(event, header, data):
            problem = f"{event.kind.value} event in the spool is not what was recorded"
            yield FindingKind.EVENT_DIFFERS(name, problem)
    for (producer, seq), data in sorted(facts.streamed.items()):
        known = stored.get((producer, seq))
        if known is not None and known != data:
            problem = "the record in the stream is not the one in the database"
            yield FindingKind.EVENT_DIFFERS(event_name(facts.run, producer, seq), problem)


def _same(event: Event, header: SegmentHeader, data: bytes) -> bool:
    """Whether the bytes are the event's record, whatever its salt."""
    try:
        record = Record.decode(data)
    except FormatError:
        return True  # a finding of its own
    try:
        expected = replace(record_of(event, header, b""), salt=record.salt)
        names = _hidden(record.body)
        if names:  # what they were nobody but their trainer's host knows
            record, expected = _without(record, names), _without(expected, names)
        return expected.encode() == (record.encode() if names else data)
    except (ProvenanceError, ValueError, OverflowError):
        return record.kind is Kind.GAP  # what has no form as a record is recorded as a gap


def _hidden(body: Mapping[str, Json]) -> list[str]:
    """Names of numbers that a record commits to, or that its steps leave out."""
    stated = body.get("commitments", body.get("hidden"))
    return [str(name) for name in stated] if isinstance(stated, dict | list) else []


def _without(record: Record, names: Collection[str]) -> Record:
    body = without_numbers(record.kind, record.body, names)
    return replace(record, body={k: body[k] for k in body.keys() - {"commitments", "hidden"}})


def _holes(facts: RunFacts, records: Collection[Record]) -> Iterator[Finding]:
    """Numbers below the highest one known that are nowhere, and what trainers had to drop."""
    held: dict[bytes, set[int]] = {}
    stored = ((row.producer, row.seq) for row in facts.records)
    for producer, seq in (*stored, *facts.spooled, *facts.streamed):
        held.setdefault(producer, set()).add(seq)
    upto = {producer: max(seqs) + 1 for producer, seqs in held.items()}
    for record in records:
        name = event_name(facts.run, record.producer, record.seq)
        announced = record.body.get("events")
        if record.kind is Kind.GAP:
            dropped, reason = record.body.get("dropped"), record.body.get("reason")
            yield FindingKind.GAP(name, f"{dropped} events were dropped by the trainer: {reason}")
        elif record.kind is Kind.RUN_END:
            if isinstance(announced, int):
                upto[record.producer] = max(upto.get(record.producer, 0), announced)
            if misannounced(record):
                problem = f"run.end announces {str(announced)[:40]} events before it"
                yield FindingKind.SEQ_HOLE(name, problem)
    signed = ((row.producer, row.count) for row in facts.statements)
    for producer, count in (*facts.acked.items(), *signed):
        upto[producer] = max(upto.get(producer, 0), count)
    for producer, count in sorted(upto.items()):
        for first, last in holes(held.get(producer, ()), 0, count):
            told = " though it was acknowledged" if first < facts.acked.get(producer, 0) else ""
            number = "1 event" if first == last else f"{last - first + 1} events"
            subject = event_name(facts.run, producer, first, last)
            yield FindingKind.SEQ_HOLE(subject, f"{number} missing of {count}{told}")


def _row(facts: RunFacts, records: Iterable[Record]) -> Iterator[Finding]:
    row = facts.row
    if row is None:
        return
    for record in records:
        stated = record.body.get("public_key")
        if record.kind is Kind.CONFIG and stated != row.public_key.hex():
            problem = f"public key {stated}, the run has {row.public_key.hex()}"
            yield FindingKind.RUN_KEY(str(row.run), f"the configuration states {problem}")
    sealed = any(entry.phase is Phase.AFTER for entry in facts.entries)
    if (row.state == "sealed") != sealed:
        has = "an" if sealed else "no"
        problem = f"the run is {row.state}, and the ledger has {has} after entry of it"
        yield FindingKind.RUN_STATE(str(row.run), problem)
    if row.incomplete is not None:
        yield FindingKind.RUN_INCOMPLETE(str(row.run), f"sealed without: {row.incomplete}")


def _roots(facts: RunFacts, walk: RunWalk) -> Iterator[Finding]:
    """Each of the run's entries is the root of the run's records."""
    for entry, seal in zip(facts.entries, walk.seals, strict=True):
        name, label = f"entry {entry.index}", _label(entry.phase, entry.epoch)
        if seal.root is None:
            yield FindingKind.ENTRY_ROOT(name, f"the tree cannot be built: {seal.problem}")
        elif seal.root != entry.root:
            problem = f"the records give {seal.root.hex()}, the ledger has {entry.root.hex()}"
            yield FindingKind.ENTRY_ROOT(name, f"{label} of run {facts.run}: {problem}")
        elif dict(entry.coverage) != seal.coverage:
            problem = "states to cover other numbers of events than its records give"
            yield FindingKind.ENTRY_SEAL(name, f"{label}: {problem}")


def _seals(facts: RunFacts, records: Collection[Record], walk: RunWalk) -> Iterator[Finding]:
    """What was asked for and could be sealed is sealed, and nothing else is."""
    asked: dict[tuple[Phase, int | None], list[SealMark]] = {}
    for mark in (marks := seal_marks(records)):
        asked.setdefault((mark.phase, mark.epoch), []).append(mark)
    made = {(entry.phase, entry.epoch): entry for entry in facts.entries}
    epochs = {record.epoch for record in records if record.kind.is_epoch}
    if any(record.kind in FREE_KINDS for record in records):
        epochs.add(0)
    for seal, entry in made.items():
        # A checkpoint that nobody marked is of a lost run, anchored as it was before training; of
        # epoch 0 where what it had belongs to none.
        lost = asked.get((Phase.BEFORE, None), ()) if seal[1] in epochs else ()
        flags = {mark.anchor for mark in asked.get(seal, lost)}
        if entry.anchor not in flags:
            problem = "to be anchored or not otherwise than asked for" if flags else "not asked for"
            yield FindingKind.ENTRY_SEAL(f"entry {entry.index}", f"{_label(*seal)}: {problem}")
    sealed = max((entry.epoch for entry in facts.entries if entry.epoch is not None), default=-1)
    leader, ranks = before_mark(marks), announced_ranks(records)
    for (phase, epoch), own in asked.items() if leader else ():
        if (phase, epoch) in made or (epoch is not None and epoch < sealed):
            continue
        if _is_ready(phase, own[:1] if phase is Phase.BEFORE else own, ranks, records, walk):
            problem = "every event it needs is in the database, and it has no entry"
            yield FindingKind.RUN_NOT_SEALED(str(facts.run), f"{_label(phase, epoch)}: {problem}")


def _is_ready(
    phase: Phase, marks: Sequence[SealMark], ranks: int, records: Iterable[Record], walk: RunWalk
) -> bool:
    """Whether the database has what a seal needs; ``marks`` are the leader's or a checkpoint's."""
    if phase is not Phase.AFTER:
        needed, here = [(m.producer, m.seq) for m in marks], {mark.rank for mark in marks}
    else:
        ends = [record for record in records if record.kind is Kind.RUN_END]
        here = {end.rank for end in ends if not goes_on(end_state(end))}
        needed = [(record.producer, record.seq + 1) for record in records]
        needed += [(end.producer, announced_events(end)) for end in ends]
    whole = all(walk.without_hole.get(producer, 0) >= count for producer, count in needed)
    all_ranks = sum(0 <= rank < ranks for rank in here) == ranks
    return whole and (phase is Phase.BEFORE or all_ranks)


def _label(phase: Phase, epoch: int | None) -> str:
    return phase.value if epoch is None else f"{phase.value} {epoch}"
