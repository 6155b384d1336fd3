"""Runs that are done leave the database for the archive, and stay provable.

Life of an archived run: it is sealed, and each of its entries lies under a final head on every
network in use; its bundle is written to a file named by the SHA-256 of its bytes, synced, read back
and verified; then, in one transaction, the run's rows of ``records`` make place for one that names
the file, if the file has exactly these records. All else of the run stays: it is small, and lists,
proofs and the ledger go on as before. A process that ends before the commit leaves the run where it
was, and at most a file that no row names.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from provenance.anchor.receipts import final_everywhere
from provenance.app.report import AGAIN, claim
from provenance.app.verify import verify_path
from provenance.bootstrap import reading
from provenance.bundle.archive import Archive, stored_records
from provenance.errors import (
    ConfigError,
    FormatError,
    InputError,
    IntegrityError,
    ProvenanceError,
    UnknownRunError,
)
from provenance.evidence.from_database import from_store
from provenance.ports.store import LedgerStore, LedgerTx
from provenance.ports.values import AnchorState, ArchivedRun, Work
from provenance.settings import Settings
from provenance.settings.values import ArchiveSettings


def archive_run(settings: Settings, store: LedgerStore, run: UUID, now: float) -> ArchivedRun:
    """Move a run's records to the archive; where they are there, nothing is done.

    Raises:
        InputError: The run is not sealed, or not final everywhere; or the file cannot be written.
        IntegrityError: Something does not hold in its evidence: it stays where it is.
        ConfigError: No archive is configured.
        UnknownRunError, StoreUnavailable
    """
    archive = Archive(section(settings).folder)
    with store.snapshot() as tx:
        if (known := tx.archived(run)) is not None:
            return known
        _require_done(settings, tx, run)
    row = archive.write(from_store(store, run, reading.ledger_key(settings)), now)
    path = archive.path(row.digest)
    try:
        report = verify_path(settings, path)
        if report.findings:
            first = report.findings[0]
            problem = f"({first.check}) {first.subject}: {first.problem}"
            raise IntegrityError(f"run {run} stays in the database: {problem}")
    except ProvenanceError:
        path.unlink()
        raise
    with store.transaction(run) as tx:
        if (known := tx.archived(run)) is not None:
            return known
        if tx.records(run) != list(stored_records(report.evidence)):
            raise IntegrityError(f"run {run} stays in the database: its archive has other records")
        tx.archive_run(row)
    return row


def archive_next(
    settings: Settings, store: LedgerStore, now: Callable[[], float]
) -> tuple[UUID, ArchivedRun | str] | None:
    """Archive the run whose time came first: which, and its file, or why it stays until another
    try; None where none is due.

    Raises:
        StoreUnavailable
    """
    after, at = section(settings).after_s, now()
    if after is None:
        return None
    horizon = max(after, AGAIN.cap_s)
    row = claim(store, lambda tx: tx.due_work(Work.ARCHIVE, at, horizon), at)
    if row is None:
        return None
    try:
        archived = archive_run(settings, store, row.run, at)
    except (InputError, FormatError, IntegrityError) as error:
        return row.run, str(error)
    with store.transaction(row.run) as tx:
        tx.drop_work(row.id)
    return row.run, archived


def restore_run(settings: Settings, store: LedgerStore, run: UUID, now: float) -> int:
    """Bring a run's records back; how many. The file stays, and the workers leave the run alone
    for another ``archive.after``.

    Raises:
        IntegrityError: The file is missing, or another than was written.
        UnknownRunError: The run is not archived.
        StoreUnavailable
    """
    after = section(settings).after_s
    with store.transaction(run) as tx:
        if after is not None:
            tx.add_work(Work.ARCHIVE, run, now + after)
        return tx.restore_run(run, now)


def sealed_before(tx: LedgerTx, moment: float) -> list[UUID]:
    """Runs that were sealed before a time and are not archived, oldest first."""
    archived = {row.run for row in tx.archived_runs()}
    return [
        row.run
        for row in tx.runs()
        if row.sealed_at is not None and row.sealed_at < moment and row.run not in archived
    ]


def section(settings: Settings) -> ArchiveSettings:
    """The configuration of the archive; ConfigError where there is none."""
    if settings.archive is None:
        raise ConfigError("archive", "missing, expected an object with folder", settings.source)
    return settings.archive


def _require_done(settings: Settings, tx: LedgerTx, run: UUID) -> None:
    row = tx.run(run)
    if row is None:
        raise UnknownRunError(f"run {run}: not in the database")
    if row.state != "sealed":
        raise InputError(f"run {run}: is {row.state}, expected a sealed one")
    networks = settings.blockchain.active
    final = final_everywhere(tx, networks) if networks else tx.ledger_size()
    if any(entry.anchor and entry.index >= final for entry in tx.entries(run)):
        found = [row for name in networks for row in tx.anchors(name, (AnchorState.HELD,))]
        held = "".join(f"; {row.network} {row.reason}" for row in found)
        raise InputError(f"run {run}: is not final yet on every network in use{held}")
