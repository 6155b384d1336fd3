"""The report of a run: ``report.html``, ``report.json`` and the evidence, in one folder."""

from __future__ import annotations

import contextlib
from pathlib import Path

from provenance import files
from provenance.app.verify import verify_run
from provenance.bundle.writer import write_bundle
from provenance.errors import FormatError, InputError
from provenance.formats.fields import Fields
from provenance.report import html
from provenance.settings import Settings


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
    report = verify_run(settings, run)
    target = folder if folder is not None else settings.base_dir / "reports" / str(report.run)
    mode = files.mode_below(target, settings.base_dir)
    with contextlib.ExitStack() as stack:
        try:
            files.make_folders(target, mode)
            stack.enter_context(files.locked(target))
        except OSError as error:
            raise InputError(f"{target}: cannot be written: {error.strerror}") from error
        page = html.write_report(report, target, mode)
        write_bundle(report.evidence, target / "evidence", mode)
    return page


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
