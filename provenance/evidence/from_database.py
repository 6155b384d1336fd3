"""A run's evidence from the database.

:class:`LedgerView` has what many runs have in common, read once per snapshot: the outbox and
the ledger's tree. Reading a run with it costs what the run itself costs, however long the
ledger is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from uuid import UUID

from provenance.errors import UnknownRunError
from provenance.evidence.ledger_claim import claim_of
from provenance.evidence.placement import place_records
from provenance.evidence.run_evidence import (
    AnchorFact,
    Consistency,
    EvidenceProblem,
    HeadNote,
    Inclusion,
    ParkedFact,
    ReceiptFile,
    RecordFile,
    RunEvidence,
    SignedProducer,
    Source,
    lenient,
    receipt_name,
    seal_label,
)
from provenance.formats.merkle import MerkleTree
from provenance.formats.note import VerifierKey
from provenance.formats.producers.statement import Statement
from provenance.formats.record import Record
from provenance.ports.store import LedgerStore, LedgerTx
from provenance.ports.values import (
    AnchorRow,
    AnchorState,
    LedgerEntry,
    ReceiptRow,
    RunRow,
    StoredRecord,
)

MIN_PREFIX = 8
DAMAGED = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""What damaged rows can raise while they are read, beside this project's own errors."""


def find_run(store: LedgerStore, text: str) -> UUID:
    """The run that a full id, a unique prefix of 8 or more hex digits, or ``latest`` names.

    Raises:
        UnknownRunError: None, or several.
    """
    with store.snapshot() as tx:
        rows = list(tx.runs())
    if text == "latest":
        if not rows:
            raise UnknownRunError("run latest: the database has no runs yet")
        return max(rows, key=_age).run
    wanted = text.lower().replace("-", "")
    if len(wanted) < MIN_PREFIX or set(wanted) - set("0123456789abcdef") or len(wanted) > 32:
        raise UnknownRunError(
            f"run {text!r}: expected a run id, {MIN_PREFIX} or more of its first hex digits, "
            "or latest"
        )
    runs = [row.run for row in rows if row.run.hex.startswith(wanted)]
    if len(runs) > 1:
        raise UnknownRunError(
            f"run {text}: {len(runs)} runs begin so, such as {runs[0]} and {runs[1]}"
        )
    if not runs:
        raise _unknown_run(text, rows)
    return runs[0]


def from_store(
    store: LedgerStore, run: UUID, verifier_key: VerifierKey | None, where: str = "database"
) -> RunEvidence:
    """A run's evidence, read in one snapshot.

    Args:
        verifier_key: The ledger's key, which the database does not hold; None if unknown.
        where: How messages name the database.

    Raises:
        UnknownRunError: No such run.
        StoreUnavailable
    """
    with store.snapshot() as tx:
        return LedgerView(tx, verifier_key, where).evidence(run)


class LedgerView:
    """What the runs of a database have in common. Valid for one snapshot.

    Args:
        verifier_key, where: As for :func:`from_store`.
    """

    def __init__(self, tx: LedgerTx, verifier_key: VerifierKey | None, where: str) -> None:
        self._tx = tx
        self._vkey = verifier_key.vkey if verifier_key else None
        self._source = Source("database", where)
        self._tree = MerkleTree(tx.entry_roots())
        self._claim = claim_of(tx, self._tree.size)
        rows = tx.anchors()
        self._anchors = {row.id: row for row in rows}
        names = sorted({row.network for row in rows})
        self._networks = [
            _NetworkAnchors(row for row in rows if row.network == name) for name in names
        ]
        self._facts: dict[int, AnchorFact] = {}
        self._heads: dict[int, HeadNote | None] = {}
        self._cosigned = next(
            (head.size for head in reversed(tx.heads()) if _is_cosigned(head.note)), None
        )

    def evidence(self, run: UUID) -> RunEvidence:
        """A run's evidence: records in their places, proofs from the ledger's tree.

        Heads are those at the run's own sizes and its anchors', and the newest with lines of
        witnesses where it covers the whole run. Proofs are made for the heads that the ledger
        reaches.

        Raises:
            UnknownRunError: No such run.
            StoreUnavailable
        """
        tx, tree = self._tx, self._tree
        row = tx.run(run)
        if row is None:
            raise _unknown_run(str(run), tx.runs())
        entries = tuple(tx.entries(run))
        receipts = tx.receipts(run)
        anchors = self._covering(entries, {receipt.anchor_id for receipt in receipts})
        wanted = {entry.index + 1 for entry in entries} | {anchor.size for anchor in anchors}
        if entries and self._cosigned is not None and self._cosigned > entries[-1].index:
            wanted.add(self._cosigned)
        heads, problems = self._head_notes(sorted(wanted))
        sizes = [head.size for head in heads if head.size <= tree.size]
        if len(sizes) < len(heads):
            message = f"has {tree.size} entries, a head says {max(wanted)}"
            problems.append(EvidenceProblem("ledger", message))
        return RunEvidence(
            run=row.run,
            public_key=row.public_key,
            identity=None if row.identity is None else _octets(row.identity),
            state=row.state,
            incomplete=row.incomplete,
            created_at=row.created_at,
            sealed_at=row.sealed_at,
            producers=_producers(tx, run),
            records=_records(row.run, tx.records(run), entries),
            entries=entries,
            inclusions=tuple(
                Inclusion(entry.index, size, tree.inclusion_proof(entry.index, size))
                for entry in entries
                for size in sizes
                if entry.index < size
            ),
            consistencies=tuple(
                Consistency(old, new, tree.consistency_proof(old, new))
                for old, new in pairwise(sizes)
            ),
            heads=tuple(heads),
            vkey=self._vkey,
            receipts=tuple(_receipt_files(entries, anchors, receipts)),
            anchors=tuple(self._fact(anchor) for anchor in anchors),
            equivocations=tuple(
                replace(other, proof=_octets(other.proof)) for other in tx.equivocations(run)
            ),
            parked=tuple(
                ParkedFact(p.id, p.reason, len(p.payload), p.parked_at) for p in tx.parked(run)
            ),
            proofs={},
            problems=tuple(problems),
            source=self._source,
            ledger=self._claim,
        )

    def _covering(
        self, entries: Sequence[LedgerEntry], receipted: Collection[int]
    ) -> list[AnchorRow]:
        """Anchors with a receipt, and for each entry and network the first that is to cover it."""
        if not entries:
            return []
        receipts = (self._anchors[key] for key in sorted(receipted) if key in self._anchors)
        chosen = {row.id: row for row in receipts if row.size > entries[0].index}
        for entry in entries:
            for anchors in self._networks:
                best = anchors.first_above(entry.index)
                if best is not None and not any(
                    row.network == best.network
                    and row.size > entry.index
                    and row.state is not AnchorState.REPLACED
                    for row in chosen.values()
                ):
                    chosen[best.id] = best
        return sorted(chosen.values(), key=lambda row: (row.network, row.size))

    def _fact(self, row: AnchorRow) -> AnchorFact:
        if row.id not in self._facts:
            self._facts[row.id] = _anchor_fact(self._tx, row)
        return self._facts[row.id]

    def _head_notes(self, sizes: Iterable[int]) -> tuple[list[HeadNote], list[EvidenceProblem]]:
        heads, problems = [], []
        for size in sizes:
            if size not in self._heads:
                row = self._tx.head(size)
                self._heads[size] = None if row is None else HeadNote(size, row.note)
            note = self._heads[size]
            if note is None:
                missing = EvidenceProblem(f"heads/{size}.note", "the database has no such head")
                problems.append(missing)
            else:
                heads.append(note)
        return heads, problems


class _NetworkAnchors:
    """One network's anchors that still count, by size: those that failed apart."""

    def __init__(self, rows: Iterable[AnchorRow]) -> None:
        counting = [row for row in rows if row.state is not AnchorState.REPLACED]
        counting.sort(key=lambda row: row.size)
        self._live = [row for row in counting if row.state is not AnchorState.FAILED]
        self._failed = [row for row in counting if row.state is AnchorState.FAILED]

    def first_above(self, index: int) -> AnchorRow | None:
        """The smallest that covers entry ``index``; a failed one only where there is no other."""
        for rows in (self._live, self._failed):
            at = bisect_right(rows, index, key=lambda row: row.size)
            if at < len(rows):
                return rows[at]
        return None


def _octets(value: bytes) -> bytes:
    """A column of bytes: SQLite keeps whatever it is given, and TypeError is then raised."""
    return bytes(memoryview(value))


def _producers(tx: LedgerTx, run: UUID) -> tuple[SignedProducer, ...]:
    signed: dict[bytes, list[Statement]] = {}
    for row in tx.statements(run):
        statement = Statement(row.producer, row.count, _octets(row.signature))
        signed.setdefault(row.producer, []).append(statement)
    return tuple(
        SignedProducer(row.producer, _octets(row.certificate), tuple(signed.get(row.producer, ())))
        for row in tx.producers(run)
    )


def _records(
    run: UUID, stored: Sequence[StoredRecord], entries: Sequence[LedgerEntry]
) -> tuple[RecordFile, ...]:
    """Each stored record under its path."""
    files = [_unplaced(row) for row in stored]
    paths = place_records([file.digested(run) for file in files], entries)
    placed = [file.filed(path, file.ts) for file, path in zip(files, paths, strict=True)]
    return tuple(sorted(placed, key=lambda file: (file.place != "tree", file.path)))


def _unplaced(row: StoredRecord) -> RecordFile:
    """A record without its path; ``ts`` is in the bytes alone."""
    file = RecordFile(
        path="",
        kind=row.kind,
        epoch=row.epoch,
        rank=row.rank,
        producer=row.producer,
        seq=row.seq,
        ts="",
        digest=row.digest,
        data=row.data,
    )
    record = file.decoded
    ts = record.ts if isinstance(record, Record) else lenient(row.data).get("ts")
    return file.filed("", ts if isinstance(ts, str) else "")


def _is_cosigned(note: str) -> bool:
    """Whether others than the ledger put lines behind a head: what they are worth, the
    verifier says."""
    return note.rpartition("\n\n")[2].count("\n") > 1


def _unknown_run(text: str, rows: Sequence[RunRow]) -> UnknownRunError:
    """The error for a run that is not there; it says which are."""
    newest = f", newest {max(rows, key=_age).run}" if rows else ""
    many = "1 run" if len(rows) == 1 else f"{len(rows)} runs"
    return UnknownRunError(f"run {text}: not in the database; known: {many}{newest}")


def _age(row: RunRow) -> tuple[float, str]:
    """Sorts runs, oldest first."""
    return (row.created_at, row.run.hex)


def _anchor_fact(tx: LedgerTx, row: AnchorRow) -> AnchorFact:
    versions = tx.versions(row.id)
    version = next((v for v in versions if v.id == row.version_id), None)
    if version is None and versions:
        version = versions[-1]
    return AnchorFact(
        network=row.network,
        size=row.size,
        root=row.root,
        state=row.state,
        transaction_id=version.version.transaction_id if version else None,
        reason=row.reason,
        height=row.height,
        depth=row.depth,
        block_time=row.block_time,
    )


def _receipt_files(
    entries: Sequence[LedgerEntry], anchors: Sequence[AnchorRow], receipts: Sequence[ReceiptRow]
) -> list[ReceiptFile]:
    labels = {entry.index: seal_label(entry) for entry in entries}
    sizes = {anchor.id: anchor.size for anchor in anchors}
    files: dict[str, ReceiptFile] = {}
    for row in receipts:
        name = receipt_name(labels[row.index], row.network)
        if name in files:
            size = sizes.get(row.anchor_id, row.anchor_id)
            name = receipt_name(labels[row.index], row.network, size)
        files[name] = ReceiptFile(name, row.document.encode())
    return list(files.values())
