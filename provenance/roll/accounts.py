"""The accounts of a ledger's entries, made from the database.

A run is walked once, whatever number of its entries is asked for. An entry whose run's records are
damaged, or whose seal covers no producer, has none: it is unaccounted for.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from typing import Final
from uuid import UUID

from provenance.errors import FormatError, IntegrityError
from provenance.formats import merkle
from provenance.formats.record import CONTROL_KINDS, Kind, Phase, Record
from provenance.formats.run_tree.selection import DigestedRecord
from provenance.formats.run_tree.tree import ROOT_CHILDREN
from provenance.formats.run_tree.walk import RunWalk, WalkedSeal
from provenance.formats.tlog.account import Account
from provenance.formats.tlog.outcome import Outcome
from provenance.ports.store import LedgerStore, LedgerTx
from provenance.ports.values import LedgerEntry

_PRODUCERS: Final = ROOT_CHILDREN.index("producers")


def accounts(store: LedgerStore, first: int, end: int) -> list[Account | Outcome | None]:
    """Those of the entries from ``first`` up to ``end``, in order. Raises StoreUnavailable."""
    made: dict[int, Account | Outcome] = {}
    with store.snapshot() as tx:
        entries = tx.entries(first=first, end=end)
        wanted: dict[UUID, set[int]] = defaultdict(set)
        for entry in entries:
            wanted[entry.run].add(entry.index)
        for run, indexes in wanted.items():
            with suppress(FormatError, IntegrityError):  # `provenance verify` names it
                made |= _of_run(tx, run, indexes)
        for row in tx.outcomes(first=first, end=end):
            with suppress(FormatError):
                made[row.index] = Outcome.decode(row.document)
        end = min(end, tx.ledger_size())
    return [made.get(index) for index in range(first, end)]


def _of_run(tx: LedgerTx, run: UUID, wanted: set[int]) -> dict[int, Account]:
    records = [DigestedRecord(Record.decode(row.data), row.digest) for row in tx.records(run)]
    entries, kept = tx.entries(run), tx.tree(run)
    before: dict[bytes, set[int]] = defaultdict(set)
    for entry in entries:
        for producer, count in entry.coverage:
            before[producer].add(count - 1)
    walk = RunWalk(run, records, entries, before)
    control = {
        (item.record.producer, item.record.seq): item.record
        for item in records
        if item.record.kind in CONTROL_KINDS
    }
    made = {}
    for entry, seal in zip(entries, walk.seals, strict=True):
        covered = dict(entry.coverage)
        if entry.index not in wanted or not covered or seal.root != entry.root:
            continue
        leader = kept.leader if kept is not None else b""
        producer = leader if leader in covered else min(covered)
        count, chains = covered[producer], walk.chains[producer]
        last = control.get((producer, count - 1))
        if last is not None and not _tells(last, entry):
            last = None
        chain = chains[count if last is None else count - 1]
        made[entry.index] = _account(entry, seal, producer, chain, last)
    return made


def _account(
    entry: LedgerEntry, seal: WalkedSeal, producer: bytes, chain: bytes, last: Record | None
) -> Account:
    names, kept = [each for each, _ in entry.coverage], seal.kept
    index = names.index(producer)
    tops = [kept.data, kept.model, kept.training.root(), merkle.root(seal.producers)]
    return Account(
        run=entry.run,
        phase=entry.phase,
        epoch=entry.epoch,
        producer=producer,
        count=dict(entry.coverage)[producer],
        chain=chain,
        index=index,
        size=len(names),
        path=merkle.MerkleTree(seal.producers).inclusion_proof(index),
        tops=merkle.MerkleTree(tops).inclusion_proof(_PRODUCERS),
        last=last,
    )


def _tells(last: Record, entry: LedgerEntry) -> bool:
    """Whether the last record covered is of this seal: before a hole it may be of an earlier."""
    if last.kind is Kind.RUN_END:
        return entry.phase is Phase.AFTER
    marked = last.body.get("phase"), last.body.get("epoch")
    return last.kind is Kind.SEAL and marked == (entry.phase.value, entry.epoch)
