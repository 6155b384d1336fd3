"""``provenance fsck``: is everything that was emitted recorded, sealed and anchored, once?

An independent checker. It shares no code with what writes or verifies: only the formats and
proofs (:mod:`provenance.formats`, :mod:`provenance.proofs`). Spool segments, streams, tables
and chains are read anew here, and nothing anywhere is changed. It reads in the order in which
facts travel (spool, streams, database, chains), so that what is on its way is met further on.
:class:`provenance.fsck.findings.FindingKind` lists what it says, and of what.

What it does not say: whether an event ever was emitted whose segment, record and number are
all gone; whether two runs are the same training; who holds a key. A root under our sender or
wallet that no head has counts, however old: a ledger that was thrown away and begun anew is
found by what it anchored, in one line that names the height from which to search
(``--since-block``) where the key served another ledger before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from provenance.errors import IntegrityError, LyingNodeError, UnavailableError, UsageError
from provenance.formats.note import VerifierKey
from provenance.formats.producers.acknowledgement import GATE, HELD
from provenance.formats.producers.certificate import SIGSTORE
from provenance.fsck import database, rows
from provenance.fsck.archive import read_records
from provenance.fsck.findings import Finding, FindingKind, FsckReport, Notebook, event_name
from provenance.fsck.ledger import check_ledger, check_levels, check_outcomes
from provenance.fsck.local_file import known_elsewhere
from provenance.fsck.onchain import (
    ChainReader,
    ChainView,
    Question,
    check_network,
    check_nonces,
    question_for,
)
from provenance.fsck.outbox import OutboxFacts, check_outbox
from provenance.fsck.receipts import check_receipts
from provenance.fsck.runs.run import check_run
from provenance.fsck.spool import SpoolRun, read_run, spool_runs
from provenance.fsck.stream import StreamView, read_streams, refused_records
from provenance.settings import ApprovalSettings, RedisAddress

COUNTED = (
    "spool_segments", "spool_events", "stream_batches", "runs", "records", "entries", "heads",
    "anchors", "receipts", "networks", "transactions",
)  # fmt: skip
KEPT: Mapping[str, type[rows.Row]] = {
    "producers": rows.ProducerRow,
    "statements": rows.StatementRow,
    "equivocations": rows.EquivocationRow,
    "marks": rows.MarkRow,
    "due": rows.DueRow,
    "trees": rows.TreeRow,
}
RUNS_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where everything lies.

    Attributes:
        redis: None where none is known: the streams are not looked at, and events may be there.
        networks: That heads are to be anchored on.
        key: The ledger's; None where it is not known here.
        lease_s: Longest time a worker holds a row.
        journal: Where scripts note what they anchor past the outbox.
        archive: Folder of the files of archived runs; None where there is none.
        approvals: Who approves final roots; None where nobody has to.
    """

    spool_dir: Path
    database_url: str = field(repr=False)
    redis: RedisAddress | None
    networks: tuple[str, ...]
    key: VerifierKey | None
    lease_s: float
    journal: Path
    archive: Path | None = None
    approvals: ApprovalSettings | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """How to look.

    Attributes:
        since: Per network, the height from which to search for what no row knows.
        settle_s: Events younger than this may still be on their way.
    """

    since: Mapping[str, int] = field(default_factory=dict)
    settle_s: float = 0.0


EVERYTHING = Options()


def fsck(
    deployment: Deployment,
    readers: Mapping[str, ChainReader] | None,
    now: float,
    options: Options = EVERYTHING,
) -> FsckReport:
    """Look at everything.

    Args:
        readers: Networks to ask, by name; None asks nobody.
        now: Unix time.

    Returns:
        What was found; nothing about the evidence raises.
    """
    notes = Notebook(dict.fromkeys(COUNTED, 0))
    spool = _spool(deployment.spool_dir, notes)
    stream = _stream(deployment, notes)
    try:
        with database.snapshot(deployment.database_url) as tables:
            facts = OutboxFacts(
                entries=tables.all(rows.Entry),
                heads={head.size: head for head in tables.all(rows.HeadRow)},
                anchors=tables.all(rows.Anchor),
                versions=tables.all(rows.Version),
                approvals=tables.all(rows.ApprovalRow),
                nonces=tables.all(rows.NonceRow),
                receipts=tables.all(rows.ReceiptRow),
                networks=tables.all(rows.NetworkRow),
                wanted=deployment.networks,
                rule=deployment.approvals,
                now=now,
                patience_s=2 * deployment.lease_s,
            )
            leaves = tables.all(rows.LeafRow)
            notes.add(check_levels(leaves, tables.all(rows.SubtreeRow)))
            outcomes = tables.all(rows.OutcomeRow)
            notes.add(check_outcomes(facts.entries, outcomes, deployment.key))
            _check_runs(deployment, tables, facts, spool, stream, notes, now, options)
            notes.add(tables.findings)
            notes.add(tables.orphans())
    except (UnavailableError, UsageError) as error:
        notes.unchecked.append(str(error))
        return notes.report()
    if deployment.key is None and facts.heads:
        notes.unchecked.append("signatures of heads: the ledger's key is not here")
    notes.count("entries", len(leaves))
    for name in ("heads", "anchors", "receipts"):
        notes.count(name, len(getattr(facts, name)))
    heads = [facts.heads[size] for size in sorted(facts.heads)]
    notes.add(check_ledger(leaves, heads, deployment.key))
    notes.add(check_outbox(facts))
    notes.add(check_receipts(facts, deployment.key))
    _check_networks(deployment, facts, readers, options, notes)
    return notes.report()


def _spool(spool_dir: Path, notes: Notebook) -> dict[UUID, SpoolRun]:
    found: dict[UUID, SpoolRun] = {}
    try:
        for run, folder in spool_runs(spool_dir).items():
            own = read_run(folder, run)
            if own.segments or own.acked or own.findings:  # a training that never began left none
                found[run] = own
    except OSError as error:
        notes.unchecked.append(f"spool: {error.filename or spool_dir}: {error.strerror}")
    for own in found.values():
        notes.count("spool_segments", own.segments)
        notes.count("spool_events", len(own.events))
        notes.add(own.findings)
    return found


def _stream(deployment: Deployment, notes: Notebook) -> StreamView:
    if deployment.redis is None:
        return StreamView(unread=True)
    key = deployment.key
    try:
        view = read_streams(deployment.redis, key.public_bytes if key else None)
    except UnavailableError as error:
        notes.unchecked.append(f"{error}: what is on its way is not seen")
        return StreamView(unread=True)
    notes.count("stream_batches", view.batches)
    notes.add(view.findings)
    return view


def _check_runs(
    deployment: Deployment,
    tables: database.Tables,
    facts: OutboxFacts,
    spool: Mapping[UUID, SpoolRun],
    stream: StreamView,
    notes: Notebook,
    now: float,
    options: Options,
) -> None:
    stored = {row.run: row for row in tables.all(rows.Run)}
    archived = {row.run: row for row in tables.all(rows.ArchivedRow)}
    settled = int((now - options.settle_s) * 1e9) if options.settle_s else None
    entries: dict[UUID, list[rows.Entry]] = {}
    for entry in facts.entries:
        entries.setdefault(entry.run, []).append(entry)
    waiting = 0
    runs = sorted(stored.keys() | spool.keys() | entries.keys())
    for run, kept in _kept(tables, runs):
        row, own, records = stored.get(run), spool.get(run), tables.all(rows.RecordRow, run)
        own = own or SpoolRun(run)
        if run in archived:
            if records:
                problem = f"is archived, and has {len(records)} records in the database"
                notes.add([FindingKind.ARCHIVE(str(run), problem)])
            try:
                records = read_records(deployment.archive, archived[run])
            except IntegrityError as error:
                notes.add([FindingKind.ARCHIVE(str(run), f"its records: {error}")])
                continue
        parked = refused_records(tables.all(rows.ParkedBytes, run)) if own.events else {}
        told = dict(stream.acknowledged.get(run, {}))
        held = told.pop(GATE, None) == HELD
        if stream.unread or held:
            here = parked.keys() | {(record.producer, record.seq) for record in records}
            away = len(own.events.keys() - here - stream.records.get(run, {}).keys())
            if held:
                notes.count("events_held_back", away)
            else:
                waiting += away
        acked = [*own.acked.items(), *((producer, item.count) for producer, item in told.items())]
        notes.count("runs")
        notes.count("records", len(records))
        if row and row.identity is not None and row.identity[:1] == bytes([SIGSTORE]):
            notes.count("sigstore_identities_without_their_root")
        own_facts = rows.RunFacts(
            run=run,
            row=row,
            archived=run in archived,
            records=records,
            entries=entries.get(run, []),
            weights=tables.all(rows.WeightsRow, run),  # as many as records: of one run at once
            spooled=own.events,
            streamed=stream.records.get(run, {}),
            parked=parked,
            acked=dict(sorted(acked, key=lambda item: item[1])),  # the highest of each stands
            acknowledged=told,
            ignore_after_ns=0 if stream.unread or held else settled,
            **kept,
        )
        notes.add(check_run(own_facts))
    notes.add(_refused(tables))
    if waiting:
        where = "Redis, where they may be, was not read"
        notes.unchecked.append(f"{waiting} events of the spool wait, or are lost: {where}")


def _kept(
    tables: database.Tables, runs: Sequence[UUID]
) -> Iterator[tuple[UUID, dict[str, list[Any]]]]:
    """Each run with its rows beside the records, read for several runs at once."""
    for at in range(0, len(runs), RUNS_AT_ONCE):
        part = runs[at : at + RUNS_AT_ONCE]
        found: dict[str, Mapping[UUID | None, list[Any]]] = {
            name: tables.of_runs(kind, part) for name, kind in KEPT.items()
        }
        for run in part:
            yield run, {name: own[run] for name, own in found.items()}


def _refused(tables: database.Tables) -> Iterator[Finding]:
    """What ingest kept aside."""
    for row in tables.all(rows.EquivocationRow):
        name = event_name(row.run, row.producer, row.seq)
        problem = f"a second value, SHA-256 {row.digest.hex()}; the first that arrived stands"
        yield FindingKind.EQUIVOCATION(name, problem)
    for parked in tables.all(rows.ParkedRow):
        of = f"run {parked.run}: " if parked.run else ""
        yield FindingKind.PARKED(parked.id[:16], f"{of}{parked.reason}")


def _check_networks(
    deployment: Deployment,
    facts: OutboxFacts,
    readers: Mapping[str, ChainReader] | None,
    options: Options,
    notes: Notebook,
) -> None:
    used = {anchor.network for anchor in facts.anchors} | {row.network for row in facts.nonces}
    elsewhere = frozenset(known_elsewhere(deployment.journal))
    for network in sorted(used | set(deployment.networks) | (readers or {}).keys()):
        reader = None if readers is None else readers.get(network)
        view: ChainView | None = None
        if reader is not None:
            since = options.since.get(network)
            view = _read(reader, question_for(network, facts, since), notes)
        elif readers is not None:
            notes.unchecked.append(f"{network}: it is not configured here")
        if view is None:
            notes.add(check_nonces([row for row in facts.nonces if row.network == network], None))
            continue
        notes.count("networks")
        notes.count("transactions", len(view.transactions))
        notes.unchecked += view.notes
        found = list(check_network(network, view, facts, elsewhere, options.since.get(network)))
        notes.add(_still_unknown(deployment, found))


def _read(reader: ChainReader, question: Question, notes: Notebook) -> ChainView | None:
    try:
        return reader.read(question)
    except (UnavailableError, LyingNodeError) as error:
        notes.unchecked.append(str(error))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        kind = type(error).__name__
        notes.unchecked.append(f"{reader.name}: an answer is not of its form ({kind}: {error})")
    return None


def _still_unknown(deployment: Deployment, found: Sequence[Finding]) -> Iterator[Finding]:
    """Without the orphans that a worker has stored since the database was read."""
    known: set[str] = set()
    if any(finding.kind is FindingKind.CHAIN_ORPHAN for finding in found):
        with database.snapshot(deployment.database_url) as tables:
            known = {f"{v.network} {v.transaction_id}" for v in tables.all(rows.Version)}
    for finding in found:
        if finding.kind is not FindingKind.CHAIN_ORPHAN or finding.subject not in known:
            yield finding
