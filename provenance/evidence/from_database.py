"""A run's evidence from the database.

Reading a run costs what the run itself costs, however long the ledger is: proofs come from its
kept levels. :class:`LedgerView` reads once per snapshot what many runs have in common.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise
from uuid import UUID

from provenance.approvals.statement import Anchoring, approval_file
from provenance.errors import FormatError, IntegrityError, UnknownRunError
from provenance.evidence.ledger_claim import claim_of
from provenance.evidence.lineage import parent_of
from provenance.evidence.outcomes import outcome_file
from provenance.evidence.placement import newest_leaves, place_records
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
    uncollected,
)
from provenance.formats.dsse import Envelope
from provenance.formats.merkle import KeptTree, Subtree
from provenance.formats.note import VerifierKey
from provenance.formats.producers.statement import Statement
from provenance.formats.record import Kind, Phase, Record
from provenance.ports.listing import MAX_HELD_RUNS
from provenance.ports.store import LedgerStore, LedgerTx
from provenance.ports.values import (
    AnchorRow,
    AnchorState,
    LedgerEntry,
    ReceiptRow,
    RunRow,
    StoredRecord,
)

MIN_DIGITS = 8
MAX_NAMED = 8
DAMAGED = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""What damaged rows can raise while they are read, beside this project's own errors."""


def find_run(store: LedgerStore, text: str) -> UUID:
    """The run that a full id, its first or last 8 or more hex digits, or ``latest`` names.

    An id begins with its time, so that runs of one minute share their first digits, and ends with
    digits of a hash.

    Raises:
        UnknownRunError: None, or several.
    """
    wanted = text.lower().replace("-", "")
    with store.snapshot() as tx:
        with suppress(ValueError):
            if len(wanted) == 32 and tx.run(UUID(wanted)) is not None:
                return UUID(wanted)
        rows = list(tx.runs())
    if text == "latest":
        if not rows:
            raise UnknownRunError("run latest: the database has no runs yet")
        return max(rows, key=_age).run
    if len(wanted) < MIN_DIGITS or set(wanted) - set("0123456789abcdef") or len(wanted) > 32:
        raise UnknownRunError(
            f"run {text!r}: expected a run id, {MIN_DIGITS} or more of its first or last hex "
            "digits, or latest"
        )
    fits = [
        row for row in rows if wanted in (row.run.hex[: len(wanted)], row.run.hex[-len(wanted) :])
    ]
    runs = [row.run for row in sorted(fits, key=_age, reverse=True)]
    if len(runs) > 1:
        named = ", ".join(map(str, runs[:MAX_NAMED])) + (", ..." if len(runs) > MAX_NAMED else "")
        raise UnknownRunError(
            f"run {text}: {len(runs)} runs begin or end so, expected more digits, or the last "
            f"{MIN_DIGITS}, of one: {named}"
        )
    if not runs:
        with store.snapshot() as tx:
            raise _unknown_run(tx, text, rows)
    return runs[0]


def from_store(
    store: LedgerStore,
    run: UUID,
    verifier_key: VerifierKey | None,
    where: str = "database",
    team: str | None = None,
) -> RunEvidence:
    """A run's evidence, read in one snapshot; as :class:`LedgerView`."""
    with store.snapshot() as tx:
        return LedgerView(tx, verifier_key, where, team).evidence(run)


class LedgerView:
    """What the runs of a database have in common. Valid for one snapshot.

    Args:
        verifier_key: The ledger's key, which the database does not hold; None if unknown.
        where: How messages name the database.
        team: Whose runs alone the ledger's claim counts and names, and are known as a run's parent;
            all where None.
    """

    def __init__(
        self,
        tx: LedgerTx,
        verifier_key: VerifierKey | None,
        where: str,
        team: str | None = None,
    ) -> None:
        self._tx = tx
        self._vkey = verifier_key.vkey if verifier_key else None
        self._source = Source("database", where)
        self._tree = KeptTree(tx.ledger_size(), self._subtrees)
        self._claim = claim_of(tx, self._tree.size, team)
        self._team = team
        self._networks = tx.anchored_networks()
        self._anchor, self._head = cache(tx.anchor), cache(tx.head)
        self._fact = cache(partial(anchor_fact, tx))
        self._nodes: dict[Subtree, bytes] = {}
        cosigned = tx.cosigned_head()
        self._cosigned = None if cosigned is None else cosigned.size

    @uncollected()
    def evidence(self, run: UUID) -> RunEvidence:
        """A run's evidence: records in their places, proofs from the ledger's tree.

        Heads are those of its anchors, that at its newest entry where no anchor is of it, and
        the newest with lines of witnesses where it covers the whole run. Among the heads that
        the ledger reaches, each entry has one proof, for the first that has it; each head one of
        the run's last entry in it, and one from the head before.

        Raises:
            UnknownRunError: No such run.
            StoreUnavailable
        """
        tx, tree = self._tx, self._tree
        row = tx.run(run)
        if row is None:
            raise _unknown_run(tx, str(run), tx.runs())
        entries = tuple(tx.entries(run))
        receipts = tx.receipts(run)
        anchors = self._covering(entries, {receipt.anchor_id for receipt in receipts})
        wanted = {anchor.size for anchor in anchors}
        if entries and max(wanted, default=0) <= entries[-1].index:
            wanted.add(entries[-1].index + 1)
        if entries and self._cosigned is not None and self._cosigned > entries[-1].index:
            wanted.add(self._cosigned)
        outcomes = tx.outcomes(run)
        if outcomes and max(wanted, default=0) <= outcomes[-1].index:
            wanted.add(outcomes[-1].index + 1)
        rows = {size: self._head(size) for size in sorted(wanted)}
        heads = [HeadNote(size, head.note) for size, head in rows.items() if head]
        problems = [
            EvidenceProblem(f"heads/{size}.note", "the database has no such head")
            for size, head in rows.items()
            if head is None
        ]
        sizes = [head.size for head in heads if head.size <= tree.size]
        if len(sizes) < len(heads):
            message = f"has {tree.size} entries, a head says {max(wanted)}"
            problems.append(EvidenceProblem("ledger", message))
        attachments = _approvals(tx, run, entries, receipts)
        try:
            attachments |= outcome_file(outcomes, tree, max(sizes, default=0))
        except FormatError as error:
            problems.append(EvidenceProblem("ledger/outcomes.json", str(error)))
        places = _to_include([entry.index for entry in entries], sizes)
        steps = list(pairwise(sizes))
        records = _records(row.run, tx.records(run), entries)
        return RunEvidence(
            run=row.run,
            public_key=row.public_key,
            identity=None if row.identity is None else _octets(row.identity),
            state=row.state,
            incomplete=row.incomplete,
            created_at=row.created_at,
            sealed_at=row.sealed_at,
            producers=_producers(tx, run),
            records=records,
            entries=entries,
            inclusions=tuple(
                Inclusion(*place, proof)
                for place, proof in zip(places, tree.inclusion_proofs(places), strict=True)
            ),
            consistencies=tuple(
                Consistency(*step, proof)
                for step, proof in zip(steps, tree.consistency_proofs(steps), strict=True)
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
            problems=tuple(problems),
            source=self._source,
            attachments=attachments,
            ledger=self._claim,
            parent=parent_weights(tx, records, self._team),
        )

    def _covering(
        self, entries: Sequence[LedgerEntry], receipted: Collection[int]
    ) -> list[AnchorRow]:
        """Anchors with a receipt, and for each entry and network the first that is to cover it."""
        if not entries:
            return []
        receipts = map(self._anchor, sorted(receipted))
        chosen = {row.id: row for row in receipts if row and row.size > entries[0].index}
        for network in self._networks:
            counting = (row for row in chosen.values() if row.state is not AnchorState.REPLACED)
            upto = max((row.size for row in counting if row.network == network), default=0)
            for entry in entries:
                if entry.index < upto:
                    continue
                best = self._tx.covering(network, entry.index)
                if best is None:
                    break
                chosen[best.id], upto = best, best.size
        return sorted(chosen.values(), key=lambda row: (row.network, row.size))

    def _subtrees(self, wanted: Sequence[Subtree]) -> Sequence[bytes]:
        new = [each for each in wanted if each not in self._nodes]
        self._nodes |= zip(new, self._tx.subtrees(new) if new else (), strict=True)
        return [self._nodes[each] for each in wanted]


def _to_include(indexes: Sequence[int], sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Each entry in the first head that has it, and each head's last entry; both ascend."""
    first = {(i, sizes[at]) for i in indexes if (at := bisect_right(sizes, i)) < len(sizes)}
    last = {(indexes[at - 1], s) for s in sizes if (at := bisect_left(indexes, s))}
    return sorted(first | last)


def _approvals(
    tx: LedgerTx, run: UUID, entries: Sequence[LedgerEntry], receipts: Sequence[ReceiptRow]
) -> dict[str, bytes]:
    """The approvals by which the run's final root was anchored, by file: of the head that has a
    receipt, or of one below, where that never got there."""
    final = next((entry for entry in entries if entry.phase is Phase.AFTER), None)
    made: dict[str, bytes] = {}
    for receipt in receipts:
        anchor = tx.anchor(receipt.anchor_id)
        size = 0 if final is None or receipt.index != final.index or anchor is None else anchor.size
        while size > receipt.index and (found := tx.approval_below(receipt.network, size + 1)):
            row, data = found
            size = row.size - 1
            if row.size > receipt.index and _names(_octets(data), run):
                made[approval_file(row.network, row.size)] = _octets(data)
                break
    return made


def _names(envelope: bytes, run: UUID) -> bool:
    """Whether an approval is of a run; so is what is damaged, for the verifier to say."""
    try:
        stated = Anchoring.decode(Envelope.decode(envelope, "approval").payload, "approval")
    except FormatError:
        return True
    return run in dict(stated.runs)


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
    digested = [file.digested(run) for file in files]
    paths = place_records(digested, *newest_leaves(digested, entries))
    placed = [file.filed(path, file.ts) for file, path in zip(files, paths, strict=True)]
    return tuple(sorted(placed, key=lambda file: (file.place != "tree", file.path)))


def parent_weights(
    tx: LedgerTx, files: Iterable[RecordFile], team: str | None
) -> list[Record] | str | None:
    """As `RunEvidence.parent`: of the run that these records say they continue, what decodes."""
    configs = (file.decoded for file in files if file.kind is Kind.CONFIG)
    name = parent_of(record for record in configs if isinstance(record, Record))
    try:
        parent = None if name is None else UUID(name)
    except ValueError:
        return None
    if parent is None or tx.run(parent) is None:
        return None
    if team is not None and team not in tx.teams_of([parent]).values():
        return None
    decoded = []
    try:
        for row in tx.records(parent, (Kind.WEIGHTS, Kind.STATE)):
            with suppress(FormatError):
                decoded.append(Record.decode(row.data))
    except (IntegrityError, *DAMAGED):
        # Why has paths of this machine, and who reads this run may not see them.
        return f"its records cannot be read; see: provenance verify {parent}"
    return decoded


def _unplaced(row: StoredRecord) -> RecordFile:
    """A record without its path; ``ts`` is in the bytes alone."""
    own = (row.kind, row.epoch, row.rank, row.producer, row.seq)
    file = RecordFile("", *own, "", row.digest, row.data)
    record = file.decoded
    ts = record.ts if isinstance(record, Record) else lenient(row.data).get("ts")
    return file.filed("", ts if isinstance(ts, str) else "")


def _unknown_run(tx: LedgerTx, text: str, rows: Sequence[RunRow]) -> UnknownRunError:
    """The error for a run that is not there: why it is held back, or which are there."""
    digits = text.lower().replace("-", "")
    for team, trainer in tx.held_counts():
        for held in tx.held_runs(team, trainer, MAX_HELD_RUNS):
            if digits in (held.run.hex[: len(digits)], held.run.hex[-len(digits) :]):
                return UnknownRunError(
                    f"run {held.run}: not in the database; held back: {held.reason}"
                )
    newest = f", newest {max(rows, key=_age).run}" if rows else ""
    many = "1 run" if len(rows) == 1 else f"{len(rows)} runs"
    return UnknownRunError(f"run {text}: not in the database; known: {many}{newest}")


def _age(row: RunRow) -> tuple[float, str]:
    """Sorts runs, oldest first."""
    return (row.created_at, row.run.hex)


def anchor_fact(tx: LedgerTx, row: AnchorRow) -> AnchorFact:
    """An anchor, with the transaction that counts."""
    versions = tx.versions(row.id)
    newest = versions[-1] if versions else None
    version = next((v for v in versions if v.id == row.version_id), newest)
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
