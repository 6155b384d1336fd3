"""A ledger made whole again: what a restored database lacks, read back from bundles.

The head that the key signed last (:mod:`provenance.ledger.guard`) says what the ledger was. Each
entry that is missing comes from the bundle of its run, with the run's records under the signatures
of their producers, and the anchors that its receipts prove. All of it is one transaction, which is
committed only where the entries lead to that head: nothing of a bundle is believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from provenance.anchor.outbox import IN_FLIGHT, ON_CHAIN, UNSIGNED
from provenance.anchor.receipts import make_receipts
from provenance.bundle.reader import read_bundle
from provenance.errors import FormatError, InputError, LedgerForkError
from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.checkpoint import Head
from provenance.formats.producers.batch import Batch
from provenance.formats.producers.certificate import Certificate
from provenance.formats.producers.statement import chain_on, chain_start
from provenance.formats.receipt import Receipt
from provenance.formats.record import Phase
from provenance.formats.run_tree.selection import announced_ranks, before_mark, seal_marks
from provenance.formats.run_tree.walk import RunWalk
from provenance.formats.tlog.outcome import FILE, Outcome, ShownOutcomes
from provenance.ledger.batch_writer import BatchWriter, IngestResult
from provenance.ledger.guard import differing
from provenance.ledger.seal import SealPolicy, append_root, sign_grown
from provenance.ports.store import LedgerStore, LedgerTx
from provenance.ports.values import (
    AnchorState,
    LedgerEntry,
    Observation,
    Place,
    SignedVersion,
    TreeRow,
)
from provenance.proofs import ethereum

_STATES: Final = {"confirmed": AnchorState.CONFIRMED, "final": AnchorState.FINAL}
_SHOWN: Final = 8
"""Entries that a message names."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What came back, in numbers; ``size`` is the ledger's now."""

    size: int
    entries: int
    runs: int
    records: int
    anchors: int


def recover(
    store: LedgerStore, policy: SealPolicy, known: Head, bundles: Sequence[Path], now: float
) -> Recovered:
    """Bring back what the database lacks of the ledger that ``known`` is the head of.

    Raises:
        InputError: A bundle keeps records back, is damaged, or entries are in none of them.
        LedgerForkError: The database and the bundles do not lead to that head.
        StoreUnavailable
    """
    runs = [_read(path) for path in bundles]
    with store.transaction() as tx:
        size, done = tx.ledger_size(), IngestResult()
        wanted = _entries(tx, runs, range(size, known.size))
        for evidence in runs:
            _insert_records(tx, evidence, done, now)
        silent = replace(policy, networks=(), guard=None)
        for entry in wanted:
            if isinstance(entry, Outcome):
                at = entry.number, entry.encode(), float(entry.at)
                index = tx.append_outcome(entry.run, *at)
                sign_grown(tx, index, entry.digest(), silent, at[-1])
                continue
            append_root(
                tx,
                entry.run,
                entry.phase,
                entry.epoch,
                entry.root,
                entry.anchor,
                silent,
                entry.created_at,
                dict(entry.coverage),
            )
        if (found := differing(tx, known)) is not None:
            raise LedgerForkError(
                f"recover: at size {known.size} the entries give {found}, and this key signed root "
                f"{known.root.hex()}: what the database has before is not what it was. Nothing "
                "was written; go on with a successor: provenance ledger succeed"
            )
        for evidence in runs:
            _keep_tree(tx, evidence)
        anchors = _anchors(tx, runs, now)
        for name in policy.networks:
            _cover(tx, name, now)
            paused = tx.network(name)
            if paused is not None and paused.forked:
                tx.save_network(replace(paused, paused=None, explained=None))
    named = {entry.run for entry in wanted}
    return Recovered(max(size, known.size), len(wanted), len(named), done.new, anchors)


def _read(path: Path) -> RunEvidence:
    inner = path / "evidence"  # of a report
    try:
        evidence = read_bundle(inner if inner.is_dir() else path)
    except FormatError as error:
        text = str(error)
        raise InputError(text if str(path) in text else f"{path}: {text}") from error
    if evidence.problems:
        problem = evidence.problems[0]
        raise InputError(f"{path}: {problem.file}: {problem.message}")
    if kept_back := sum(record.withheld for record in evidence.records):
        raise InputError(f"{path}: keeps {kept_back} records back, expected a whole bundle")
    return evidence


def _entries(
    tx: LedgerTx, runs: Iterable[RunEvidence], lacking: range
) -> list[LedgerEntry | Outcome]:
    """The entries that are missing, by index."""
    known: dict[int, LedgerEntry | Outcome] = {}
    for evidence in runs:
        known |= {entry.index: entry for entry in evidence.entries}
        if data := evidence.attachments.get(FILE):
            known |= {item.index: item.record for item in ShownOutcomes.decode(data).outcomes}
    if absent := [index for index in lacking if index not in known]:
        named = ", ".join(map(str, absent[:_SHOWN])) + (", ..." if len(absent) > _SHOWN else "")
        raise InputError(
            f"recover: {len(absent)} of {len(lacking)} entries are in no bundle that was given: "
            f"{named}. Give the bundles (or reports) of their runs, or go on with a successor: "
            "provenance ledger succeed"
        )
    return [known[index] for index in lacking]


def _insert_records(tx: LedgerTx, evidence: RunEvidence, done: IngestResult, now: float) -> None:
    """Insert the run's records under their producers' statements; what is here already stays."""
    row = tx.run(evidence.run)
    if row is not None and row.state == "sealed":
        return
    writer = BatchWriter(tx, now, done, None)
    for producer in evidence.producers:
        certificate = Certificate.decode(producer.certificate)
        own = sorted(
            (item for item in evidence.records if item.producer == producer.producer),
            key=lambda item: item.seq,
        )
        chain, begin = chain_start(evidence.run, producer.producer), 0
        for statement in producer.statements:
            records = own[begin : statement.count]
            if [item.seq for item in records] != list(range(begin, statement.count)):
                raise InputError(
                    f"recover: run {evidence.run} has a hole below event {statement.count} of "
                    f"rank {certificate.rank}; only whole runs can be brought back"
                )
            digests = tuple(item.digest for item in records)
            before, chain = chain, chain_on(chain, digests)
            statement.verify(evidence.run, chain, certificate.producer_key)
            octets = tuple(item.data or b"" for item in records)
            batch = (certificate, None, evidence.identity, begin, before, octets, digests)
            writer.insert(Batch(*batch, statement, chain), b"")
            begin = statement.count
    writer.save()
    if done.parked:
        raise InputError(f"recover: run {evidence.run}: the database has another history of it")
    tx.keep_statements(evidence.run)


def _keep_tree(tx: LedgerTx, evidence: RunEvidence) -> None:
    """What seals are made from, as the run's last seal left it."""
    run, entries, row = evidence.run, tx.entries(evidence.run), tx.run(evidence.run)
    if row is None or row.state == "sealed":
        return
    records = [item.record for item in evidence.digested]
    leader = before_mark(seal_marks(records))
    walk = RunWalk(run, evidence.digested, entries)
    seals = zip(entries, walk.seals, strict=True)
    made = [each for each in seals if each[0].phase is not Phase.AFTER]
    if leader is None or not made:
        return
    before = [r for r in records if r.producer == leader.producer and r.seq <= leader.seq]
    closed, kept = made[-1][0].epoch, made[-1][1].kept
    tops = (kept.data, kept.model, kept.training.to_bytes(), -1 if closed is None else closed)
    tree = TreeRow(
        run, leader.producer, leader.order[0], leader.seq, announced_ranks(before), *tops
    )
    tx.save_tree(tree)
    if evidence.state == "sealed":
        tx.seal_run(run, evidence.sealed_at or evidence.created_at, evidence.incomplete)
        tx.drop_due(run)
    else:
        tx.drop_due(run, tree.closed)


def _anchors(tx: LedgerTx, runs: Iterable[RunEvidence], now: float) -> int:
    """Anchors that receipts prove and the database does not have so far; how many."""
    proven: dict[tuple[str, int], Receipt] = {}
    for evidence in runs:
        for file in evidence.receipts:
            if isinstance(receipt := file.decoded, Receipt):
                key = (receipt.anchor.network, receipt.ledger.size)
                if key not in proven or receipt.anchor.state == "final":
                    proven[key] = receipt
    return sum(_anchor(tx, *key, proven[key], now) for key in sorted(proven))


def _anchor(tx: LedgerTx, network: str, size: int, receipt: Receipt, now: float) -> bool:
    receipt.verify_inclusion()
    head, stated = tx.head(size), receipt.anchor
    if head is None or head.root != receipt.ledger.root:
        raise LedgerForkError(f"recover: a receipt of {network} is of another head at size {size}")
    state = _STATES[stated.state]
    rows = {row.size: row for row in tx.anchors(network)}
    row = rows.get(size) or tx.add_anchor(network, size, now)
    if row.state in (state, AnchorState.FINAL):
        return False
    version = tx.add_version(row.id, _version(receipt), now)
    tx.mark_sent(version.id, stated.confirmed_at)
    tx.save_anchor(
        replace(
            row,
            state=state,
            version_id=version.id,
            lease_owner=None,
            lease_until=None,
            reason=None,
            height=stated.height,
            depth=stated.depth,
            block_time=stated.block_time,
            updated_at=now,
        )
    )
    seen = Observation(
        Place.MINED,
        head.root,
        stated.block_hash,
        stated.height,
        stated.depth,
        state is AnchorState.FINAL,
        stated.block_time,
    )
    row = replace(row, state=state)
    tx.add_receipts(make_receipts(tx, row, version, seen, receipt.evidence, stated.confirmed_at))
    return True


def _version(receipt: Receipt) -> SignedVersion:
    """The transaction as the receipt's evidence has it."""
    stated, evidence = receipt.anchor, receipt.evidence
    own = (stated.network, stated.payload, stated.transaction_id)
    transaction = evidence.get("transaction")
    if stated.network == "bitcoin" and isinstance(transaction, str):
        return SignedVersion(*own, bytes.fromhex(transaction))
    if stated.network == "ethereum" and isinstance(transaction, dict):
        from eth_utils import to_checksum_address

        raw = bytes.fromhex(str(transaction.get("raw")).removeprefix("0x"))
        sender = to_checksum_address(ethereum.sender_of(raw))
        detail = {name: evidence.get(name) for name in ("chain_id", "contract")}
        nonce = ethereum.parse_transaction(raw).nonce
        return SignedVersion(*own, raw, sender, nonce, detail=detail)
    key = str(evidence.get("public_key", "")) if stated.network == "local" else ""
    return SignedVersion(*own, stated.payload, key)


def _cover(tx: LedgerTx, network: str, now: float) -> None:
    """Where no anchor reaches the last entry that is to have one, the newest head is due."""
    head = tx.head()
    reach = tx.reach(network, UNSIGNED | IN_FLIGHT | ON_CHAIN)
    if head is not None and any(entry.anchor for entry in tx.entries(first=reach)):
        tx.add_anchor(network, head.size, now)
