"""The report of a run: ``report.html``, ``report.json`` and the evidence, in one folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final
from uuid import UUID

from provenance import files
from provenance.anchor.outbox import ceiling
from provenance.anchor.receipts import final_everywhere
from provenance.app.log.runs import told_before
from provenance.app.verify import verify_run
from provenance.bundle.writer import delete_folder, write_bundle
from provenance.errors import FormatError, InputError
from provenance.formats.fields import Fields
from provenance.ports.store import LedgerStore, LedgerTx
from provenance.ports.values import DueWork, Work
from provenance.report import html
from provenance.settings import RetrySettings, Settings
from provenance.verify.report import VerificationReport

AGAIN: Final = RetrySettings(base_s=60.0, cap_s=3600.0)
"""When work that was begun is due again, if it was not done."""


def write_report(settings: Settings, run: str, folder: Path | None = None) -> Path:
    """Verify a run and write ``report.html``, ``report.json`` and the ``evidence`` bundle.

    The verifying worker and a person may write the same report at once: one after another.
    Below ``base_dir`` it is as private as the database; elsewhere the umask says who reads it.

    Args:
        folder: ``<base_dir>/reports/<run>`` where None.

    Returns:
        The path of ``report.html``.

    Raises:
        UnknownRunError, StoreUnavailable
        InputError: The folder cannot be written, or holds something that is no report.
    """
    if folder is not None:
        _check_replaceable(folder)
    return _write(settings, verify_run(settings, run), folder)


def due_report(settings: Settings, tx: LedgerTx, now: float) -> DueWork | None:
    """A report to write now; None without one."""
    size = final_everywhere(tx, settings.blockchain.networks)
    return tx.due_work(Work.REPORT, now, 2 * AGAIN.cap_s, size)


def claim(
    store: LedgerStore, due: Callable[[LedgerTx], DueWork | None], now: float, lease_s: float = 0.0
) -> DueWork | None:
    """Work that is due, which is due again later (after ``lease_s`` at the soonest) whatever
    becomes of this process: what ends its worker, or fails, comes behind all that was tried less.

    Raises:
        StoreUnavailable
    """
    with store.snapshot() as tx:
        if due(tx) is None:
            return None
    with store.transaction() as tx:
        row = due(tx)
        if row is not None:
            wait_s = max(lease_s, ceiling(row.attempts + 1, AGAIN))
            row = replace(row, attempts=row.attempts + 1, next_attempt_at=now + wait_s)
            tx.save_work(row)
    return row


def write_due_report(
    settings: Settings, store: LedgerStore, row: DueWork
) -> tuple[Path, list[str]]:
    """Write the report of a claimed row, which is due no more unless networks gave no answer:
    the path of ``report.html`` and their names.

    Raises:
        As :func:`write_report`.
    """
    report = verify_run(settings, str(row.run))
    page = _write(settings, report, None)
    silent = unreachable(report)
    if not silent:
        with store.transaction(row.run) as tx:
            tx.drop_work(row.id)
    return page, silent


def unreachable(report: VerificationReport) -> list[str]:
    """Networks that gave no answer about one of the run's seals: they say nothing of the run."""
    return [
        name
        for name, seals in report.networks.items()
        if any(check.status == "unreachable" for check in seals.values())
    ]


def _write(settings: Settings, report: VerificationReport, folder: Path | None) -> Path:
    target = folder if folder is not None else settings.base_dir / "reports" / str(report.run)
    mode = files.mode_below(target, settings.base_dir)
    with contextlib.ExitStack() as stack:
        with files.errors_of(target, "written"):
            files.make_folders(target, mode)
            stack.enter_context(files.locked(target))
        before = report.runs_before or told_before(settings, report.run)
        page = html.write_report(replace(report, runs_before=before), target, mode)
        write_bundle(report.evidence, target / "evidence", mode)
    if folder is None and settings.keep_reports is not None:
        _delete_oldest(target.parent, settings.keep_reports)
    return page


def _delete_oldest(reports: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` runs' reports. A folder with anything else in it stays,
    and one that is in use, or cannot be deleted, until the next report is written."""
    with contextlib.suppress(FileNotFoundError):  # another worker deletes, too
        pages = sorted(reports.glob("*/report.json"), key=lambda page: page.stat().st_mtime_ns)
        for folder in [page.parent for page in pages[:-keep]]:
            with contextlib.suppress(ValueError, OSError, InputError):
                if UUID(folder.name) and not folder.is_symlink():
                    _delete(folder)


def _delete(folder: Path) -> None:
    """What says that it is a report goes last."""
    with files.locked(folder, wait_s=0):
        _check_replaceable(folder)
        if (folder / "evidence").exists():
            delete_folder(folder / "evidence")
        (folder / "report.html").unlink(missing_ok=True)
        (folder / "report.json").unlink()
        folder.rmdir()


def _check_replaceable(folder: Path) -> None:
    """An empty folder is taken, and a report with nothing beside its own files."""
    problem = f"{folder}: holds something that is no report; nothing was overwritten"
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(problem)
    names = {path.name for path in folder.iterdir()}
    if other := sorted(names - {"report.html", "report.json", "evidence"}):
        raise InputError(f"{problem} ({other[0]} is not the report's)")
    if names:
        try:
            Fields.parse((folder / "report.json").read_bytes(), "report.json").uuid("run_id")
        except (OSError, FormatError) as error:
            raise InputError(f"{problem} ({error})") from error
