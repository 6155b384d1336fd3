"""Gathering a run's evidence from the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from uuid import UUID

from provenance.errors import UnknownRunError
from provenance.evidence.placement import place_records
from provenance.evidence.rows import LedgerView, RunRows, age, unknown_run
from provenance.evidence.run_evidence import (
    Consistency,
    Inclusion,
    RecordFile,
    RunEvidence,
    Source,
    lenient,
)
from provenance.formats.ledger_tree import LedgerTree
from provenance.formats.note import VerifierKey
from provenance.ports.store import LedgerStore
from provenance.ports.values import LedgerEntry, StoredRecord

MIN_PREFIX = 8


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
        return max(rows, key=age).run
    wanted = text.lower().replace("-", "")
    if len(wanted) < MIN_PREFIX or set(wanted) - set("0123456789abcdef") or len(wanted) > 32:
        raise UnknownRunError(
            f"run {text!r}: expected a run id, {MIN_PREFIX} or more of its first hex digits, "
            "or latest"
        )
    found = [row.run for row in rows if row.run.hex.startswith(wanted)]
    if len(found) > 1:
        raise UnknownRunError(
            f"run {text}: {len(found)} runs begin so, such as {found[0]} and {found[1]}"
        )
    if not found:
        raise unknown_run(text, rows)
    return found[0]


def from_store(
    store: LedgerStore, run: UUID, verifier_key: VerifierKey | None, where: str = "database"
) -> RunEvidence:
    """Gather a run's evidence in one snapshot.

    Args:
        verifier_key: The ledger's key, which the database does not hold; None where unknown.
        where: How messages name the database.

    Raises:
        UnknownRunError: No such run.
        StoreUnavailable
    """
    with store.snapshot() as tx:
        view = LedgerView(tx)
        return evidence_of(view.rows(run), view.tree, verifier_key, where)


def evidence_of(
    rows: RunRows, tree: LedgerTree, verifier_key: VerifierKey | None, where: str
) -> RunEvidence:
    """A run's rows as evidence: records in their places, proofs from the ledger's tree."""
    return replace(
        outline_of(rows, verifier_key, where),
        records=_records(rows.run.run, rows.records, rows.entries),
        inclusions=tuple(
            Inclusion(e.index, size, tree.inclusion_proof(e.index, size))
            for e in rows.entries
            for size in rows.sizes
            if e.index < size
        ),
        consistencies=tuple(
            Consistency(old, new, tree.consistency_proof(old, new))
            for old, new in pairwise(rows.sizes)
        ),
    )


def outline_of(rows: RunRows, verifier_key: VerifierKey | None, where: str) -> RunEvidence:
    """:func:`evidence_of` without records and without the ledger's proofs."""
    run = rows.run
    return RunEvidence(
        run=run.run,
        public_key=run.public_key,
        state=run.state,
        incomplete=run.incomplete,
        created_at=run.created_at,
        sealed_at=run.sealed_at,
        records=(),
        entries=rows.entries,
        inclusions=(),
        consistencies=(),
        heads=rows.heads,
        vkey=verifier_key.vkey if verifier_key else None,
        receipts=rows.receipts,
        anchors=rows.anchors,
        equivocations=rows.equivocations,
        parked=rows.parked,
        proofs={},
        problems=rows.problems,
        source=Source("database", where),
    )


def _records(
    run: UUID, stored: Sequence[StoredRecord], entries: Sequence[LedgerEntry]
) -> tuple[RecordFile, ...]:
    """Each stored record under its path; ``ts`` is in the bytes alone."""
    files = []
    for row in stored:
        ts = lenient(row.data).get("ts")
        files.append(
            RecordFile(
                path="",
                kind=row.kind,
                epoch=row.epoch,
                rank=row.rank,
                producer=row.producer,
                seq=row.seq,
                ts=ts if isinstance(ts, str) else "",
                digest=row.digest,
                data=row.data,
            )
        )
    paths = place_records([file.digested(run) for file in files], entries)
    placed = [replace(file, path=path) for file, path in zip(files, paths, strict=True)]
    return tuple(sorted(placed, key=lambda file: (file.place != "tree", file.path)))
