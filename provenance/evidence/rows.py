"""A run's rows as the database has them, before they are made into evidence.

:class:`LedgerView` holds what many runs have in common, read once per snapshot: the outbox
and the ledger's tree. Reading a run's rows with it costs what the run itself costs, however
long the ledger is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from provenance.errors import UnknownRunError
from provenance.evidence.run_evidence import (
    AnchorFact,
    EvidenceProblem,
    HeadNote,
    ParkedFact,
    ReceiptFile,
    seal_label,
)
from provenance.formats.ledger_tree import LedgerTree
from provenance.ports.store import LedgerTx
from provenance.ports.values import (
    AnchorRow,
    AnchorState,
    Equivocation,
    LedgerEntry,
    ReceiptRow,
    RunRow,
    StoredRecord,
)


@dataclass(frozen=True, slots=True)
class RunRows:
    """One run's rows; values only.

    Attributes:
        receipts: Named as in a bundle.
        heads: At the run's own sizes and its anchors', and the newest with lines of witnesses
            where it covers the whole run.
        sizes: Those of ``heads`` that the ledger reaches, in order: what proofs are made for.
    """

    run: RunRow
    records: Sequence[StoredRecord]
    entries: tuple[LedgerEntry, ...]
    receipts: tuple[ReceiptFile, ...]
    anchors: tuple[AnchorFact, ...]
    heads: tuple[HeadNote, ...]
    sizes: tuple[int, ...]
    equivocations: tuple[Equivocation, ...]
    parked: tuple[ParkedFact, ...]
    problems: tuple[EvidenceProblem, ...]

    @property
    def weight(self) -> int:
        """Bytes of what grows with the run."""
        return sum(len(record.data) for record in self.records) + sum(
            len(receipt.data) for receipt in self.receipts
        )


class LedgerView:
    """What runs have in common. Valid for one snapshot."""

    def __init__(self, tx: LedgerTx) -> None:
        self._tx = tx
        self.tree = LedgerTree(tx.entry_roots())
        rows = tx.anchors()
        self._anchors = {row.id: row for row in rows}
        names = sorted({row.network for row in rows})
        self._networks = [_Line(row for row in rows if row.network == name) for name in names]
        self._facts: dict[int, AnchorFact] = {}
        self._heads: dict[int, HeadNote | None] = {}
        self._cosigned = next(
            (head.size for head in reversed(tx.heads()) if _is_cosigned(head.note)), None
        )

    def rows(self, run: UUID) -> RunRows:
        """A run's rows.

        Raises:
            UnknownRunError: No such run.
            StoreUnavailable
        """
        tx = self._tx
        row = tx.run(run)
        if row is None:
            raise unknown_run(str(run), tx.runs())
        entries = tuple(tx.entries(run))
        receipts = tx.receipts(run)
        chosen = self._covering(entries, {receipt.anchor_id for receipt in receipts})
        wanted = {entry.index + 1 for entry in entries} | {anchor.size for anchor in chosen}
        if entries and self._cosigned is not None and self._cosigned > entries[-1].index:
            wanted.add(self._cosigned)
        heads, problems = self._head_notes(sorted(wanted))
        sizes = tuple(head.size for head in heads if head.size <= self.tree.size)
        if len(sizes) < len(heads):
            message = f"has {self.tree.size} entries, a head says {max(wanted)}"
            problems.append(EvidenceProblem("ledger", message))
        return RunRows(
            run=row,
            records=tx.records(run),
            entries=entries,
            receipts=tuple(_receipt_files(entries, chosen, receipts)),
            anchors=tuple(self._fact(anchor) for anchor in chosen),
            heads=tuple(heads),
            sizes=sizes,
            equivocations=tuple(tx.equivocations(run)),
            parked=tuple(
                ParkedFact(p.id, p.reason, len(p.payload), p.parked_at) for p in tx.parked(run)
            ),
            problems=tuple(problems),
        )

    def _covering(
        self, entries: Sequence[LedgerEntry], receipted: Collection[int]
    ) -> list[AnchorRow]:
        """Anchors with a receipt, and for each entry and network the first that is to cover it."""
        if not entries:
            return []
        receipts = (self._anchors[each] for each in sorted(receipted) if each in self._anchors)
        chosen = {row.id: row for row in receipts if row.size > entries[0].index}
        for entry in entries:
            for line in self._networks:
                best = line.first_above(entry.index)
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


class _Line:
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


def _is_cosigned(note: str) -> bool:
    """Whether others than the ledger put lines behind a head: what they are worth, the
    verifier says."""
    return note.rpartition("\n\n")[2].count("\n") > 1


def unknown_run(text: str, rows: Sequence[RunRow]) -> UnknownRunError:
    """The error for a run that is not there; it says which are."""
    newest = f", newest {max(rows, key=age).run}" if rows else ""
    many = "1 run" if len(rows) == 1 else f"{len(rows)} runs"
    return UnknownRunError(f"run {text}: not in the database; known: {many}{newest}")


def age(row: RunRow) -> tuple[float, str]:
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
        name = f"{labels[row.index]}-{row.network}"
        if name in files:
            name += f"-{sizes.get(row.anchor_id, row.anchor_id)}"
        files[name] = ReceiptFile(name, row.document.encode())
    return list(files.values())
