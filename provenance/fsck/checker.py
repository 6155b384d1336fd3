"""``provenance fsck``: is everything that was emitted recorded, sealed and anchored, once?

An independent checker. It shares no code with what writes or verifies: only the formats and
proofs (:mod:`provenance.formats`, :mod:`provenance.proofs`). Spool segments, streams, tables
and chains are read anew here, and nothing anywhere is changed. It reads in the order in which
facts travel (spool, streams, database, chains), so that what is on its way is met further on.

======================  ==================================================================
kind                    what it says, and of what
======================  ==================================================================
spool-truncated         a segment ends inside an event, and nobody writes it any more
spool-damaged           bytes of a segment that hold no readable event
stream-damaged          a stream entry that is no signed batch
event-missing           an event in the spool is in neither database nor stream, nor parked
event-differs           the spool or stream has another value for an event than the database
seq-hole                numbers of a producer that are nowhere, below ones that are known, signed
                        or announced, or a run.end that announces another number than its own
gap                     a trainer states that it had to drop events
equivocation            a producer signed a second value for an event
equivocation-unsigned   a second value that the producer did not sign
parked                  something that ingest refused
row-unreadable          a row with values of the wrong type
row-orphan              a row of a run, entry, head or anchor that is not there
record-digest           a leaf that is not the SHA-256 of its record
record-unreadable       stored bytes that are no record
record-place            a record stored under another run, producer, number, kind, epoch, rank
run-key                 the run's public key is not the one that its id commits to, or that its
                        configuration record states
run-identity            an identity that did not sign the run (the trusted root behind one by
                        Sigstore is not asked here: ``provenance verify`` does)
certificate             a producer whose key the run's key did not certify as it is stored
statement               records that are not what their producer signed, or that nobody signed
producer-counters       a producer's counters or chain are not those of its records
kept-state              what the database keeps to make seals from (``marks``, ``due_checkpoints``,
                        ``run_trees``, ends and marks of ``producers``, chains and times of
                        ``records``) or to find heads (``heads.cosigned``), and that records,
                        entries and notes do not give
acknowledgement         one in Redis that the ledger's key did not sign, or of other records
run-state               sealed without an after entry, or the other way round
run-incomplete          a run that was sealed with events missing
run-not-sealed          all that a seal needs is there, and it was not made
entry-root              a ledger entry that is not the root of its run's records
entry-seal              a ledger entry that no seal record asks for in this way
entry-missing           an index of the ledger without an entry
ledger-level            a kept hash of the ledger's levels that its entries do not give
head-missing            a size of the ledger without a head
head-root               a head that is not the root of the entries below it
head-note               a signed note that states something else than the head
head-signature          a head that the ledger's key did not sign
head-frontier           a stored frontier that does not lead to its head
head-inconsistent       a head that does not extend the one before it
anchor-missing          an entry that is to be anchored and that no row covers
anchor-root             an anchor of another root than the head at its size
anchor-state            a state that the rest of the database or the network contradicts
anchor-stalled          a row that nobody takes up
lease-stuck             a lease that nobody will end
version-differs         stored bytes of a transaction that are not for their anchor
nonce-gap               a nonce that no row holds, below ones that rows hold
network-paused          a network on which nothing is sent until somebody acts
receipt-invalid         a receipt that does not verify, or is not for its entry and anchor
receipt-missing         an entry under a final anchor, without a receipt
chain-identity          the node serves another chain than the one heads were anchored on
chain-damaged           a line of the local anchor file that does not hold
chain-missing           an anchor that is confirmed or final, and in no block
chain-shallow           an anchor that is final, and not as deep as that takes
chain-root              a transaction that carries another root than its anchor
chain-doubled           one head, more than one anchor of ours
chain-orphan            an anchor of ours that no row knows
======================  ==================================================================

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
from uuid import UUID

from provenance.errors import (
    LyingNodeError,
    UnavailableError,
    UsageError,
)
from provenance.formats.note import VerifierKey
from provenance.formats.producers.certificate import SIGSTORE
from provenance.fsck import database
from provenance.fsck.findings import Finding, FindingKind, FsckReport, Notebook, event_name
from provenance.fsck.ledger import check_ledger, check_levels
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
from provenance.fsck.rows import (
    Anchor,
    DueRow,
    Entry,
    EquivocationRow,
    HeadRow,
    MarkRow,
    NetworkRow,
    NonceRow,
    ParkedBytes,
    ParkedRow,
    ProducerRow,
    ReceiptRow,
    RecordRow,
    Run,
    StatementRow,
    SubtreeRow,
    TreeRow,
    Version,
)
from provenance.fsck.runs.facts import RunFacts
from provenance.fsck.runs.run import check_run
from provenance.fsck.spool import SpoolRun, read_run, spool_runs
from provenance.fsck.stream import StreamView, read_streams, refused_records

COUNTED = (
    "spool_segments", "spool_events", "stream_batches", "runs", "records", "entries", "heads",
    "anchors", "receipts", "networks", "transactions",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where everything lies.

    Attributes:
        redis_url: None where none is known: the streams are not looked at, and events may be there.
        networks: That heads are to be anchored on.
        key: The ledger's; None where it is not known here.
        lease_s: Longest time a worker holds a row.
        journal: Where scripts note what they anchor past the outbox.
    """

    spool_dir: Path
    database_url: str = field(repr=False)
    redis_url: str | None = field(repr=False)
    networks: tuple[str, ...]
    key: VerifierKey | None
    lease_s: float
    journal: Path


@dataclass(frozen=True, slots=True)
class Options:
    """How to look.

    Attributes:
        since: Per network, the height from which to search for what no row knows.
        settle_s: Events younger than this may still be on their way.
    """

    since: Mapping[str, int] = field(default_factory=dict)
    settle_s: float = 0.0


def fsck(
    deployment: Deployment,
    readers: Mapping[str, ChainReader] | None,
    now: float,
    options: Options | None = None,
    unavailable: Mapping[str, str] | None = None,
) -> FsckReport:
    """Look at everything.

    Args:
        readers: Networks to ask, by name; None asks nobody.
        now: Unix time.
        unavailable: Networks that could not even be set up, with the reason.

    Returns:
        What was found; nothing about the evidence raises.
    """
    options = options or Options()
    notes = Notebook(dict.fromkeys(COUNTED, 0))
    spool = _spool(deployment.spool_dir, notes)
    stream = _stream(deployment, notes)
    try:
        with database.snapshot(deployment.database_url) as tables:
            facts = _facts(tables, deployment, now)
            notes.add(check_levels(facts.entries, tables.all(SubtreeRow)))
            _check_runs(tables, facts, spool, stream, notes, now, options)
            notes.add(tables.findings)
            notes.add(tables.orphans())
    except (UnavailableError, UsageError) as error:
        notes.unchecked.append(str(error))
        return notes.report()
    if deployment.key is None and facts.heads:
        notes.unchecked.append("signatures of heads: the ledger's key is not here")
    notes.count("entries", len(facts.entries))
    notes.count("heads", len(facts.heads))
    notes.count("anchors", len(facts.anchors))
    notes.count("receipts", len(facts.receipts))
    heads = [facts.heads[size] for size in sorted(facts.heads)]
    notes.add(check_ledger(facts.entries, heads, deployment.key))
    notes.add(check_outbox(facts))
    notes.add(check_receipts(facts, deployment.key))
    _check_networks(deployment, facts, readers, unavailable or {}, options, notes)
    return notes.report()


def _spool(spool_dir: Path, notes: Notebook) -> dict[UUID, SpoolRun]:
    found: dict[UUID, SpoolRun] = {}
    try:
        for run, folder in spool_runs(spool_dir).items():
            found[run] = read_run(folder, run)
    except OSError as error:
        notes.unchecked.append(f"spool: {error.filename or spool_dir}: {error.strerror}")
    for own in found.values():
        notes.count("spool_segments", own.segments)
        notes.count("spool_events", len(own.events))
        notes.add(own.findings)
    return found


def _stream(deployment: Deployment, notes: Notebook) -> StreamView:
    if deployment.redis_url is None:
        return StreamView(unread=True)
    key = deployment.key
    try:
        view = read_streams(deployment.redis_url, key.public_bytes if key else None)
    except UnavailableError as error:
        notes.unchecked.append(f"{error}: what is on its way is not seen")
        return StreamView(unread=True)
    notes.count("stream_batches", view.batches)
    notes.add(view.findings)
    return view


def _facts(tables: database.Tables, deployment: Deployment, now: float) -> OutboxFacts:
    return OutboxFacts(
        entries=tables.all(Entry),
        heads={head.size: head for head in tables.all(HeadRow)},
        anchors=tables.all(Anchor),
        versions=tables.all(Version),
        nonces=tables.all(NonceRow),
        receipts=tables.all(ReceiptRow),
        networks=tables.all(NetworkRow),
        wanted=deployment.networks,
        now=now,
        patience_s=2 * deployment.lease_s,
    )


def _check_runs(
    tables: database.Tables,
    facts: OutboxFacts,
    spool: Mapping[UUID, SpoolRun],
    stream: StreamView,
    notes: Notebook,
    now: float,
    options: Options,
) -> None:
    rows = {row.run: row for row in tables.all(Run)}
    settled = int((now - options.settle_s) * 1e9) if options.settle_s else None
    entries: dict[UUID, list[Entry]] = {}
    for entry in facts.entries:
        entries.setdefault(entry.run, []).append(entry)
    waiting = 0
    for run in sorted(rows.keys() | spool.keys() | entries.keys()):
        own = spool.get(run) or SpoolRun(run)
        records = tables.all(RecordRow, run)
        parked = refused_records(tables.all(ParkedBytes, run)) if own.events else {}
        if stream.unread:
            waiting += len(
                own.events.keys() - parked.keys() - {(r.producer, r.seq) for r in records}
            )
        told = stream.acknowledged.get(run, {})
        acked = {producer: item.count for producer, item in told.items()}
        notes.count("runs")
        notes.count("records", len(records))
        identity = rows[run].identity if run in rows else None
        if identity is not None and identity[:1] == bytes([SIGSTORE]):
            notes.count("sigstore_identities_without_their_root")
        notes.add(
            check_run(
                RunFacts(
                    run=run,
                    row=rows.get(run),
                    records=records,
                    entries=entries.get(run, []),
                    producers=tables.all(ProducerRow, run),
                    statements=tables.all(StatementRow, run),
                    equivocations=tables.all(EquivocationRow, run),
                    marks=tables.all(MarkRow, run),
                    due=tables.all(DueRow, run),
                    trees=tables.all(TreeRow, run),
                    spooled=own.events,
                    streamed=stream.records.get(run, {}),
                    parked=parked,
                    acked=_highest(own.acked, acked),
                    acknowledged=told,
                    ignore_after_ns=0 if stream.unread else settled,
                )
            )
        )
    notes.add(_refused(tables))
    if waiting:
        where = "Redis, where they may be, was not read"
        notes.unchecked.append(f"{waiting} events of the spool wait, or are lost: {where}")


def _highest(*counts: Mapping[bytes, int]) -> dict[bytes, int]:
    result: dict[bytes, int] = {}
    for producer, count in (item for each in counts for item in each.items()):
        result[producer] = max(result.get(producer, 0), count)
    return result


def _refused(tables: database.Tables) -> Iterator[Finding]:
    """What ingest kept aside."""
    for row in tables.all(EquivocationRow):
        name = event_name(row.run, row.producer, row.seq)
        problem = f"a second value, SHA-256 {row.digest.hex()}; the first that arrived stands"
        yield Finding(FindingKind.EQUIVOCATION, name, problem)
    for parked in tables.all(ParkedRow):
        of = f"run {parked.run}: " if parked.run else ""
        yield Finding(FindingKind.PARKED, parked.id[:16], f"{of}{parked.reason}")


# --- networks ----------------------------------------------------------------------------


def _check_networks(
    deployment: Deployment,
    facts: OutboxFacts,
    readers: Mapping[str, ChainReader] | None,
    unavailable: Mapping[str, str],
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
            why = unavailable.get(network, "it is not configured here")
            notes.unchecked.append(f"{network}: {why}")
        if view is None:
            notes.add(check_nonces([row for row in facts.nonces if row.network == network], None))
            continue
        notes.count("networks")
        notes.count("transactions", len(view.transactions))
        notes.unchecked += view.notes
        found = list(check_network(network, view, facts, elsewhere, options.since.get(network)))
        notes.add(_still_unknown(deployment, network, found))


def _read(reader: ChainReader, question: Question, notes: Notebook) -> ChainView | None:
    try:
        return reader.read(question)
    except (UnavailableError, LyingNodeError) as error:
        notes.unchecked.append(str(error))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        kind = type(error).__name__
        notes.unchecked.append(f"{reader.name}: an answer is not of its form ({kind}: {error})")
    return None


def _still_unknown(
    deployment: Deployment, network: str, found: Sequence[Finding]
) -> Iterator[Finding]:
    """Without the orphans that a worker has stored since the database was read."""
    orphans = any(finding.kind is FindingKind.CHAIN_ORPHAN for finding in found)
    known: set[str] = set()
    if orphans:
        with database.snapshot(deployment.database_url) as tables:
            known = {f"{v.network} {v.transaction_id}" for v in tables.all(Version)}
    for finding in found:
        if finding.kind is not FindingKind.CHAIN_ORPHAN or finding.subject not in known:
            yield finding
