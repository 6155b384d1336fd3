"""Gathering a run's evidence from the database."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import pairwise
from uuid import UUID

from provenance.core.heads import VerifierKey
from provenance.core.merkle import consistency_proof, inclusion_proof
from provenance.errors import UnknownRunError
from provenance.ports import (
    AnchorRow,
    AnchorState,
    LedgerEntry,
    LedgerStore,
    LedgerTx,
    ReceiptRow,
    RunRow,
    StoredRecord,
)
from provenance.verify.evidence import (
    AnchorFact,
    Consistency,
    EvidenceProblem,
    HeadNote,
    Inclusion,
    ParkedFact,
    ReceiptFile,
    RecordFile,
    RunEvidence,
    Source,
    lenient,
    seal_label,
)
from provenance.verify.places import place_records

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
        return max(rows, key=_age).run
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
        raise _unknown(text, rows)
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
        row = tx.run(run)
        if row is None:
            raise _unknown(str(run), tx.runs())
        entries = tuple(tx.entries(run))
        records = _records(run, tx.records(run), entries)
        receipts = tuple(tx.receipts(run))
        chosen = _covering(tx, entries, {receipt.anchor_id for receipt in receipts})
        sizes = {entry.index + 1 for entry in entries} | {anchor.size for anchor in chosen}
        heads, problems = _heads(tx, sizes)
        roots = list(tx.entry_roots(max(sizes))) if sizes else []
        usable = [head.size for head in heads if head.size <= len(roots)]
        if len(usable) < len(heads):
            problems.append(
                EvidenceProblem("ledger", f"has {len(roots)} entries, a head says {max(sizes)}")
            )
        return RunEvidence(
            run=run,
            public_key=row.public_key,
            state=row.state,
            incomplete=row.incomplete,
            created_at=row.created_at,
            sealed_at=row.sealed_at,
            records=records,
            entries=entries,
            inclusions=tuple(
                Inclusion(e.index, size, inclusion_proof(roots[:size], e.index))
                for e in entries
                for size in usable
                if e.index < size
            ),
            consistencies=tuple(
                Consistency(old, new, consistency_proof(roots[:new], old))
                for old, new in pairwise(usable)
            ),
            heads=heads,
            vkey=verifier_key.vkey if verifier_key else None,
            receipts=tuple(_receipt_files(entries, chosen, receipts)),
            anchors=tuple(_anchor_fact(tx, anchor) for anchor in chosen),
            equivocations=tuple(tx.equivocations(run)),
            parked=tuple(
                ParkedFact(p.id, p.reason, len(p.payload), p.parked_at) for p in tx.parked(run)
            ),
            proofs={},
            problems=tuple(problems),
            source=Source("database", where),
        )


def _age(row: RunRow) -> tuple[float, str]:
    return (row.created_at, row.run.hex)


def _unknown(text: str, rows: Sequence[RunRow]) -> UnknownRunError:
    newest = f", newest {max(rows, key=_age).run}" if rows else ""
    many = "1 run" if len(rows) == 1 else f"{len(rows)} runs"
    return UnknownRunError(f"run {text}: not in the database; known: {many}{newest}")


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


def _covering(
    tx: LedgerTx, entries: Sequence[LedgerEntry], receipted: Collection[int]
) -> list[AnchorRow]:
    """Anchors with a receipt, and for each entry and network the first that is to cover it."""
    if not entries:
        return []
    rows = [row for row in tx.anchors() if row.size > entries[0].index]
    chosen = {row.id: row for row in rows if row.id in receipted}
    for entry in entries:
        for network in sorted({row.network for row in rows}):
            covering = [
                row
                for row in rows
                if row.network == network
                and row.size > entry.index
                and row.state is not AnchorState.REPLACED
            ]
            if covering and not any(row.id in chosen for row in covering):
                best = min(covering, key=lambda r: (r.state is AnchorState.FAILED, r.size))
                chosen[best.id] = best
    return sorted(chosen.values(), key=lambda row: (row.network, row.size))


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


def _heads(tx: LedgerTx, sizes: set[int]) -> tuple[tuple[HeadNote, ...], list[EvidenceProblem]]:
    heads, problems = [], []
    for size in sorted(sizes):
        row = tx.head(size)
        if row is None:
            problems.append(EvidenceProblem(f"heads/{size}.note", "the database has no such head"))
        else:
            heads.append(HeadNote(size, row.note))
    return tuple(heads), problems


def _receipt_files(
    entries: Sequence[LedgerEntry], anchors: Sequence[AnchorRow], receipts: Sequence[ReceiptRow]
) -> list[ReceiptFile]:
    labels = {entry.index: seal_label(entry) for entry in entries}
    sizes = {anchor.id: anchor.size for anchor in anchors}
    files: dict[str, ReceiptFile] = {}
    for row in receipts:
        name = f"{labels[row.index]}-{row.network}"
        if name in files:
            name += f"-{sizes.get(row.anchor_id, row.anchor_id)}"
        files[name] = ReceiptFile(name, row.document.encode())
    return list(files.values())
