"""What there is to verify about one run, gathered from a database or read from a bundle.

Values only: nothing here is believed. :mod:`provenance.verify.verifier` checks it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from uuid import UUID

from provenance.core.heads import VerifierKey
from provenance.core.merkle import consistency_proof, inclusion_proof
from provenance.core.records import Kind, Record
from provenance.core.run_leaves import DigestedRecord
from provenance.core.run_proofs import RunProof
from provenance.errors import FormatError, UnknownRunError
from provenance.ports import (
    AnchorRow,
    AnchorState,
    Equivocation,
    LedgerEntry,
    LedgerStore,
    LedgerTx,
    RunRow,
    StoredRecord,
)
from provenance.verify.places import place_records

MIN_PREFIX = 8


@dataclass(frozen=True, slots=True)
class RecordFile:
    """One record, with what the database or the bundle's index says of it.

    Attributes:
        path: Its place: a path of the run tree at the newest seal, or ``control/...``,
            ``late/...`` or ``unsealed/...`` followed by producer and sequence number.
        kind, epoch, rank, producer, seq, ts: As indexed; the bytes must agree.
        digest: As stored, 32 bytes; the SHA-256 of ``data`` must agree.
        data: Canonical bytes; None where they are missing.
    """

    path: str
    kind: Kind
    epoch: int | None
    rank: int
    producer: bytes
    seq: int
    ts: str
    digest: bytes
    data: bytes | None = field(repr=False)

    @property
    def place(self) -> str:
        """``tree``, ``control``, ``late`` or ``unsealed``."""
        top = self.path.partition("/")[0]
        return top if top in ("control", "late", "unsealed") else "tree"

    @property
    def file(self) -> str:
        """Where the bytes lie in a bundle."""
        return f"records/{self.path}.json"

    def digested(self, run: UUID) -> DigestedRecord:
        """The record with its stored digest; where its bytes do not decode, a stand-in made
        of the index, so that the rest of the tree can still be checked."""
        try:
            record = Record.decode(self.data or b"")
        except FormatError:
            body = _lenient(self.data).get("body")
            record = Record(
                run,
                self.kind,
                self.epoch,
                self.rank,
                self.producer,
                self.seq,
                self.ts,
                bytes(32),
                body if isinstance(body, dict) else {},
            )
        indexed = replace(
            record,
            kind=self.kind,
            epoch=self.epoch,
            rank=self.rank,
            producer=self.producer,
            seq=self.seq,
            ts=self.ts,
        )
        return DigestedRecord(indexed, self.digest)


@dataclass(frozen=True, slots=True)
class Inclusion:
    """RFC 9162 inclusion proof of ledger entry ``index`` in the ledger at ``size``."""

    index: int
    size: int
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Consistency:
    """RFC 9162 consistency proof between the ledger at two sizes."""

    old_size: int
    new_size: int
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class HeadNote:
    """A signed head (tlog-checkpoint) as text, and the size it is filed under."""

    size: int
    note: str


@dataclass(frozen=True, slots=True)
class ReceiptFile:
    """A receipt's bytes and its name, such as ``after-ethereum``."""

    name: str
    data: bytes = field(repr=False)

    @property
    def file(self) -> str:
        """Where the bytes lie in a bundle."""
        return f"receipts/{self.name}.json"


@dataclass(frozen=True, slots=True)
class AnchorFact:
    """What the outbox says of an anchor that covers an entry of the run."""

    network: str
    size: int
    root: bytes
    state: AnchorState
    transaction_id: str | None
    reason: str | None
    height: int | None
    depth: int
    block_time: float | None


@dataclass(frozen=True, slots=True)
class ParkedFact:
    """Something ingest refused: SHA-256 of the payload as hex, why, and how large it was."""

    id: str
    reason: str
    size: int
    parked_at: float


@dataclass(frozen=True, slots=True)
class EvidenceProblem:
    """Something wrong with the evidence itself, found while it was read."""

    file: str
    message: str
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Where evidence comes from."""

    kind: Literal["database", "bundle"]
    where: str


@dataclass(frozen=True, slots=True)
class RunEvidence:
    """All there is about one run. ``proofs`` are those a bundle brings, by tree path."""

    run: UUID
    public_key: bytes
    state: str
    incomplete: str | None
    created_at: float
    sealed_at: float | None
    records: tuple[RecordFile, ...]
    entries: tuple[LedgerEntry, ...]
    inclusions: tuple[Inclusion, ...]
    consistencies: tuple[Consistency, ...]
    heads: tuple[HeadNote, ...]
    vkey: str | None
    receipts: tuple[ReceiptFile, ...]
    anchors: tuple[AnchorFact, ...]
    equivocations: tuple[Equivocation, ...]
    parked: tuple[ParkedFact, ...]
    proofs: Mapping[str, RunProof]
    problems: tuple[EvidenceProblem, ...]
    source: Source

    def file(self, name: str) -> str | None:
        """``name`` where the evidence lies in files."""
        return name if self.source.kind == "bundle" else None


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
                for old, new in zip(usable, usable[1:], strict=False)
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


def _lenient(data: bytes | None) -> dict[str, Any]:
    try:
        raw = json.loads(data or b"")
    except (ValueError, RecursionError):
        return {}
    return raw if isinstance(raw, dict) else {}


def _records(
    run: UUID, stored: Sequence[StoredRecord], entries: Sequence[LedgerEntry]
) -> tuple[RecordFile, ...]:
    """Each stored record under its path; ``ts`` is in the bytes alone."""
    files = []
    for row in stored:
        ts = _lenient(row.data).get("ts")
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
    tx: LedgerTx, entries: Sequence[LedgerEntry], receipted: set[int]
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


def seal_label(entry: LedgerEntry) -> str:
    """``before``, ``checkpoint-10`` or ``after``."""
    return entry.phase.value if entry.epoch is None else f"{entry.phase.value}-{entry.epoch}"


def _receipt_files(
    entries: Sequence[LedgerEntry], anchors: Sequence[AnchorRow], receipts: Sequence[Any]
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
